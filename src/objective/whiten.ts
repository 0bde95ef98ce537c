// Whitening: values of one batch to mean 0 and standard deviation 1, or to standard deviation 1 about their own mean.
//
// As in OpenAI's implementation of PPO and in TRL: the variance has Bessel's correction and 1e-8 added to it.
import { moments } from './moments.js';

const VARIANCE_EPSILON = 1e-8;

/**
 * Whitens lists of numbers as one batch: (x - mean) / sqrt(variance + 1e-8).
 * @param shiftMean false adds the mean again, so that only the spread changes
 * @example whiten([[1, 2], [3]]) // [[-1, 0], [1]], nearly
 */
export function whiten(lists: readonly ArrayLike<number>[], shiftMean = true): Float64Array[] {
  const { count, mean, std } = moments(lists.flatMap((list) => Array.from(list)));
  const scale = 1 / Math.sqrt((count < 2 ? 0 : std ** 2) + VARIANCE_EPSILON);
  return lists.map((list) => Float64Array.from(list, (x) => (x - mean) * scale + (shiftMean ? 0 : mean)));
}
