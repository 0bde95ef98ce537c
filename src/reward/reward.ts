// The contract of a reward: something to score beside what the task itself scores.
import { refuse } from '../errors.js';

/** What is known about a completion besides its text. */
export interface RewardContext {
  /** Tokens of the completion, the end of sequence included; undefined where only the text is known. */
  readonly tokenCount?: number;
  /** Aborted where the run is to stop, so that nothing is waited for long; a worker is given none. */
  readonly signal?: AbortSignal;
}

/**
 * One reward, by name. It is added to the task's own rewards, weighted. `P` is the task's problem.
 *
 * `score` may be async, and is then given a time limit. A closure cannot be stopped while it computes: a reward that
 * may loop for ever belongs into a module of its own (`loadReward`), which runs in a worker that can be killed.
 */
export interface Reward<P = unknown> {
  /** As it stands in `rewards/NAME/mean`. */
  readonly name: string;
  /** Its weight in the sum that is trained on; 1 where absent. */
  readonly weight?: number;
  /** A finite number. */
  score(problem: P, completion: string, context: RewardContext): number | Promise<number>;
  /** Set by `loadReward`: the module in which `score` is to run. */
  readonly module?: ModuleReference;
}

/** An export of a user's module, as plain data: it can be logged and sent to a worker. */
export interface ModuleReference {
  /** Absolute path of a JavaScript module. */
  readonly path: string;
  /** The name of the export; null where the only one, or the one with the usual name, is meant. */
  readonly exportName: string | null;
  /** Given to the export where it is a function that makes a task. */
  readonly options: Readonly<Record<string, unknown>>;
}

/**
 * Checks a reward that a user defined.
 *
 * @throws RetortError (bad-input) that names the field that is wrong.
 * @example
 * const short = defineReward({ name: 'short', weight: 0.1, score: (_, completion) => -completion.length / 100 });
 */
export function defineReward<P>(reward: Reward<P>): Reward<P> {
  if (typeof reward !== 'object' || reward === null)
    throw refuse('bad-input', 'reward', reward, 'give an object');
  const { name, weight, score } = reward;
  if (typeof name !== 'string' || !/^[\w-]+$/.test(name)) {
    throw refuse('bad-input', 'name of a reward', name, 'use letters, digits, hyphens and underscores');
  }
  if (typeof score !== 'function') {
    throw refuse(
      'bad-input',
      `score of reward ${name}`,
      score,
      'give a function from problem and completion to number',
    );
  }
  if (weight !== undefined && !Number.isFinite(weight)) {
    throw refuse('bad-input', `weight of reward ${name}`, weight, 'give a finite number');
  }
  return reward;
}
