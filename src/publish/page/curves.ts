// Curves of runs and bands over their seeds: what the page of a report computes before it draws. No DOM here.

/** One run's columns: a value for each recorded step, null where there is none. */
export interface RunColumns {
  readonly label: string;
  readonly columns: Readonly<Record<string, readonly (number | null)[]>>;
}

/** Runs of the same command and options but their seed. */
export interface SeriesColumns {
  readonly name: string;
  readonly runs: readonly RunColumns[];
}

/** What a report's page draws. */
export interface ReportData {
  readonly series: readonly SeriesColumns[];
}

/** Colours of lines in the style sheet; after those, lines are dashed. */
export const COLORS = 8;

/** Points of a curve, x rising. */
export interface Curve {
  readonly xs: readonly number[];
  readonly ys: readonly number[];
}

/** Mean, least and greatest of several curves, at the same x. */
export interface Band {
  readonly xs: readonly number[];
  readonly mean: readonly number[];
  readonly low: readonly number[];
  readonly high: readonly number[];
}

/**
 * A metric of a run against one of its columns, where both are known.
 * @param window each value becomes the mean of so many of the last known ones
 */
export function curveOf({ columns }: RunColumns, x: string, metric: string, window = 1): Curve {
  const xs: number[] = [];
  const known: number[] = [];
  const values = columns[metric] ?? [];
  const places = columns[x] ?? [];
  for (let i = 0; i < values.length; i++) {
    const at = places[i] ?? null;
    const value = values[i];
    if (at === null || value === null) continue;
    // A step that trained nothing has the tokens of the one before: the later value stands.
    if (at === xs[xs.length - 1]) known[known.length - 1] = value;
    else {
      xs.push(at);
      known.push(value);
    }
  }
  const ys = known.map((_, i) => meanOf(known.slice(Math.max(0, i + 1 - window), i + 1)));
  return { xs, ys };
}

/**
 * The band of several curves: at every x that one of them has, within the range that all of them have; between its
 * points a curve is taken as straight. Beyond that range a mean over fewer seeds would jump.
 */
export function bandOf(curves: readonly Curve[]): Band {
  const there = curves.filter(({ xs }) => xs.length > 0);
  const from = Math.max(...there.map(({ xs }) => xs[0]));
  const to = Math.min(...there.map(({ xs }) => xs[xs.length - 1]));
  const xs = [...new Set(there.flatMap((curve) => curve.xs))]
    .filter((x) => x >= from && x <= to)
    .sort((a, b) => a - b);
  const rows = there.map((curve) => valuesAt(curve, xs));
  const over = (reduce: (values: number[]) => number) => xs.map((_, i) => reduce(rows.map((row) => row[i])));
  return { xs, mean: over(meanOf), low: over((v) => Math.min(...v)), high: over((v) => Math.max(...v)) };
}

/** @param at rising, within the curve's range */
function valuesAt({ xs, ys }: Curve, at: readonly number[]): number[] {
  let right = 0;
  return at.map((x) => {
    while (xs[right] < x) right++;
    if (xs[right] === x) return ys[right];
    const share = (x - xs[right - 1]) / (xs[right] - xs[right - 1]);
    return ys[right - 1] + share * (ys[right] - ys[right - 1]);
  });
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** A number as a chart says it. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size >= 10_000)
    return new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 4 }).format(value);
  if (size > 0 && size < 0.001) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}
