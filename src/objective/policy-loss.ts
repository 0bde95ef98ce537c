// The policy loss of GRPO for each token, its gradient, and what is logged of it; as a kernel.
//
// DeepSeekMath (arXiv 2402.03300), eq. 3 and 4. With r the importance ratio (importance-ratio.ts):
//   loss = surrogate(r) + beta (exp(ref - logprob) - (ref - logprob) - 1)
// The surrogate is the clipped ratio (clipped-ratio.ts) or CISPO's (cispo.ts).
import type { Device } from '../compute/device/device.js';
import { buildKernel } from '../compute/kernel/builder.js';
import type { Kernel, TargetInfo } from '../compute/kernel/ir.js';
import { exp } from '../compute/kernel/math.js';
import { columnSums } from '../compute/op/sum/sum.js';
import type { Tensor } from '../compute/tensor.js';
import { logRatios } from './importance-ratio.js';
import { type Surrogate, type SurrogateName, surrogates } from './surrogate.js';

export interface PolicyLossOptions {
  readonly surrogate: SurrogateName;
  /** How far the ratio may fall below 1 before it gives no more gradient; not in CISPO. */
  readonly epsilon: number;
  /** How far it may rise above 1; in CISPO its greatest value. */
  readonly epsilonHigh: number;
  /** Upper limit on the ratio where the advantage is negative; Infinity for none. Not in CISPO. */
  readonly delta: number;
  /** Weight of the KL divergence from the reference (k3 estimator). */
  readonly beta: number;
}

/** Per-token inputs, each f32[tokens]. */
export interface PolicyLossInputs {
  readonly logprob: Tensor;
  readonly entropy: Tensor;
  /** Under the policy that sampled. */
  readonly old: Tensor;
  /** Under the reference; read only where beta is not 0. */
  readonly reference: Tensor;
  readonly advantage: Tensor;
  /** What the token's loss is multiplied with; tokens of weight 0 are left out of every sum. */
  readonly weight: Tensor;
  /** i32[completions + 1]: where each begins, and the end, for one ratio a completion; null for one a token. */
  readonly starts: Tensor | null;
}

/** Sums over the tokens whose weight is not 0; divide by `tokens` for TRL's means, those over ratios by `ratios`. */
export interface PolicyLossSums {
  /** Weighted: this is the loss itself. */
  readonly loss: number;
  readonly tokens: number;
  readonly kl: number;
  readonly entropy: number;
  /** Over ratios: those that a bound acts on. */
  readonly clippedLow: number;
  readonly clippedHigh: number;
  /** |logprob - old|: between sampler and trainer before the first update, between policies after it. */
  readonly logprobDifference: number;
  /** (logprob - old)^2: half its mean is TRL's `approxkl`. */
  readonly squaredDifference: number;
  /** Over ratios. */
  readonly ratio: number;
  /** Their number: the tokens, or the completions that have any, in which case it is rounded. */
  readonly ratios: number;
}

const COLUMNS = 10;

function policyLossKernel(name: string, surrogate: Surrogate, target: TargetInfo): Kernel {
  return buildKernel(
    name,
    target,
    {
      logprob: 'f32*',
      entropy: 'f32*',
      old: 'f32*',
      logRatio: 'f32*',
      share: 'f32*',
      reference: 'f32*',
      advantage: 'f32*',
      weight: 'f32*',
      dlogprob: 'f32*',
      sums: 'f32*',
      low: 'f32',
      high: 'f32',
      delta: 'f32',
      beta: 'f32',
    },
    (b, p) => {
      b.items((token) => {
        const logprob = b.load(p.logprob, token);
        const advantage = b.load(p.advantage, token);
        const weight = b.load(p.weight, token);
        const difference = b.sub(logprob, b.load(p.old, token));
        const ratio = exp(b, b.load(p.logRatio, token));
        const share = b.load(p.share, token);
        const { low, high, delta } = p;
        const terms = surrogate.terms(b, { logprob, ratio, advantage, low, high, delta });

        const some = b.not(b.eq(p.beta, 0));
        const away = b.select(some, b.sub(b.load(p.reference, token), logprob), 0);
        const pull = exp(b, away);
        const kl = b.sub(b.sub(pull, away), 1);
        const loss = b.add(terms.loss, b.mul(p.beta, kl));
        const gradient = b.add(terms.slope, b.mul(p.beta, b.sub(1, pull)));
        const counts = b.not(b.eq(weight, 0));
        // A token left out must not bring in a NaN: 0 times it would still be one.
        b.store(p.dlogprob, token, b.select(counts, b.mul(weight, gradient), 0));

        const columns = [
          b.mul(weight, loss),
          b.float(1),
          kl,
          b.load(p.entropy, token),
          b.mul(share, b.toFloat(terms.clippedLow)),
          b.mul(share, b.toFloat(terms.clippedHigh)),
          b.abs(difference),
          b.mul(difference, difference),
          b.mul(share, ratio),
          share,
        ];
        const at = b.mul(token, COLUMNS);
        columns.forEach((value, i) => {
          b.store(p.sums, at, b.select(counts, value, 0), undefined, i);
        });
      });
    },
  );
}

/** Writes the loss's gradient by log-probability into `into`[tokens] and gives the sums. */
export function policyLoss(
  device: Device,
  inputs: PolicyLossInputs,
  { surrogate, epsilon, epsilonHigh, delta, beta }: PolicyLossOptions,
  into: Tensor,
): PolicyLossSums {
  const { logprob, entropy, old, reference, advantage, weight, starts } = inputs;
  const mark = device.mark();
  const { logRatio, share } = logRatios(device, logprob, old, starts);
  const columns = device.temporary([logprob.size, COLUMNS]);
  const name = `policy-loss-${surrogate}`;
  device.launch(
    device.kernel(name, (target) => policyLossKernel(name, surrogates[surrogate], target)),
    logprob.size,
    [logprob, entropy, old, logRatio, share, reference, advantage, weight, into, columns],
    [...surrogates[surrogate].bounds(epsilon, epsilonHigh), delta, beta],
    256,
  );
  const [
    loss,
    tokens,
    kl,
    entropySum,
    clippedLow,
    clippedHigh,
    logprobDifference,
    squaredDifference,
    ratio,
    ratios,
  ] = columnSums(device, columns);
  device.rewind(mark);
  return {
    loss,
    tokens,
    kl,
    entropy: entropySum,
    clippedLow,
    clippedHigh,
    logprobDifference,
    squaredDifference,
    ratio,
    ratios,
  };
}

/** Adds sums up, of micro-batches for instance. */
export function addSums(a: PolicyLossSums, b: PolicyLossSums): PolicyLossSums {
  const keys = Object.keys(a) as (keyof PolicyLossSums)[];
  return Object.fromEntries(keys.map((key) => [key, a[key] + b[key]])) as unknown as PolicyLossSums;
}

export const noSums: PolicyLossSums = {
  loss: 0,
  tokens: 0,
  kl: 0,
  entropy: 0,
  clippedLow: 0,
  clippedHigh: 0,
  logprobDifference: 0,
  squaredDifference: 0,
  ratio: 0,
  ratios: 0,
};
