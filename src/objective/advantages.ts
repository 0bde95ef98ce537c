// Rewards to advantages: weighted sum, centred within the group, scaled (DeepSeekMath eq. 4; Dr. GRPO: 'none').
import { refuse } from '../errors.js';
import { leaveOneOut } from './leave-one-out.js';
import { moments } from './moments.js';

/** What a reward is compared with: the mean of its group (GRPO), or of the others in it (RLOO, which is not scaled). */
export type AdvantageEstimator = 'grpo' | 'rloo';

export const advantageEstimators: readonly AdvantageEstimator[] = ['grpo', 'rloo'];

/**
 * What the centred rewards are divided by: the standard deviation of their group, of the whole batch, or nothing
 * (Dr. GRPO, which shows that dividing by the group's favours too easy and too hard problems).
 */
export type ScaleRewards = 'group' | 'batch' | 'none';

export interface AdvantageOptions {
  /** Completions of one problem, at least 2; they lie beside each other in the batch. */
  readonly numGenerations: number;
  readonly scaleRewards: ScaleRewards;
  /** Default 'grpo'; 'rloo' takes scaleRewards 'none'. */
  readonly advantageEstimator?: AdvantageEstimator;
  /** Weight of each reward by name; 1 where absent. */
  readonly rewardWeights?: Readonly<Record<string, number>>;
}

export interface Advantages {
  /** [completions]; 0 for a completion without any reward. */
  readonly advantages: Float64Array;
  /** Weighted sum of the rewards, [completions]; NaN for a completion without any. */
  readonly rewards: Float64Array;
  /** [groups]: the group has no gradient, since its rewards are all equal or fewer than two are there. */
  readonly flatGroups: readonly boolean[];
  /**
   * TRL's `reward`, `reward_std`, `frac_reward_zero_std`, `rewards/NAME/mean` and `rewards/NAME/std`. Standard
   * deviations are over the batch with Bessel's correction. As in TRL, `frac_reward_zero_std` looks at what the
   * rewards are divided by, so with `scaleRewards: 'batch'` it is 0 or 1; `flatGroups` always looks at groups.
   */
  readonly metrics: Readonly<Record<string, number>>;
}

// TRL's guard against division by zero, and torch.isclose's tolerance at zero.
const STD_EPSILON = 1e-4;
const ZERO_STD = 1e-8;

/**
 * Advantages of a batch of scored completions, group after group. A reward that is absent or not finite (its
 * function failed) takes no part: not in the sum, nor, where a completion has no other, in the group's mean.
 * @throws RetortError `bad-input` for a group size below 2, a batch that it does not divide, a weight that is not finite.
 * @example computeAdvantages([{ accuracy: 1 }, { accuracy: 0 }], { numGenerations: 2, scaleRewards: 'none' })
 *   .advantages // [0.5, -0.5]
 */
export function computeAdvantages(
  scores: readonly Readonly<Record<string, number>>[],
  options: AdvantageOptions,
): Advantages {
  const { numGenerations, scaleRewards, advantageEstimator = 'grpo', rewardWeights = {} } = options;
  check(scores.length, options);
  const names = [...new Set(scores.flatMap((score) => Object.keys(score)))];
  const rewards = Float64Array.from(scores, (score) => weightedSum(score, names, rewardWeights));
  const batch = moments(rewards);
  const advantages = new Float64Array(rewards.length);
  const flatGroups: boolean[] = [];
  let zeroStd = 0;
  for (let start = 0; start < rewards.length; start += numGenerations) {
    const group = moments(rewards.subarray(start, start + numGenerations));
    flatGroups.push(!(group.std > ZERO_STD));
    const std = scaleRewards === 'batch' ? batch.std : group.std;
    const divisor = scaleRewards === 'none' ? 1 : std + STD_EPSILON;
    for (let i = start; i < start + numGenerations; i++) {
      const advantage =
        advantageEstimator === 'rloo'
          ? leaveOneOut(rewards[i], group.mean, group.count)
          : (rewards[i] - group.mean) / divisor;
      advantages[i] = Number.isNaN(advantage) ? 0 : advantage;
      if (std <= ZERO_STD) zeroStd++;
    }
  }
  const metrics: Record<string, number> = {
    reward: batch.mean,
    reward_std: batch.std,
    frac_reward_zero_std: zeroStd / rewards.length,
  };
  for (const name of names) {
    const { mean, std } = moments(scores.map((score) => finiteOrNaN(score[name])));
    metrics[`rewards/${name}/mean`] = mean;
    metrics[`rewards/${name}/std`] = std;
  }
  return { advantages, rewards, flatGroups, metrics };
}

function check(completions: number, options: AdvantageOptions): void {
  const { numGenerations, scaleRewards, advantageEstimator = 'grpo', rewardWeights = {} } = options;
  if (!Number.isInteger(numGenerations) || numGenerations < 2)
    throw refuse(
      'bad-input',
      'numGenerations',
      numGenerations,
      'it must be a whole number of at least 2, a completion is compared with the others of its group',
    );
  if (completions === 0 || completions % numGenerations !== 0)
    throw refuse(
      'bad-input',
      'completions in the batch',
      completions,
      `there must be some, a multiple of numGenerations (${numGenerations})`,
    );
  if (scaleRewards !== 'group' && scaleRewards !== 'batch' && scaleRewards !== 'none')
    throw refuse('bad-input', 'scaleRewards', scaleRewards, "it must be 'group', 'batch' or 'none'");
  if (!advantageEstimators.includes(advantageEstimator))
    throw refuse(
      'bad-input',
      'advantageEstimator',
      advantageEstimator,
      `it must be one of ${advantageEstimators.join(', ')}`,
    );
  checkScaling(advantageEstimator, scaleRewards);
  for (const [name, weight] of Object.entries(rewardWeights))
    if (!Number.isFinite(weight))
      throw refuse('bad-input', `rewardWeights.${name}`, weight, 'it must be a finite number');
}

/** @throws RetortError `bad-input` for an estimator that does not go with the scaling */
export function checkScaling(advantageEstimator: AdvantageEstimator, scaleRewards: ScaleRewards): void {
  if (advantageEstimator === 'rloo' && scaleRewards !== 'none')
    throw refuse(
      'bad-input',
      'scaleRewards with advantageEstimator rloo',
      scaleRewards,
      "leave it out, or give 'none': RLOO does not scale advantages",
    );
}

function finiteOrNaN(value: number | undefined): number {
  return value !== undefined && Number.isFinite(value) ? value : Number.NaN;
}

function weightedSum(
  score: Readonly<Record<string, number>>,
  names: readonly string[],
  weights: Readonly<Record<string, number>>,
): number {
  let sum = Number.NaN;
  for (const name of names) {
    const value = finiteOrNaN(score[name]);
    if (!Number.isNaN(value)) sum = (Number.isNaN(sum) ? 0 : sum) + value * (weights[name] ?? 1);
  }
  return sum;
}
