// AdamW in float64, as PyTorch's: the definition that the kernel is tested against.
import type { AdamwStep } from './adamw.js';

/** One step; value, mean and square are updated in place. */
export function adamwReference(
  value: Float64Array,
  gradient: Float64Array,
  mean: Float64Array,
  square: Float64Array,
  o: AdamwStep,
): void {
  for (let i = 0; i < value.length; i++) {
    const g = o.factor * gradient[i];
    mean[i] = o.beta1 * mean[i] + (1 - o.beta1) * g;
    square[i] = o.beta2 * square[i] + (1 - o.beta2) * g * g;
    const unbiasedMean = mean[i] / (1 - o.beta1 ** o.step);
    const unbiasedSquare = square[i] / (1 - o.beta2 ** o.step);
    value[i] -= o.learningRate * o.weightDecay * value[i];
    value[i] -= (o.learningRate * unbiasedMean) / (Math.sqrt(unbiasedSquare) + o.eps);
  }
}
