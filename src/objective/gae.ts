// Generalized advantage estimation: how much better each token was than its value said, from what followed it.
//
// Schulman et al. 2015 (arXiv 1506.02438), eq. 11, 12 and 16. With V(T) = 0 after the last of T tokens:
//   delta_t = r_t + gamma V(t + 1) - V(t)
//   A_t     = sum over l of (gamma lam)^l delta_(t + l) = delta_t + gamma lam A_(t + 1)
// Values are trained towards the returns A_t + V(t), as in TRL's PPO.
import { refuse } from '../errors.js';

export interface GaeOptions {
  /** Discount, TRL's default 1: a reward at the end counts for every token alike. */
  readonly gamma: number;
  /** TRL's `lam`, its default 0.95: 1 trusts the rewards that followed (low bias), 0 the value of the next token (low variance). */
  readonly lam: number;
}

export interface TokenAdvantages {
  /** [tokens] */
  readonly advantages: Float64Array;
  /** [tokens]: what the values are trained towards. */
  readonly returns: Float64Array;
}

/**
 * Advantages and returns of one completion's tokens.
 * @param rewards [tokens]: of each token; that of the completion is added to its last
 * @param values [tokens]: the critic's, of the state before each token
 * @throws RetortError `bad-input` for lengths that differ, or gamma or lam outside 0 to 1
 * @example gae([0, 1], [0.5, 0.25], { gamma: 1, lam: 1 }).advantages // [0.5, 0.75]: 1 came of 0.5, then of 0.25
 */
export function gae(
  rewards: ArrayLike<number>,
  values: ArrayLike<number>,
  { gamma, lam }: GaeOptions,
): TokenAdvantages {
  if (values.length !== rewards.length)
    throw refuse('bad-input', `values of ${rewards.length} tokens`, values.length, 'give one for each');
  for (const [name, value] of Object.entries({ gamma, lam }))
    if (!(value >= 0 && value <= 1)) throw refuse('bad-input', name, value, 'give a number from 0 to 1');
  const advantages = new Float64Array(rewards.length);
  const returns = new Float64Array(rewards.length);
  let next = 0;
  let nextValue = 0;
  for (let t = rewards.length - 1; t >= 0; t--) {
    const delta = rewards[t] + gamma * nextValue - values[t];
    next = delta + gamma * lam * next;
    nextValue = values[t];
    advantages[t] = next;
    returns[t] = next + values[t];
  }
  return { advantages, returns };
}
