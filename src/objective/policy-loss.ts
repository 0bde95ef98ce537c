// The clipped policy loss of GRPO for each token, its gradient, and what is logged of it; as a kernel.
//
// DeepSeekMath (arXiv 2402.03300), eq. 3 and 4; DAPO's separate upper clip (arXiv 2503.14476, eq. 10); the upper limit
// `delta` on the ratio from INTELLECT-2 (arXiv 2505.07291). With A the advantage and r = exp(logprob - old):
//   loss = -min(min(r, delta) A, clip(r, 1 - epsilon, 1 + epsilonHigh) A) + beta (exp(ref - logprob) - (ref - logprob) - 1)
import type { Device } from '../compute/device/device.js';
import { buildKernel } from '../compute/kernel/builder.js';
import type { Kernel, TargetInfo } from '../compute/kernel/ir.js';
import { exp } from '../compute/kernel/math.js';
import { columnSums } from '../compute/op/sum/sum.js';
import type { Tensor } from '../compute/tensor.js';

export interface PolicyLossOptions {
  /** How far the ratio may fall below 1 before it gives no more gradient. */
  readonly epsilon: number;
  /** How far it may rise above 1. */
  readonly epsilonHigh: number;
  /** Upper limit on the ratio where the advantage is negative; Infinity for none. */
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
}

/** Sums over the tokens whose weight is not 0; divide by `tokens` for TRL's means. */
export interface PolicyLossSums {
  /** Weighted: this is the loss itself. */
  readonly loss: number;
  readonly tokens: number;
  readonly kl: number;
  readonly entropy: number;
  readonly clippedLow: number;
  readonly clippedHigh: number;
  /** |logprob - old|: between sampler and trainer before the first update, between policies after it. */
  readonly logprobDifference: number;
  readonly ratio: number;
}

const COLUMNS = 8;

function policyLossKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'policy-loss',
    target,
    {
      logprob: 'f32*',
      entropy: 'f32*',
      old: 'f32*',
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
        const ratio = exp(b, difference);
        const free = b.mul(b.min(ratio, p.delta), advantage);
        const clipped = b.mul(b.min(b.max(ratio, p.low), p.high), advantage);
        const inside = b.and(b.le(p.low, ratio), b.le(ratio, p.high));
        const moves = b.or(
          b.and(b.lt(free, clipped), b.le(ratio, p.delta)),
          b.and(b.le(clipped, free), inside),
        );
        const slope = b.select(moves, b.neg(b.mul(ratio, advantage)), 0);

        const some = b.not(b.eq(p.beta, 0));
        const away = b.select(some, b.sub(b.load(p.reference, token), logprob), 0);
        const pull = exp(b, away);
        const kl = b.sub(b.sub(pull, away), 1);
        const loss = b.add(b.neg(b.min(free, clipped)), b.mul(p.beta, kl));
        const gradient = b.add(slope, b.mul(p.beta, b.sub(1, pull)));
        const counts = b.not(b.eq(weight, 0));
        // A token left out must not bring in a NaN: 0 times it would still be one.
        b.store(p.dlogprob, token, b.select(counts, b.mul(weight, gradient), 0));

        const low = b.and(b.lt(ratio, p.low), b.lt(advantage, 0));
        const high = b.and(b.lt(p.high, ratio), b.lt(0, advantage));
        const columns = [
          b.mul(weight, loss),
          b.float(1),
          kl,
          b.load(p.entropy, token),
          b.toFloat(low),
          b.toFloat(high),
          b.abs(difference),
          ratio,
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
  { epsilon, epsilonHigh, delta, beta }: PolicyLossOptions,
  into: Tensor,
): PolicyLossSums {
  const { logprob, entropy, old, reference, advantage, weight } = inputs;
  const mark = device.mark();
  const columns = device.temporary([logprob.size, COLUMNS]);
  device.launch(
    device.kernel('policy-loss', policyLossKernel),
    logprob.size,
    [logprob, entropy, old, reference, advantage, weight, into, columns],
    [1 - epsilon, 1 + epsilonHigh, delta, beta],
    256,
  );
  const [loss, tokens, kl, entropySum, clippedLow, clippedHigh, logprobDifference, ratio] = columnSums(
    device,
    columns,
  );
  device.rewind(mark);
  return { loss, tokens, kl, entropy: entropySum, clippedLow, clippedHigh, logprobDifference, ratio };
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
  ratio: 0,
};
