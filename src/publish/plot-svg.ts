// Charts as SVG texts, for files: lines with intervals, accuracy against tokens for instance. Scales, ticks and paths
// are d3's; the text follows the reader's light or dark scheme.
import { type ScaleContinuousNumeric, scaleLinear, scaleLog } from 'd3-scale';
import { line } from 'd3-shape';

/** A point with the ends of its interval. */
export interface PlotPoint {
  readonly x: number;
  readonly y: number;
  readonly low: number;
  readonly high: number;
  /** Beside the point. */
  readonly label?: string;
}

export interface PlotSeries {
  readonly name: string;
  /** Dashed: what no user could have without knowing the answers. */
  readonly dashed?: boolean;
  readonly points: readonly PlotPoint[];
}

export interface Plot {
  readonly title: string;
  readonly xName: string;
  readonly yName: string;
  readonly series: readonly PlotSeries[];
}

const WIDTH = 760;
const HEIGHT = 480;
/** Of the axes, from the edges. */
const FRAME = { left: 60, right: WIDTH - 30, top: 44, bottom: HEIGHT - 64 };
/** Okabe and Ito's colours without those that vanish on white or black: told apart by the colour-blind too. */
const COLORS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#7f7f7f'];
/** From this ratio of the greatest to the smallest x on, the axis is logarithmic. */
const LOGARITHMIC = 8;
const X_TICKS = 8;
const Y_TICKS = 6;
const ENTRY = 18;

const STYLE = `<style>
svg{color:#222;background:#fff;font:12px system-ui,sans-serif}
.grid{stroke:currentColor;opacity:.15}.axis{stroke:currentColor}text{fill:currentColor}
@media(prefers-color-scheme:dark){svg{color:#ddd;background:#161616}}
</style>`;

type Scale = ScaleContinuousNumeric<number, number>;

/** Draws lines with intervals. The same plot gives the same text. */
export function plotSvg({ title, xName, yName, series }: Plot): string {
  const points = series.flatMap((one) => one.points);
  const x = xScale(points.map((p) => p.x));
  const y = scaleLinear(extent(points.flatMap(({ low, high }) => [low, high])), [
    FRAME.bottom,
    FRAME.top,
  ]).nice();
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img">`,
    `<title>${escapeXml(title)}</title>`,
    STYLE,
    text(WIDTH / 2, 20, title, 'font-size="14" text-anchor="middle"'),
    ...xAxis(x, xName),
    ...yAxis(y, yName),
    ...series.map((one, i) => drawSeries(one, x, y, colorOf(i))),
    ...legend(series, y),
    '</svg>\n',
  ].join('\n');
}

function xScale(values: readonly number[]): Scale {
  const [least, most] = extent(values);
  const range = [FRAME.left, FRAME.right];
  if (least > 0 && most / least >= LOGARITHMIC) return scaleLog([least, most], range).base(2);
  const room = (most - least) * 0.03;
  return scaleLinear([least - room, most + room], range);
}

/** Least and greatest, a little apart where they are one. */
function extent(values: readonly number[]): [number, number] {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return least < most ? [least, most] : [least - 1, most + 1];
}

function xAxis(scale: Scale, name: string): string[] {
  const { left, right, top, bottom } = FRAME;
  const ticks = scale.ticks(X_TICKS).map((at) => {
    const x = round(scale(at));
    return `<line class="grid" x1="${x}" x2="${x}" y1="${top}" y2="${bottom}"/>${text(x, bottom + 18, label(at), 'text-anchor="middle"')}`;
  });
  return [
    ...ticks,
    `<line class="axis" x1="${left}" x2="${right}" y1="${bottom}" y2="${bottom}"/>`,
    text((left + right) / 2, bottom + 42, name, 'text-anchor="middle"'),
  ];
}

function yAxis(scale: Scale, name: string): string[] {
  const { left, right, top, bottom } = FRAME;
  const ticks = scale.ticks(Y_TICKS).map((at) => {
    const y = round(scale(at));
    return `<line class="grid" x1="${left}" x2="${right}" y1="${y}" y2="${y}"/>${text(left - 8, y + 4, label(at), 'text-anchor="end"')}`;
  });
  return [
    ...ticks,
    `<line class="axis" x1="${left}" x2="${left}" y1="${top}" y2="${bottom}"/>`,
    text(left, top - 10, name, 'text-anchor="middle"'),
  ];
}

function drawSeries({ points, dashed }: PlotSeries, x: Scale, y: Scale, color: string): string {
  const path = line<PlotPoint>(
    (p) => round(x(p.x)),
    (p) => round(y(p.y)),
  )(points);
  const marks = points.map((p) => {
    const [at, low, high] = [round(x(p.x)), round(y(p.low)), round(y(p.high))];
    const interval = `<path d="M${at - 3},${low}h6m-3,0V${high}m-3,0h6" fill="none" opacity=".6"/>`;
    const dot = `<circle cx="${at}" cy="${round(y(p.y))}" r="3" fill="${color}"/>`;
    const words = p.label
      ? text(at, high - 5, p.label, 'font-size="10" text-anchor="middle" stroke="none"')
      : '';
    return interval + dot + words;
  });
  const dashes = dashed ? ' stroke-dasharray="6 4"' : '';
  return `<g stroke="${color}"><path d="${path ?? ''}" fill="none" stroke-width="2"${dashes}/>${marks.join('')}</g>`;
}

/** In the corner where the lines leave room: below where they rise to the right, above where they fall. */
function legend(series: readonly PlotSeries[], y: Scale): string[] {
  const rightmost = series.map(({ points }) => y(points.reduce((a, b) => (b.x > a.x ? b : a)).y));
  const middle = (FRAME.top + FRAME.bottom) / 2;
  const low = rightmost.filter((at) => at < middle).length * 2 >= rightmost.length;
  const first = low ? FRAME.bottom - 12 - ENTRY * (series.length - 1) : FRAME.top + 12;
  return series.map(({ name, dashed }, i) => {
    const at = first + ENTRY * i;
    const dashes = dashed ? ' stroke-dasharray="6 4"' : '';
    const stroke = `<line x1="${FRAME.right - 110}" x2="${FRAME.right - 86}" y1="${at - 4}" y2="${at - 4}" stroke="${colorOf(i)}" stroke-width="2"${dashes}/>`;
    return stroke + text(FRAME.right - 80, at, name, '');
  });
}

const colorOf = (index: number) => COLORS[index % COLORS.length];

function text(x: number, y: number, words: string, attributes: string): string {
  return `<text x="${round(x)}" y="${round(y)}" ${attributes}>${escapeXml(words)}</text>`;
}

const round = (value: number) => Math.round(10 * value) / 10;
const label = (value: number) => String(Number(value.toPrecision(4)));

function escapeXml(words: string): string {
  // XML has no place for other control characters, not even written as numbers.
  const plain = words.replace(/[^\P{Cc}\n\t]/gu, '\uFFFD');
  return plain.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
