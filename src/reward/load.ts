// Loads a reward from a user's module: `./my-reward.js` or `./my-reward.js#name`.

import { moduleReference } from './module.js';
import { defineReward, type Reward } from './reward.js';
import { openWorkerPool } from './worker-pool.js';

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
      throw new Error('a reward from a module is scored by openScorer');
    },
  });
}
