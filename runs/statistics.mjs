// Means over seeds with Student's 95% interval, and shares as text, for the tables of runs.
const T95 = { 2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776 };

export const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

export const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** The interval of the mean over seeds; without bounds for one seed. */
export function interval(values) {
  const m = mean(values);
  const t = T95[values.length];
  if (t === undefined) return [Number.NaN, Number.NaN];
  const sd = Math.sqrt(values.reduce((sum, x) => sum + (x - m) ** 2, 0) / (values.length - 1));
  const half = (t * sd) / Math.sqrt(values.length);
  return [m - half, m + half];
}

/** A share in percent: the number alone, and with its sign. */
export const points = (x) => (100 * x).toFixed(1);
export const percent = (x) => `${points(x)}%`;

/** The interval of a share. */
export const range = ([low, high]) => `(${points(low)}-${points(high)})`;

/** A mean of differences of shares, with its interval over seeds. */
export function meanPoints(values) {
  const [low, high] = interval(values);
  const ends = Number.isNaN(low) ? '' : ` (95% over seeds: ${points(low)} to ${points(high)})`;
  return `${points(mean(values))} points${ends}`;
}
