// The contract of a task: what to learn. A task is one short file that defines one of these.

import type { ModuleReference, RewardContext } from '../reward/reward.js';

/** Rewards by name, the same names each time, each finite; `correct` says whether the answer is right. */
export interface Score {
  readonly rewards: Readonly<Record<string, number>>;
  readonly correct: boolean;
}

/** The templates of text/template.ts that tasks choose from. */
export type TemplateName = 'terse' | 'r1' | 'raw';

export type Split = 'train' | 'heldout';

/**
 * A task whose answers can be checked. `P` is the problem: plain JSON data, so that it can be logged and
 * scored later from a file.
 */
export interface Task<P = unknown> {
  readonly name: string;
  /** One line for `retort tasks`. */
  readonly description: string;
  /** The options that this instance was made with, as they go into `config.json`. */
  readonly options: Readonly<Record<string, unknown>>;
  /**
   * Problem `index` of a split under a seed. The same arguments give the same problem on every machine. The
   * problems of `train` and `heldout` never overlap, whatever the seeds.
   */
  problem(split: Split, index: number, seed: number): P;
  /** How many problems a split has where it is finite (a data set); undefined where it is generated. */
  readonly size?: Readonly<Record<Split, number>>;
  /** Reads a problem from parsed JSON; throws RetortError that names the field that is wrong. */
  parseProblem(json: unknown): P;
  /** What the model is asked, without template. */
  prompt(problem: P): string;
  /** Scores a completion (the text after the prompt, special tokens included). May be async. */
  score(problem: P, completion: string, context?: RewardContext): Score | Promise<Score>;
  /** The weight of each reward in the sum that is trained on; 1 where absent. */
  readonly rewardWeights?: Readonly<Record<string, number>>;
  /** The completion reduced to its answer for voting, or null where it has none. */
  answerKey(problem: P, completion: string): string | null;
  /**
   * What else is worth knowing of a completion, by name; reports give the mean of each. For countdown: tries, right
   * and repeated tries, and the chance that random search hits within as many tries.
   */
  measures?(problem: P, completion: string): Readonly<Record<string, number>>;
  /**
   * The answer that must score `correct`, without thinking, as it stands inside <answer>; null for a problem (given
   * by a user) without a known answer; absent where the task knows none.
   */
  gold?(problem: P): string | null;
  /** A worked, possibly imperfect trace: the completion to imitate, for pretraining and SFT. */
  trace?(problem: P, seed: number): string;
  /**
   * What sort of problem it is, where they differ in how hard they are (`4 terms`): a curriculum goes by it, and
   * reports give the accuracy of each.
   */
  kind?(problem: P): string;
  /** Whether the same completion always gets the same score. False for a judge; true where absent. */
  readonly repeatable?: boolean;
  /**
   * Whether `score` keeps a time limit of its own: it calls an API, say, that is slow at times. False where absent. A
   * RetortError that it throws ends the run; any other error is a reward that failed.
   */
  readonly endsByItself?: boolean;
  /** How many completions it can score at a time, where that is more than usual. */
  readonly concurrency?: number;
  /** What scoring cost so far, where it costs anything: calls of an API, its tokens, money. */
  spent?(): Readonly<Record<string, number>>;
  /** Lets go of what scoring opened; whoever scored calls it. Scoring again opens it again. */
  close?(): Promise<void>;
  /** The tasks that a mix is made of, and the one that a problem belongs to. */
  readonly members?: readonly Task[];
  memberOf?(problem: P): Task;
  /** Every character that prompt, trace and gold can hold: what a character-level tokenizer needs. */
  readonly alphabet: string;
  /** The prompt template that fits the task when the user names none. */
  readonly template: TemplateName;
  /** Set by `loadTask` where the task came from a user's module: `score` is to run there, in a worker. */
  readonly module?: ModuleReference;
}
