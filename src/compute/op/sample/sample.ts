// The sampler: one token a row from logits, by temperature, top-k, top-p, min-p and a given random number.
//
// Order as in Hugging Face's generate: temperature, top-k, top-p over what is left, min-p. Each is a threshold on the
// scaled logit; a threshold is found by bisection, and tokens tied at it are all kept.
import { refuse } from '../../../errors.js';
import type { Device } from '../../device/device.js';
import { type Builder, buildKernel, type F32, type I32, type Mask, type Vec } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { exp, log } from '../../kernel/math.js';
import { matrixShape, type Tensor } from '../../tensor.js';
import { rowPeak, rowSums } from '../token-logprob/token-logprob.js';

/** Below this scaled logit, relative to the best, e^z is 0 in float32. */
const FLOOR = -110;
/** Halvings of [FLOOR, 0] until neighbouring floats are reached. */
const HALVINGS = 40;
/** The largest float below 1, so that a random number of almost 1 still picks a token. */
const BELOW_ONE = 1 - 2 ** -23;

/** Numbers that a row's sampling takes. */
const OPTIONS = 5;

function sampleKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'sample',
    target,
    {
      logits: 'f32*',
      /** [rows, 5]: temperature, top-k, top-p, min-p, random number. */
      options: 'f32*',
      token: 'i32*',
      logprob: 'f32*',
      samplingLogprob: 'f32*',
      n: 'i32',
    },
    (b, p) => {
      b.items((row) => {
        const at = b.mul(row, p.n);
        const option = (i: number) => b.load(p.options, b.mul(row, OPTIONS), i);
        const temperature = option(0);
        const peak = rowPeak(b, p.logits, at, p.n);
        const plain = rowSums(b, p.logits, at, p.n, peak, b.float(1));
        const greedy = b.eq(temperature, 0);
        // Finite for every temperature above 0: an infinite one times the distance 0 of the best token would be NaN.
        const inverse = b.min(b.div(1, b.select(greedy, 1, temperature)), 1e38);
        const token = b.variable(b.int(0));

        b.if(
          greedy,
          () => token.set(firstBest(b, p.logits, at, p.n, peak)),
          () => {
            const scaled = (i: I32, count?: I32): Vec =>
              b.mul(b.sub(b.loadVec(p.logits, b.add(at, i), count), b.splat(peak)), b.splat(inverse));
            const threshold = b.variable(b.float(FLOOR));
            /** Raises the threshold as far as enough(threshold) still holds. */
            const raise = (enough: (t: F32) => I32) =>
              b.if(
                enough(b.float(0)),
                () => threshold.set(b.float(0)),
                () => {
                  const low = b.variable(threshold.get());
                  const high = b.variable(b.float(0));
                  b.loop(0, HALVINGS, 1, () => {
                    const middle = b.mul(b.add(low.get(), high.get()), 0.5);
                    const holds = enough(middle);
                    low.set(b.select(holds, middle, low.get()));
                    high.set(b.select(holds, high.get(), middle));
                  });
                  threshold.set(low.get());
                },
              );
            /** Sum over the row of value(z) where z is at or above t. */
            const total = (t: F32, value: (z: Vec) => Vec): F32 => {
              const sum = b.variable(b.zero());
              b.vectors(p.n, (i, count) => {
                const z = scaled(i, count);
                sum.set(b.add(sum.get(), b.select(kept(b, z, t, count), value(z), 0)));
              });
              return b.hsum(sum.get());
            };
            const topK = b.toInt(option(1));
            b.if(b.and(b.lt(0, topK), b.lt(topK, p.n)), () => {
              const wanted = b.toFloat(topK);
              raise((t) =>
                b.le(
                  wanted,
                  total(t, () => b.splat(1)),
                ),
              );
            });
            const topP = option(2);
            b.if(b.lt(topP, 1), () => {
              const wanted = b.mul(
                topP,
                total(threshold.get(), (z) => exp(b, z)),
              );
              raise((t) =>
                b.le(
                  wanted,
                  total(t, (z) => exp(b, z)),
                ),
              );
            });
            const minP = option(3);
            b.if(b.lt(0, minP), () => threshold.set(b.max(threshold.get(), log(b, minP))));

            const weight = (i: I32, count?: I32): Vec => {
              const z = scaled(i, count);
              return b.select(kept(b, z, threshold.get(), count), exp(b, z), 0);
            };
            // The total is summed as the search below sums it, so that the search always ends inside.
            const all = b.variable(b.float(0));
            b.vectors(p.n, (i, count) => all.set(b.add(all.get(), b.hsum(weight(i, count)))));
            const goal = b.mul(all.get(), b.min(option(4), BELOW_ONE));
            const passed = b.variable(b.float(0));
            const found = b.variable(b.int(0));
            b.vectors(p.n, (i, count) => {
              b.if(b.eq(found.get(), 0), () => {
                const next = b.add(passed.get(), b.hsum(weight(i, count)));
                b.if(
                  b.lt(goal, next),
                  () => {
                    found.set(b.int(1));
                    pickWithin(i, count);
                  },
                  () => passed.set(next),
                );
              });
            });
            function pickWithin(start: I32, count: I32 | undefined): void {
              const open = b.variable(b.int(1));
              const sum = b.variable(passed.get());
              b.loop(0, count ?? b.lanes, 1, (lane) => {
                const z = b.mul(b.sub(b.load(p.logits, b.add(b.add(at, start), lane)), peak), inverse);
                const e = b.select(b.le(threshold.get(), z), exp(b, z), 0);
                // Rounding may leave the goal above the last partial sum; then the last possible token stands.
                b.if(b.and(open.get(), b.lt(0, e)), () => token.set(b.add(start, lane)));
                sum.set(b.add(sum.get(), e));
                open.set(b.and(open.get(), b.le(sum.get(), goal)));
              });
            }
          },
        );
        const chosen = b.sub(b.load(p.logits, b.add(at, token.get())), peak);
        const logprob = b.sub(chosen, log(b, plain.sum));
        b.store(p.token, row, token.get());
        b.store(p.logprob, row, logprob);
        const { sum } = rowSums(b, p.logits, at, p.n, peak, inverse);
        b.store(p.samplingLogprob, row, b.sub(b.mul(chosen, inverse), log(b, sum)));
      });
    },
  );
}

function kept(b: Builder, z: Vec, threshold: F32, count: I32 | undefined): Mask {
  const above = b.le(b.splat(threshold), z);
  return count ? b.and(above, b.firstLanes(count)) : above;
}

/** The first index whose logit is the peak. */
function firstBest(b: Builder, logits: Parameters<typeof rowPeak>[1], at: I32, n: I32, peak: F32): I32 {
  const best = b.variable(n);
  b.loop(0, n, 1, (i) => {
    const index = b.select(b.eq(b.load(logits, b.add(at, i)), peak), i, n);
    best.set(b.min(best.get(), index));
  });
  // Logits that are all NaN have no best; token 0 stands, and the log-probability is NaN for the caller to see.
  return b.select(b.lt(best.get(), n), best.get(), b.int(0));
}

/** How one row is sampled. */
export interface Sampling {
  /** 0 is greedy. */
  readonly temperature: number;
  /** 0 keeps all. */
  readonly topK: number;
  /** 1 keeps all. */
  readonly topP: number;
  /** 0 keeps all. */
  readonly minP: number;
  /** Uniform in [0, 1). */
  readonly random: number;
}

/** What was drawn, row by row. */
export interface Sampled {
  readonly tokens: readonly number[];
  /** Log-probability under the model as it is. */
  readonly logprobs: readonly number[];
  /** Log-probability at the sampling temperature, before truncation. For greedy rows: the same as logprobs. */
  readonly samplingLogprobs: readonly number[];
}

/** `Sampled` in device memory. */
export interface SampledTensors {
  readonly tokens: Tensor;
  readonly logprobs: Tensor;
  readonly samplingLogprobs: Tensor;
}

/** Where the sampling of `rows` rows is written down. */
export function samplingTensor(device: Device, rows: number): Tensor {
  return device.temporary([rows, OPTIONS]);
}

/** Writes down how each row is sampled. */
export function fillSampling(device: Device, into: Tensor, rows: readonly Sampling[]): void {
  if (rows.length !== into.shape[0])
    throw refuse('bad-kernel', `sampling for ${into.shape[0]} rows`, rows.length, 'give one a row');
  const options = device.floats(into);
  for (let row = 0; row < rows.length; row++) {
    const { temperature, topK, topP, minP, random } = rows[row];
    const at = OPTIONS * row;
    options[at] = temperature;
    // A count of 2^24 and more is not exact as float32, and keeps every token of any vocabulary.
    options[at + 1] = topK;
    options[at + 2] = topP;
    options[at + 3] = minP;
    options[at + 4] = random;
  }
}

/** Samples one token for each row of logits[rows, vocab] as `sampling` says. */
export function sample(device: Device, logits: Tensor, sampling: Tensor): SampledTensors {
  const [count, n] = matrixShape(logits);
  if (sampling.shape[0] !== count)
    throw refuse('bad-kernel', `sampling for ${count} rows`, sampling.shape, 'give one a row');
  const tokens = device.temporary([count], 'i32');
  const logprobs = device.temporary([count]);
  const samplingLogprobs = device.temporary([count]);
  const kernel = device.kernel('sample', sampleKernel);
  device.launch(kernel, count, [logits, sampling, tokens, logprobs, samplingLogprobs], [n], 16);
  return { tokens, logprobs, samplingLogprobs };
}

/** Copies what was drawn out of device memory. */
export function readSampled(device: Device, { tokens, logprobs, samplingLogprobs }: SampledTensors): Sampled {
  return {
    tokens: copyOf(device.ints(tokens)),
    logprobs: copyOf(device.floats(logprobs)),
    samplingLogprobs: copyOf(device.floats(samplingLogprobs)),
  };
}

/** A few numbers; a typed array of its own, which `slice` makes, takes some microseconds. */
function copyOf(numbers: Int32Array | Float32Array): number[] {
  const copy: number[] = [];
  for (let i = 0; i < numbers.length; i++) copy.push(numbers[i]);
  return copy;
}
