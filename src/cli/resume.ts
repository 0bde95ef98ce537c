// retort resume: goes on with an interrupted run.
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { refuse } from '../errors.js';
import { runConfig } from '../train/recorder.js';
import type { SupervisedInput, SupervisedSummary } from '../train/supervised.js';
import type { SupervisedCommand } from '../train/supervised-options.js';
import { distillText, runDistill } from './distill.js';
import { addThreads, number, whole } from './flags.js';
import { runGrpo } from './grpo.js';
import { runPpo } from './ppo.js';
import { r1Text, runR1 } from './r1.js';
import { rolloutText } from './rollout-text.js';
import { runSample, sampleText } from './sample.js';
import { runSupervised, supervisedText } from './supervised.js';
import { type CommonOptions, printResult, say } from './terminal.js';

/** How runs of a verb go on, and what is said at their end. */
interface Resumed<Input, Summary> {
  run(input: Input): Promise<Summary>;
  text(summary: Summary): string;
}

function resumed<Input, Summary>(r: Resumed<Input, Summary>): Resumed<unknown, unknown> {
  return r as Resumed<unknown, unknown>;
}

const VERBS: Readonly<Record<string, Resumed<unknown, unknown>>> = {
  grpo: resumed({ run: runGrpo, text: rolloutText }),
  ppo: resumed({ run: runPpo, text: rolloutText }),
  sample: resumed({ run: runSample, text: sampleText }),
  distill: resumed({ run: runDistill, text: distillText }),
  r1: resumed({ run: runR1, text: r1Text }),
  sft: resumed(supervised('sft')),
  pretrain: resumed(supervised('pretrain')),
};

function supervised(name: SupervisedCommand): Resumed<SupervisedInput, SupervisedSummary> {
  return { run: (input) => runSupervised(name, input), text: (summary) => supervisedText(name, summary) };
}

export function addResume(program: Command): void {
  const command = program
    .command('resume')
    .description('go on with a run that was interrupted; it ends as if it had never stopped')
    .argument('<run>', 'folder of the run')
    .option(
      '--max-cost <n>',
      "a new budget for the APIs of the run's teacher and judges, in the currency of their prices; counts what was spent",
      number(0, 1e12),
    )
    .option('--max-api-tokens <n>', 'a new budget in tokens, likewise', whole(1))
    .action(async (named: string, o: CommonOptions & Budgets & { threads?: number }) => {
      const { command, options, cwd } = runConfig(named);
      const dir = inFolder(cwd, named);
      if (!Object.hasOwn(VERBS, command)) {
        const remedy = `this version resumes ${Object.keys(VERBS).join(', ')}`;
        throw refuse('bad-input', `command of the run ${dir}`, command, remedy);
      }
      const { run, text } = VERBS[command];
      const done = join(dir, 'summary.json');
      if (existsSync(done)) {
        say(`the run ${dir} is complete`);
        const summary = JSON.parse(readFileSync(done, 'utf8')) as unknown;
        printResult(o, summary, () => text(summary));
        return;
      }
      const given = withBudgets(options, o);
      const summary = await run({ ...given, ...(o.threads ? { threads: o.threads } : {}), resume: dir });
      printResult(o, summary, () => text(summary));
    });
  addThreads(command);
}

/** Budgets of APIs that a run may be given anew, by the names of its options. */
interface Budgets {
  readonly maxCost?: number;
  readonly maxApiTokens?: number;
}

/** The options of a run with these budgets wherever it had such a one: its teacher's, those of its judges. */
export function withBudgets(
  options: Readonly<Record<string, unknown>>,
  budgets: Budgets,
): Record<string, unknown> {
  let changed = options;
  for (const name of ['maxCost', 'maxApiTokens'] as const) {
    const budget = budgets[name];
    if (budget === undefined) continue;
    const before = JSON.stringify(changed);
    if (!before.includes(`"${name}":`))
      throw refuse(
        'bad-input',
        `${name} for this run`,
        budget,
        'it began without such a budget: leave it out',
      );
    changed = JSON.parse(before, (key, value: unknown) => (key === name ? budget : value));
  }
  return { ...changed };
}

/** Goes to the folder in which a run began, where that is another one, and gives the path of the run from there. */
function inFolder(cwd: string, run: string): string {
  // A run that was moved to another machine is resumed from the folder that the user chose.
  if (cwd === process.cwd() || !existsSync(cwd)) return run;
  const path = resolve(run);
  process.chdir(cwd);
  say(`the run began in ${cwd}: relative paths of its options start there`);
  return path;
}
