// AdamW over the parameter groups of a model or of a part of one, with clipping by the global gradient norm, and its state for checkpoints.

import { adamw, norm } from '../compute/op/adamw/adamw.js';
import type { Tensor } from '../compute/tensor.js';
import { RetortError } from '../errors.js';
import { type Trainable, touchWeights } from '../model/llama.js';

export interface OptimizerOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly adamEpsilon: number;
  /** Decoupled; on matrices only. */
  readonly weightDecay: number;
  /** Gradients are scaled down to this global norm; Infinity leaves them. */
  readonly maxGradNorm: number;
}

export interface Optimizer {
  /** Steps taken. */
  readonly steps: number;
  /**
   * Updates the weights from the accumulated gradients and clears them. Returns the gradient norm before clipping.
   * @throws RetortError numerics where the norm is not finite; weights and gradients are then left as they are
   */
  step(learningRate: number): number;
  clearGradients(): void;
  /** The state as it is saved: copies. */
  tensors(): Generator<{ name: string; shape: readonly number[]; data: Float32Array }>;
  /** Goes on from a saved state. */
  restore(steps: number, source: { read(name: string, into: Float32Array): void }): void;
  free(): void;
}

/** The gradient norm of a step; null where it is not finite, is to be skipped, and was: the caller is told through `warn`. */
export function stepOrSkip(
  optimizer: Pick<Optimizer, 'step' | 'clearGradients'>,
  learningRate: number,
  onNonFinite: 'stop' | 'skip',
  warn: (message: string) => void,
): number | null {
  try {
    return optimizer.step(learningRate);
  } catch (error) {
    if (!(error instanceof RetortError && error.code === 'numerics' && onNonFinite === 'skip')) throw error;
    warn(`${error.message}; the update was skipped`);
    optimizer.clearGradients();
    return null;
  }
}

export function createOptimizer(trained: Trainable, o: OptimizerOptions): Optimizer {
  const { device, groups } = trained;
  const states = groups.map(({ decay, value, gradient }) => {
    if (!gradient)
      throw new RetortError('bad-model', 'the model was opened without gradients; open it as trainable');
    const [mean, square] = [0, 1].map(() => device.tensor('optimizer', value.shape));
    for (const t of [mean, square]) device.fill(t, 0);
    return { decay, value, gradient, mean, square };
  });
  const named: [string, Tensor][] = states.flatMap(({ decay, mean, square }, i) => {
    const before = states.slice(0, i).filter((s) => s.decay === decay).length;
    const kind = (decay ? 'matrices' : 'norms') + (before > 0 ? `-${before + 1}` : '');
    return [
      [`${kind}.mean`, mean],
      [`${kind}.square`, square],
    ];
  });
  let steps = 0;
  const clearGradients = () => {
    for (const { gradient } of states) device.fill(gradient, 0);
  };
  return {
    get steps() {
      return steps;
    },
    step(learningRate) {
      const gradNorm = Math.hypot(...states.map(({ gradient }) => norm(device, gradient)));
      if (!Number.isFinite(gradNorm)) {
        throw new RetortError(
          'numerics',
          `the gradient norm of step ${steps + 1} is ${gradNorm}; lower the learning rate or the clipping norm`,
        );
      }
      steps++;
      const factor = gradNorm > o.maxGradNorm ? o.maxGradNorm / (gradNorm + 1e-6) : 1;
      for (const { decay, value, gradient, mean, square } of states) {
        const weightDecay = decay ? o.weightDecay : 0;
        adamw(device, value, gradient, mean, square, {
          beta1: o.beta1,
          beta2: o.beta2,
          eps: o.adamEpsilon,
          weightDecay,
          learningRate,
          step: steps,
          factor,
        });
      }
      touchWeights(trained);
      clearGradients();
      return gradNorm;
    },
    clearGradients,
    *tensors() {
      for (const [name, t] of named) yield { name, shape: t.shape, data: device.floats(t).slice() };
    },
    restore(saved, source) {
      for (const [name, t] of named) {
        const values = new Float32Array(t.size);
        source.read(name, values);
        device.floats(t).set(values);
      }
      steps = saved;
    },
    free() {
      for (const [, t] of named) device.free(t);
    },
  };
}
