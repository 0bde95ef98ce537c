// The charts of a report's page, by uPlot: a mean line and a band for each series, or a line for each run.
import type uPlot from 'uplot';
import { type Band, bandOf, COLORS, type Curve, curveOf, type SeriesColumns, short } from './curves.js';

/** What the reader chose. */
export interface Choice {
  /** Column of the x axis, and what it is called. */
  readonly x: string;
  readonly xLabel: string;
  /** Steps of the running mean. */
  readonly window: number;
  /** A line for each run instead of bands. */
  readonly separate: boolean;
  /** Series that are shown, with the number of their colour. */
  readonly series: readonly { readonly series: SeriesColumns; readonly color: number }[];
}

/** A line of a chart; with `band`, its least and greatest values are drawn too. */
interface ChartLine {
  readonly label: string;
  readonly color: number;
  readonly band: Band;
  readonly runs: number;
}

const HEIGHT = 220;

/** The lines of a metric; none where no shown run has it. */
export function linesOf(metric: string, { x, window, separate, series }: Choice): ChartLine[] {
  return series.flatMap(({ series: { name, runs }, color }) => {
    const curves = runs
      .map((run) => ({ label: run.label, curve: curveOf(run, x, metric, window) }))
      .filter(({ curve }) => curve.xs.length > 0);
    if (curves.length === 0) return [];
    const line = (label: string, of: readonly Curve[]) => ({
      ...{ label, color, band: bandOf(of), runs: of.length },
    });
    if (separate) return curves.map(({ label, curve }) => line(`${name}, ${label}`, [curve]));
    return [
      line(
        name,
        curves.map(({ curve }) => curve),
      ),
    ];
  });
}

/** What a chart shows, in words. */
export function describeChart(metric: string, xLabel: string, lines: readonly ChartLine[]): string {
  const parts = lines.map(({ label, band: { mean } }) =>
    mean.length === 0
      ? `${label}: its runs have no range in common`
      : `${label} from ${short(mean[0])} to ${short(mean[mean.length - 1])}`,
  );
  return `${metric} by ${xLabel}: ${parts.join('; ')}. Left and right arrow keys read values.`;
}

/** Draws a metric into an element. */
export function drawChart(
  UPlot: typeof uPlot,
  into: HTMLElement,
  lines: readonly ChartLine[],
  xLabel: string,
): uPlot {
  const css = getComputedStyle(document.documentElement);
  const colorOf = (name: string) => css.getPropertyValue(name).trim() || '#888888';
  const tables = lines.map(({ band: { xs, mean, low, high }, runs }) =>
    runs > 1 ? [xs, mean, low, high] : [xs, mean],
  );
  const series: uPlot.Series[] = [{ label: xLabel, value: (_, v) => (v == null ? '–' : short(v)) }];
  const bands: uPlot.Band[] = [];
  for (const { label, color, runs } of lines) {
    const stroke = colorOf(`--s${color % COLORS}`);
    const dash = color < COLORS ? undefined : [6, 4];
    const at = series.length;
    series.push({
      label: runs > 1 ? `${label} (${runs} runs)` : label,
      ...{ stroke, width: 1.5, dash },
      value: (u, v, _, i) => valueText(u.data, at, runs, v, i),
    });
    if (runs === 1) continue;
    const edge = { class: 'edge', width: 0, points: { show: false }, stroke: 'transparent' };
    series.push({ ...edge, label: `${label}, least` }, { ...edge, label: `${label}, greatest` });
    bands.push({ series: [at + 2, at + 1], fill: `${stroke}33` });
  }
  const axis = {
    stroke: () => colorOf('--ink'),
    grid: { stroke: colorOf('--rule'), width: 1 },
    ticks: { stroke: colorOf('--rule'), width: 1 },
    font: '12px system-ui, sans-serif',
    values: (_: uPlot, values: number[]) => values.map((v) => (v == null ? '' : short(v))),
  };
  return new UPlot(
    {
      ...{ width: widthOf(into), height: HEIGHT, series, bands },
      scales: { x: { time: false } },
      axes: [
        { ...axis, size: 30 },
        { ...axis, size: 58 },
      ],
      cursor: { sync: { key: 'report' }, drag: { x: true, y: false } },
      legend: { isolate: false },
    },
    UPlot.join(tables as unknown as uPlot.AlignedData[]),
    into,
  );
}

export function widthOf(element: HTMLElement): number {
  return Math.max(240, element.clientWidth);
}

function valueText(data: uPlot.AlignedData, at: number, runs: number, v: number | null, i: number | null) {
  if (v == null || i == null) return '–';
  const [low, high] = [data[at + 1]?.[i], data[at + 2]?.[i]];
  return runs === 1 || low == null || high == null
    ? short(v)
    : `${short(v)} (${short(low)} to ${short(high)})`;
}

/** Moves the cursor of a chart to the next value of its x axis, or the one before; the legend then says its values. */
export function stepCursor(u: uPlot, by: 1 | -1): void {
  const xs = u.data[0];
  const [first, last] = u.series[0].idxs ?? [0, xs.length - 1];
  const at = u.cursor.idx;
  const next = at == null ? (by > 0 ? first : last) : Math.min(last, Math.max(first, at + by));
  u.setCursor({ left: u.valToPos(xs[next], 'x'), top: u.over.clientHeight / 2 });
}
