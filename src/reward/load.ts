// Finds a reward by its shipped name, or loads one from a user's module: `./my-reward.js` or `./my-reward.js#name`.
import { RetortError } from '../errors.js';
import type { Task } from '../task/task.js';
import { isModulePath, moduleReference } from './module.js';
import { defineReward, type Reward } from './reward.js';
import { languageConsistency, softOverlong, tagCount, thinkFormat } from './shared.js';
import { openWorkerPool } from './worker-pool.js';

/** What shipped rewards need to know of the run. */
export interface RewardSetting {
  /** The longest completion, in tokens. */
  readonly maxTokens: number;
  readonly task: Task;
}

const SHIPPED: Readonly<Record<string, (setting: RewardSetting, weight?: number) => Reward>> = {
  'think-format': (_, weight) => thinkFormat(weight),
  'tag-count': (_, weight) => tagCount(weight),
  'language-consistency': ({ task }, weight) => languageConsistency((p) => task.prompt(p), weight),
  // DAPO's proportion: 4,096 of 20,480 tokens.
  'soft-overlong': ({ maxTokens }, weight) =>
    softOverlong({ maxTokens, buffer: Math.max(1, Math.round(maxTokens / 5)) }, weight),
};

/** The rewards that ship, beside those that tasks have. */
export function rewardNames(): string[] {
  return Object.keys(SHIPPED);
}

/**
 * A reward by name (`think-format`) or module (`./my-reward.js#name`).
 *
 * @param weight where it is not to be the reward's own.
 * @throws RetortError (bad-input) for an unknown name or a module that gives no reward.
 */
export async function findReward(word: string, setting: RewardSetting, weight?: number): Promise<Reward> {
  if (isModulePath(word)) return loadReward(word, weight);
  if (Object.hasOwn(SHIPPED, word)) return defineReward(SHIPPED[word](setting, weight));
  throw new RetortError(
    'bad-input',
    `unknown reward: got ${JSON.stringify(word)}; the rewards are ${rewardNames().join(', ')}; ` +
      'a reward of your own is given as a path, for instance ./my-reward.js',
  );
}

/**
 * A reward from a module that exports `reward` (an object with name and score, or a function from problem and
 * completion to number), or another export named behind `#`. The module is only ever run in worker threads.
 *
 * @throws RetortError (bad-input) where the module is missing, does not load, or exports no reward.
 */
export async function loadReward(word: string, weight?: number): Promise<Reward> {
  const module = moduleReference(word);
  const pool = await openWorkerPool(module, { kind: 'reward', size: 1, timeLimitSeconds: 10 });
  await pool.close();
  return defineReward({
    name: pool.loaded.name,
    weight: weight ?? pool.loaded.weight,
    module,
    score: () => {
      throw new RetortError('bad-input', 'a reward from a module is scored by openScorer, in a worker');
    },
  });
}
