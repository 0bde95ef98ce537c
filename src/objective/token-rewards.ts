// Rewards of tokens for PPO: each token pays for leaving the reference, the last one earns the completion's score.
//
// Ziegler et al. 2019 (arXiv 1909.08593), eq. 2; Stiennon et al. 2020 (arXiv 2009.01325). With the estimators of
// Schulman (http://joschu.net/blog/kl-approx.html) for tokens that the policy sampled:
//   k1 = logprob - ref
//   k3 = exp(ref - logprob) - 1 - (ref - logprob)
import { refuse } from '../errors.js';

/** TRL's `kl_estimator`. */
export type KlEstimator = 'k1' | 'k3';

export const klEstimators: readonly KlEstimator[] = ['k1', 'k3'];

export interface TokenRewardOptions {
  readonly klCoef: number;
  readonly klEstimator: KlEstimator;
}

export interface TokenRewards {
  /** [tokens]: -klCoef times the token's KL, and at the last token the score. */
  readonly rewards: Float64Array;
  /** Sum of the tokens' estimates. */
  readonly kl: number;
}

/**
 * Rewards of one completion's tokens.
 * @param logprobs [tokens]: under the policy that sampled
 * @param reference [tokens]: under the reference
 * @throws RetortError `bad-input` for lengths that differ
 * @example tokenRewards(1, [-1, -2], [-1, -1.5], { klCoef: 0.1, klEstimator: 'k1' }).rewards // [0, 1.05]
 */
export function tokenRewards(
  score: number,
  logprobs: ArrayLike<number>,
  reference: ArrayLike<number>,
  { klCoef, klEstimator }: TokenRewardOptions,
): TokenRewards {
  if (reference.length !== logprobs.length)
    throw refuse(
      'bad-input',
      `reference log-probabilities of ${logprobs.length} tokens`,
      reference.length,
      'give one for each',
    );
  let sum = 0;
  const rewards = Float64Array.from(logprobs, (logprob, t) => {
    const away = reference[t] - logprob;
    const kl = klEstimator === 'k1' ? -away : Math.expm1(away) - away;
    sum += kl;
    return -klCoef * kl;
  });
  if (rewards.length > 0) rewards[rewards.length - 1] += score;
  return { rewards, kl: sum };
}
