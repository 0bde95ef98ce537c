// Log-probability of a given token and entropy of its distribution, fused: log-softmax, gather and entropy in one pass.
//
// Nothing of size [tokens, vocabulary] is made beside the logits; their gradient takes their place. The operation that a
// model uses, with the logits made chunk by chunk, is in head-logprob.ts.
import type { Device } from '../../device/device.js';
import {
  type Buffer,
  type Builder,
  buildKernel,
  type F32,
  type I32,
  type Vec,
} from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { exp, log } from '../../kernel/math.js';
import { matrixShape, type Tensor } from '../../tensor.js';

/** The highest of n logits from `at` on. */
export function rowPeak(b: Builder, logits: Buffer<'f32'>, at: I32, n: I32): F32 {
  const peak = b.variable(b.splat(Number.NEGATIVE_INFINITY));
  b.vectors(n, (i, count) => {
    const x = b.loadVec(logits, b.add(at, i), count);
    const here = count ? b.select(b.firstLanes(count), x, Number.NEGATIVE_INFINITY) : x;
    peak.set(b.max(peak.get(), here));
  });
  return b.hmax(peak.get());
}

/** Sums of e^z and of e^z z over a row, z = (logit - peak) / temperature. The sampler uses the same sums. */
export function rowSums(
  b: Builder,
  logits: Buffer<'f32'>,
  at: I32,
  n: I32,
  peak: F32,
  inverseTemperature: F32,
): { sum: F32; weighted: F32 } {
  const wide = b.splat(peak);
  const sharp = b.splat(inverseTemperature);
  const sum = b.variable(b.zero());
  const weighted = b.variable(b.zero());
  b.vectors(n, (i, count) => {
    const z = b.mul(b.sub(b.loadVec(logits, b.add(at, i), count), wide), sharp);
    const e = exp(b, z);
    // A logit of minus infinity weighs nothing: 0 times infinity must not make a NaN of it.
    const ez = b.select(b.eq(e, 0), 0, b.mul(e, z));
    const inside = (x: Vec): Vec => (count ? b.select(b.firstLanes(count), x, 0) : x);
    sum.set(b.add(sum.get(), inside(e)));
    weighted.set(b.add(weighted.get(), inside(ez)));
  });
  return { sum: b.hsum(sum.get()), weighted: b.hsum(weighted.get()) };
}

function forwardKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'token-logprob',
    target,
    {
      logits: 'f32*',
      token: 'i32*',
      logprob: 'f32*',
      entropy: 'f32*',
      peak: 'f32*',
      logSum: 'f32*',
      n: 'i32',
      inverseTemperature: 'f32',
    },
    (b, p) => {
      b.items((row) => {
        const at = b.mul(row, p.n);
        const peak = rowPeak(b, p.logits, at, p.n);
        const { sum, weighted } = rowSums(b, p.logits, at, p.n, peak, p.inverseTemperature);
        const logSum = log(b, sum);
        const chosen = b.load(p.logits, b.add(at, b.loadInt(p.token, row)));
        b.store(p.logprob, row, b.sub(b.mul(b.sub(chosen, peak), p.inverseTemperature), logSum));
        b.store(p.entropy, row, b.sub(logSum, b.div(weighted, sum)));
        b.store(p.peak, row, peak);
        b.store(p.logSum, row, logSum);
      });
    },
  );
}

/** logits become dlogits = (dlogprob (onehot - p) - dentropy p (log p + entropy)) / temperature. */
function backwardKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'token-logprob-backward',
    target,
    {
      logits: 'f32*',
      token: 'i32*',
      entropy: 'f32*',
      peak: 'f32*',
      logSum: 'f32*',
      dlogprob: 'f32*',
      dentropy: 'f32*',
      n: 'i32',
      inverseTemperature: 'f32',
    },
    (b, p) => {
      b.items((row) => {
        const at = b.mul(row, p.n);
        const peak = b.splat(b.load(p.peak, row));
        const sharp = b.splat(p.inverseTemperature);
        const logSum = b.splat(b.load(p.logSum, row));
        const entropy = b.splat(b.load(p.entropy, row));
        const g = b.load(p.dlogprob, row);
        const wideG = b.splat(g);
        const h = b.splat(b.load(p.dentropy, row));
        b.vectors(p.n, (i, count) => {
          const x = b.loadVec(p.logits, b.add(at, i), count);
          const logP = b.sub(b.mul(b.sub(x, peak), sharp), logSum);
          const probability = exp(b, logP);
          const fromEntropy = b.select(b.eq(probability, 0), 0, b.mul(h, b.add(logP, entropy)));
          const d = b.mul(b.neg(probability), b.add(wideG, fromEntropy));
          b.store(p.logits, b.add(at, i), b.mul(d, sharp), count);
        });
        const chosen = b.add(at, b.loadInt(p.token, row));
        b.store(p.logits, chosen, b.add(b.load(p.logits, chosen), b.mul(g, p.inverseTemperature)));
      });
    },
  );
}

const ROW_GRAIN = 16;

/** What is known of each row's distribution, each f32[rows]. */
export interface TokenLogprobs {
  readonly logprob: Tensor;
  /** In nats. */
  readonly entropy: Tensor;
  /** The highest logit. */
  readonly peak: Tensor;
  /** log of the sum of e^((logit - peak) / temperature). */
  readonly logSum: Tensor;
}

/** Log-probabilities and entropies of tokens[rows] under softmax(logits[rows, vocab] / temperature), into `into`. */
export function tokenLogprob(
  device: Device,
  logits: Tensor,
  tokens: Tensor,
  temperature: number,
  { logprob, entropy, peak, logSum }: TokenLogprobs,
): void {
  const [rows, n] = matrixShape(logits);
  const kernel = device.kernel('token-logprob', forwardKernel);
  const buffers = [logits, tokens, logprob, entropy, peak, logSum];
  device.launch(kernel, rows, buffers, [n, 1 / temperature], ROW_GRAIN);
}

/** Overwrites the logits with their gradient, from those of log-probability and entropy, each f32[rows]. */
export function tokenLogprobGradient(
  device: Device,
  logits: Tensor,
  tokens: Tensor,
  temperature: number,
  { entropy, peak, logSum }: TokenLogprobs,
  gradients: { readonly logprob: Tensor; readonly entropy: Tensor },
): void {
  const [rows, n] = matrixShape(logits);
  const kernel = device.kernel('token-logprob-backward', backwardKernel);
  const buffers = [logits, tokens, entropy, peak, logSum, gradients.logprob, gradients.entropy];
  device.launch(kernel, rows, buffers, [n, 1 / temperature], ROW_GRAIN);
}
