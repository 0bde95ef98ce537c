// retort tasks, retort task NAME: what there is to learn.
import type { Command } from 'commander';
import { isModulePath } from '../reward/module.js';
import { loadTask } from '../task/load.js';
import { optionsFromWords } from '../task/options.js';
import { taskHelp, taskNames } from '../task/registry.js';
import { addSeed, repeatable, splitOption, whole } from './flags.js';
import { type CommonOptions, printResult } from './terminal.js';

export function addTasks(program: Command): void {
  program
    .command('tasks')
    .description('the tasks that ship')
    .action((o: CommonOptions) => {
      const tasks = taskNames().map((name) => {
        const { description, options } = taskHelp(name);
        return { name, description, options };
      });
      const width = Math.max(...tasks.map((t) => t.name.length));
      printResult(o, { tasks }, () =>
        tasks.map((t) => `${t.name.padEnd(width)}  ${t.description}`).join('\n'),
      );
    });

  const command = program
    .command('task')
    .description('a task: its options and sample problems')
    .argument('<name>', 'name of a task, or path of a module that exports one')
    .option('--sample <n>', 'problems to show', whole(0), 3)
    .addOption(splitOption('train'))
    .action(async (name: string, o: TaskFlags) => {
      const task = await loadTask(name, optionsFromWords(o.taskOption ?? []));
      const count = Math.min(o.sample, task.size?.[o.split] ?? o.sample);
      const samples = Array.from({ length: count }, (_, i) => {
        const problem = task.problem(o.split, i, o.seed);
        return {
          problem,
          prompt: task.prompt(problem),
          gold: task.gold?.(problem) ?? null,
          trace: task.trace?.(problem, o.seed + i) ?? null,
        };
      });
      const options = isModulePath(name) ? [] : taskHelp(name).options;
      const result = { name: task.name, description: task.description, options, samples };
      printResult(o, result, () => {
        const lines = [`${task.name}: ${task.description}`];
        if (options.length > 0) lines.push('', 'options (--task-option NAME=VALUE):');
        for (const f of options) lines.push(`  ${f.name}=${String(f.default ?? '')}  ${f.description}`);
        for (const s of samples) {
          lines.push('', `prompt: ${s.prompt}`);
          if (s.gold !== null) lines.push(`gold:   ${s.gold}`);
          if (s.trace !== null) lines.push(`trace:  ${s.trace}`);
        }
        return lines.join('\n');
      });
    });
  repeatable(command, '--task-option <name=value>', 'an option of the task, count=4 for instance');
  addSeed(command, 'the problems');
}

interface TaskFlags extends CommonOptions {
  readonly sample: number;
  readonly split: 'train' | 'heldout';
  readonly seed: number;
  readonly taskOption?: string[];
}
