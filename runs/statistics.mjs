// Means over seeds with Student's 95% interval, for the tables of runs.
const T95 = { 2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776 };

export const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

/** The interval of the mean over seeds; without bounds for one seed. */
export function interval(values) {
  const m = mean(values);
  const t = T95[values.length];
  if (t === undefined) return [Number.NaN, Number.NaN];
  const sd = Math.sqrt(values.reduce((sum, x) => sum + (x - m) ** 2, 0) / (values.length - 1));
  const half = (t * sd) / Math.sqrt(values.length);
  return [m - half, m + half];
}
