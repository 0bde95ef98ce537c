// Number, mean and standard deviation of a list in which values may be missing.

/**
 * Number, mean and Bessel-corrected standard deviation of the values that are not NaN; NaN below one and two of them. Sums
 * run over distances from the first value, so that equal values have a deviation of exactly 0.
 */
export function moments(values: ArrayLike<number>): { count: number; mean: number; std: number } {
  const there = Array.from(values).filter((value) => !Number.isNaN(value));
  const offset = there[0];
  const mean = offset + there.reduce((sum, value) => sum + (value - offset), 0) / there.length;
  const squares = there.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const count = there.length;
  return { count, mean, std: count < 2 ? Number.NaN : Math.sqrt(squares / (count - 1)) };
}
