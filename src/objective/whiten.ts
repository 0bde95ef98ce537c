// Whitening: values of one batch to mean 0 and standard deviation 1, or to standard deviation 1 about their own mean.
//
// As in OpenAI's implementation of PPO and in TRL: the variance has Bessel's correction and 1e-8 added to it. Sums run over
// distances from the first value, so that equal values have a variance of exactly 0.

const VARIANCE_EPSILON = 1e-8;

/**
 * Whitens lists of numbers as one batch: (x - mean) / sqrt(variance + 1e-8).
 * @param shiftMean false adds the mean again, so that only the spread changes
 * @example whiten([[1, 2], [3]]) // [[-1, 0], [1]], nearly
 */
export function whiten(lists: readonly ArrayLike<number>[], shiftMean = true): Float64Array[] {
  let count = 0;
  let sum = 0;
  const offset = lists.find((list) => list.length > 0)?.[0] ?? 0;
  for (const list of lists) {
    count += list.length;
    for (let i = 0; i < list.length; i++) sum += list[i] - offset;
  }
  const mean = offset + sum / Math.max(1, count);
  let squares = 0;
  for (const list of lists) for (let i = 0; i < list.length; i++) squares += (list[i] - mean) ** 2;
  const variance = squares / Math.max(1, count - 1);
  const scale = 1 / Math.sqrt(variance + VARIANCE_EPSILON);
  return lists.map((list) => Float64Array.from(list, (x) => (x - mean) * scale + (shiftMean ? 0 : mean)));
}
