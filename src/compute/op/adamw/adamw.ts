// AdamW with gradient clipping in one pass over the parameters. Loshchilov and Hutter (2019), algorithm 2.
import type { Device } from '../../device/device.js';
import { buildKernel } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import type { Tensor } from '../../tensor.js';
import { CHUNK, CHUNK_GRAIN, chunkCount, chunks } from '../elementwise.js';
import { columnSums } from '../sum/sum.js';

function adamwKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'adamw',
    target,
    {
      value: 'f32*',
      gradient: 'f32*',
      mean: 'f32*',
      square: 'f32*',
      n: 'i32',
      /** Multiplies the gradient: the clipping factor. */
      factor: 'f32',
      beta1: 'f32',
      keep1: 'f32',
      beta2: 'f32',
      keep2: 'f32',
      /** learningRate / (1 - beta1^t). */
      stepSize: 'f32',
      /** 1 / sqrt(1 - beta2^t). */
      squareScale: 'f32',
      eps: 'f32',
      /** 1 - learningRate * weightDecay. */
      decay: 'f32',
    },
    (b, p) => {
      const [beta1, keep1, beta2, keep2] = [p.beta1, p.keep1, p.beta2, p.keep2].map((x) => b.splat(x));
      const [factor, step, scale, eps, decay] = [p.factor, p.stepSize, p.squareScale, p.eps, p.decay].map(
        (x) => b.splat(x),
      );
      chunks(b, p.n, (i, count) => {
        const g = b.mul(b.loadVec(p.gradient, i, count), factor);
        const mean = b.mulAdd(keep1, g, b.mul(beta1, b.loadVec(p.mean, i, count)));
        const square = b.mulAdd(keep2, b.mul(g, g), b.mul(beta2, b.loadVec(p.square, i, count)));
        const denominator = b.mulAdd(b.sqrt(square), scale, eps);
        const value = b.mul(b.loadVec(p.value, i, count), decay);
        b.store(p.mean, i, mean, count);
        b.store(p.square, i, square, count);
        b.store(p.value, i, b.sub(value, b.mul(step, b.div(mean, denominator))), count);
      });
    },
  );
}

export interface AdamwStep {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** Number of this step, from 1. */
  readonly step: number;
  /** What the gradient is multiplied with first. */
  readonly factor: number;
}

/** One step for flat tensors of one size: value, mean and square are updated in place. */
export function adamw(
  device: Device,
  value: Tensor,
  gradient: Tensor,
  mean: Tensor,
  square: Tensor,
  o: AdamwStep,
): void {
  device.launch(
    device.kernel('adamw', adamwKernel),
    chunkCount(value.size),
    [value, gradient, mean, square],
    [
      value.size,
      o.factor,
      o.beta1,
      1 - o.beta1,
      o.beta2,
      1 - o.beta2,
      o.learningRate / (1 - o.beta1 ** o.step),
      1 / Math.sqrt(1 - o.beta2 ** o.step),
      o.eps,
      1 - o.learningRate * o.weightDecay,
    ],
    CHUNK_GRAIN,
  );
}

/** Partial sums of squares, one a chunk. */
function squaresKernel(target: TargetInfo): Kernel {
  return buildKernel('squares', target, { x: 'f32*', y: 'f32*', n: 'i32' }, (b, p) => {
    b.items((item) => {
      const start = b.mul(item, CHUNK);
      const sum = b.variable(b.zero());
      b.vectors(b.min(b.sub(p.n, start), CHUNK), (i, count) => {
        const x = b.loadVec(p.x, b.add(start, i), count);
        sum.set(b.mulAdd(x, x, sum.get()));
      });
      b.store(p.y, item, b.hsum(sum.get()));
    });
  });
}

/** The Euclidean norm of all elements of a tensor. */
export function norm(device: Device, x: Tensor): number {
  const mark = device.mark();
  const partial = device.temporary([chunkCount(x.size), 1]);
  device.launch(device.kernel('squares', squaresKernel), partial.size, [x, partial], [x.size], CHUNK_GRAIN);
  const [sum] = columnSums(device, partial);
  device.rewind(mark);
  return Math.sqrt(sum);
}
