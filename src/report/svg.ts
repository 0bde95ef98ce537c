// Charts as SVG texts, for files: accuracy against tokens. Drawn by echarts, which needs no browser for that.
import { CustomChart, LineChart } from 'echarts/charts';
import { GridComponent, LegendComponent, TitleComponent } from 'echarts/components';
import { type EChartsCoreOption, init, use } from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';

use([LineChart, CustomChart, GridComponent, LegendComponent, TitleComponent, SVGRenderer]);

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
  /** Dashed lines are those that no user could have without knowing the answers. */
  readonly dashed?: boolean;
  readonly points: readonly PlotPoint[];
}

export interface Plot {
  readonly title: string;
  readonly xName: string;
  readonly yName: string;
  readonly series: readonly PlotSeries[];
}

const SIZE = { width: 760, height: 480 };
/** Okabe and Ito's colours, told apart by the colour-blind too. */
export const COLORS = [
  '#0072b2',
  '#d55e00',
  '#009e73',
  '#cc79a7',
  '#e69f00',
  '#56b4e9',
  '#7f7f7f',
  '#000000',
];
/** From this ratio of the greatest to the smallest x on, the axis is logarithmic. */
const LOGARITHMIC = 8;

/** Draws lines with intervals. The same plot gives the same text. */
export function plotSvg(plot: Plot): string {
  const chart = init(null, null, { renderer: 'svg', ssr: true, ...SIZE });
  try {
    chart.setOption(optionOf(plot));
    return `${chart.renderToSVGString()}\n`;
  } finally {
    chart.dispose();
  }
}

function optionOf({ title, xName, yName, series }: Plot): EChartsCoreOption {
  const xs = series.flatMap(({ points }) => points.map(({ x }) => x));
  const [least, most] = [Math.min(...xs), Math.max(...xs)];
  const logarithmic = least > 0 && most / least >= LOGARITHMIC;
  return {
    animation: false,
    backgroundColor: '#ffffff',
    color: COLORS,
    title: { text: title, left: 'center', textStyle: { fontSize: 14 } },
    legend: { bottom: 0, data: series.map(({ name }) => name) },
    grid: { left: 60, right: 30, top: 40, bottom: 80 },
    xAxis: {
      ...{ name: xName, nameLocation: 'middle', nameGap: 28, type: logarithmic ? 'log' : 'value' },
      ...(logarithmic ? { logBase: 2 } : {}),
      ...{ min: least, max: most, axisLabel: { formatter: (x: number) => String(Math.round(x)) } },
    },
    yAxis: { type: 'value', name: yName, scale: true },
    series: series.flatMap((one, i) => [line(one, i), intervals(one, i)]),
  };
}

function line({ name, dashed, points }: PlotSeries, index: number) {
  return {
    ...{ type: 'line', name, color: COLORS[index % COLORS.length], symbolSize: 6 },
    lineStyle: { type: dashed ? 'dashed' : 'solid' },
    data: points.map(({ x, y, label }) => ({
      value: [x, y],
      label: { show: label !== undefined, formatter: label ?? '', position: 'top', fontSize: 10 },
    })),
  };
}

interface Drawing {
  value(dimension: number): number;
  coord(point: readonly [number, number]): [number, number];
}

/** The intervals as upright lines with ends. */
function intervals({ name, points }: PlotSeries, index: number) {
  return {
    ...{ type: 'custom', name, silent: true, color: COLORS[index % COLORS.length] },
    data: points.map(({ x, low, high }) => [x, low, high]),
    encode: { x: 0, y: [1, 2] },
    renderItem(_: unknown, api: Drawing) {
      const [x, bottom] = api.coord([api.value(0), api.value(1)]);
      const [, top] = api.coord([api.value(0), api.value(2)]);
      const stroke = { stroke: COLORS[index % COLORS.length], opacity: 0.6 };
      const from = (x1: number, y1: number, x2: number, y2: number) => ({
        ...{ type: 'line', shape: { x1, y1, x2, y2 }, style: stroke },
      });
      return {
        type: 'group',
        children: [from(x, bottom, x, top), from(x - 3, bottom, x + 3, bottom), from(x - 3, top, x + 3, top)],
      };
    },
  };
}
