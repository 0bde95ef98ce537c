// The examples that R1's supervised stages imitate: worked traces, files, and what rejection sampling kept, in one file.
import { readFileSync } from 'node:fs';
import { writeFileAtomically } from '../checkpoint/atomic.js';
import { fileProblem } from '../checkpoint/files.js';
import { refuse } from '../errors.js';
import { loadTask } from '../task/load.js';
import type { MixMemberOption } from '../task/mix.js';
import type { Task } from '../task/task.js';
import { type ExamplesOption, taskOf } from './r1-options.js';

/**
 * Writes the examples of a stage. A line has prompt and completion as sft reads them, and where it comes from.
 * @param kept files that stand before the others, of rejection sampling
 * @returns how many lines there are
 * @throws RetortError bad-input for a task without traces, or a file that cannot be read; storage
 */
export async function writeExamples(
  path: string,
  from: ExamplesOption | undefined,
  seed: number,
  kept: readonly string[] = [],
): Promise<number> {
  const lines = [...kept, ...(from?.data === undefined ? [] : [from.data])].flatMap(linesOf);
  for (const member of from?.tasks ?? []) {
    const task = await tracedTask(member);
    for (let index = 0; index < (from as ExamplesOption).examples; index++) {
      const problem = task.problem('train', index, seed);
      const origin = { trace: task.name, options: task.options, index, seed, problem };
      lines.push(
        JSON.stringify({
          prompt: task.prompt(problem),
          completion: task.trace(problem, seed + index),
          origin,
        }),
      );
    }
  }
  writeFileAtomically(path, lines.map((line) => `${line}\n`).join(''));
  return lines.length;
}

/** @throws RetortError bad-input for a task that is not there or has no traces, or a file that cannot be read */
export async function checkExamples(from: ExamplesOption | undefined): Promise<void> {
  if (from?.data !== undefined) linesOf(from.data);
  for (const member of from?.tasks ?? []) await tracedTask(member);
}

async function tracedTask(member: MixMemberOption): Promise<Task & { trace: NonNullable<Task['trace']> }> {
  const { task: word, taskOptions } = taskOf([member]);
  const task = await loadTask(word, taskOptions);
  const { trace } = task;
  if (trace) return { ...task, trace };
  throw refuse('bad-input', 'task to imitate', task.name, 'it has no worked traces: give data instead');
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'utf8')
      .split('\n')
      .filter((line) => line.trim() !== '');
  } catch (error) {
    throw refuse('bad-input', 'file of examples', path, `${fileProblem(error)}: name a JSONL file`);
  }
}
