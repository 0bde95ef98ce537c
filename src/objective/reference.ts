// The policy loss and the value loss in float64: the definitions that the kernels are tested against.
import type { PolicyLossOptions } from './policy-loss.js';

/** Per-token inputs as of `PolicyLossInputs`; `lengths` of completions for one ratio a completion, null for one a token. */
export interface ReferenceInputs {
  readonly logprob: ArrayLike<number>;
  readonly old: ArrayLike<number>;
  readonly reference: ArrayLike<number>;
  readonly advantage: ArrayLike<number>;
  readonly weight: ArrayLike<number>;
  readonly lengths: readonly number[] | null;
}

/** The importance ratio at each token, and the tokens that share one. */
function ratiosReference({ logprob, old, lengths }: ReferenceInputs): { ratio: number[]; spans: number[][] } {
  const spans: number[][] = [];
  let at = 0;
  for (const length of lengths ?? Array.from(logprob, () => 1)) {
    spans.push(Array.from({ length }, () => at++));
  }
  const ratio: number[] = [];
  for (const span of spans) {
    const mean = span.reduce((sum, t) => sum + logprob[t] - old[t], 0) / span.length;
    for (const t of span) ratio[t] = Math.exp(mean);
  }
  return { ratio, spans };
}

/**
 * The loss of each token, not weighted. What no gradient goes through is computed at `frozen` log-probabilities, so that
 * finite differences see the loss as backward does.
 */
export function tokenLossReference(
  inputs: ReferenceInputs,
  { surrogate, epsilon, epsilonHigh, delta, beta }: PolicyLossOptions,
  frozen: ArrayLike<number> = inputs.logprob,
): Float64Array {
  const { logprob, reference, advantage } = inputs;
  const { ratio } = ratiosReference(inputs);
  const detached = ratiosReference({ ...inputs, logprob: frozen }).ratio;
  return Float64Array.from(logprob, (lp, t) => {
    const away = reference[t] - lp;
    const kl = beta === 0 ? 0 : beta * (Math.exp(away) - away - 1);
    const a = advantage[t];
    if (surrogate === 'cispo') return kl - Math.min(detached[t], epsilonHigh) * a * lp;
    const clipped = Math.min(Math.max(ratio[t], 1 - epsilon), 1 + epsilonHigh);
    return kl - Math.min(Math.min(ratio[t], delta) * a, clipped * a);
  });
}

/** The gradient of the weighted sum by each log-probability, by the chain rule through every ratio. */
export function policyLossGradientReference(
  inputs: ReferenceInputs,
  { surrogate, epsilon, epsilonHigh, delta, beta }: PolicyLossOptions,
): Float64Array {
  const { logprob, reference, advantage, weight } = inputs;
  const { ratio, spans } = ratiosReference(inputs);
  const byRatio = (t: number) => {
    const [r, a] = [ratio[t], advantage[t]];
    const free = Math.min(r, delta) * a;
    const clipped = Math.min(Math.max(r, 1 - epsilon), 1 + epsilonHigh) * a;
    if (free < clipped) return r <= delta ? -a : 0;
    return r >= 1 - epsilon && r <= 1 + epsilonHigh ? -a : 0;
  };
  const d = Float64Array.from(logprob, (lp, t) => {
    const direct = surrogate === 'cispo' ? -Math.min(ratio[t], epsilonHigh) * advantage[t] : 0;
    const kl = beta === 0 ? 0 : beta * (1 - Math.exp(reference[t] - lp));
    return weight[t] * (direct + kl);
  });
  if (surrogate === 'cispo') return d;
  for (const span of spans)
    for (const t of span) for (const u of span) d[u] += (weight[t] * byRatio(t) * ratio[t]) / span.length;
  return d;
}

/** Per-token inputs as of `ValueLossInputs`. */
export interface ValueReferenceInputs {
  readonly value: ArrayLike<number>;
  readonly old: ArrayLike<number>;
  readonly returns: ArrayLike<number>;
  readonly weight: ArrayLike<number>;
}

/** The value loss, weighted and summed up. */
export function valueLossReference(
  { value, old, returns, weight }: ValueReferenceInputs,
  range: number,
): number {
  return Array.from(value, (v, t) => {
    const clipped = Math.min(Math.max(v, old[t] - range), old[t] + range);
    return 0.5 * weight[t] * Math.max((v - returns[t]) ** 2, (clipped - returns[t]) ** 2);
  }).reduce((sum, x) => sum + x, 0);
}

/** Its gradient by each value. */
export function valueLossGradientReference(
  { value, old, returns, weight }: ValueReferenceInputs,
  range: number,
): Float64Array {
  return Float64Array.from(value, (v, t) => {
    const clipped = Math.min(Math.max(v, old[t] - range), old[t] + range);
    return (clipped - returns[t]) ** 2 > (v - returns[t]) ** 2 ? 0 : weight[t] * (v - returns[t]);
  });
}
