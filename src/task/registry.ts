// The tasks that ship, by name. A new task: one file, one line here, one row in the tests.
import { RetortError } from '../errors.js';
import { CHAIN_SUM } from './chain-sum.js';
import { COUNTDOWN } from './countdown.js';
import { GSM8K } from './gsm8k.js';
import { JUDGED } from './judged.js';
import type { TaskKind } from './kind.js';
import { LETTER_COUNT } from './letter-count.js';
import { mixKind } from './mix.js';
import { MULTIPLY } from './multiply.js';
import { NUMBER_SORT } from './number-sort.js';
import { describeOptions, nearest, type OptionHelp } from './options.js';
import type { Task } from './task.js';

const SINGLE: Readonly<Record<string, TaskKind>> = {
  countdown: COUNTDOWN,
  'chain-sum': CHAIN_SUM,
  multiply: MULTIPLY,
  'letter-count': LETTER_COUNT,
  'number-sort': NUMBER_SORT,
  gsm8k: GSM8K,
  judged: JUDGED,
};
const KINDS: Readonly<Record<string, TaskKind>> = { ...SINGLE, mix: mixKind(makeTask) };

/** The names of the tasks that ship, in the order of the documentation. */
export function taskNames(): string[] {
  return Object.keys(KINDS);
}

/**
 * A task that ships, with options checked and defaults filled.
 *
 * @throws RetortError (bad-input) for an unknown name, an unknown option or a wrong value.
 */
export function makeTask(name: string, options: Readonly<Record<string, unknown>> = {}): Task {
  return kind(name).make(options);
}

/** What `retort tasks` and `retort task NAME` print about a task without making it. */
export function taskHelp(name: string): { name: string; description: string; options: OptionHelp[] } {
  const { description, options } = kind(name);
  return { name, description, options: describeOptions(options) };
}

function kind(name: string): TaskKind {
  if (Object.hasOwn(KINDS, name)) return KINDS[name];
  const guess = nearest(name, taskNames());
  throw new RetortError(
    'bad-input',
    `unknown task: got ${JSON.stringify(name)}; the tasks are ${taskNames().join(', ')}` +
      `${guess ? `; did you mean ${guess}?` : ''}; a task of your own is given as a path, for instance ./my-task.js`,
  );
}
