// What retort eval says of its measurements: JSON, tables, and the plot of accuracy against tokens.

import type { Plot, PlotPoint, PlotSeries } from '../publish/plot-svg.js';
import type { Estimate } from '../reward/statistics.js';
import type { ThinkingOptions } from '../rollout/thinking.js';
import type { Evaluation } from '../train/evaluate.js';
import { percent, percentWithInterval, table } from './terminal.js';

/** Limits on thinking; null where none were asked about. */
export interface Setting {
  readonly thinking: ThinkingOptions | null;
}

export interface Measured extends Setting {
  readonly evaluation: Evaluation;
}

/** A setting in words. */
export function nameOf({ thinking }: Setting): string {
  if (!thinking) return '';
  const { budget, least } = thinking;
  const most = budget === null ? 'no budget' : `budget ${budget}`;
  return least > 0 ? `${most}, at least ${least}` : most;
}

/** What `--json` prints: of one setting its numbers, of several a list. */
export function resultOf(
  measured: readonly Measured[],
  common: { readonly samples: number; readonly temperature: number },
): Record<string, unknown> {
  if (measured.length === 1) return { ...common, ...numbersOf(measured[0]) };
  return { ...common, settings: measured.map(numbersOf) };
}

function numbersOf({ thinking, evaluation: e }: Measured): Record<string, unknown> {
  return {
    ...(thinking ? { thinkingBudget: thinking.budget, minThinking: thinking.least, thought: e.thought } : {}),
    problems: e.problems,
    pass1: e.pass1.value,
    ci95: e.pass1.interval,
    passAtK: byName(e.passAtK),
    majAtK: byName(e.majAtK),
    ...(e.bestAtK ? { bestAtK: byName(e.bestAtK) } : {}),
    meanReward: e.meanReward,
    meanLength: e.meanLength,
    truncated: e.truncated,
    failed: e.failed,
    tokens: e.tokens,
    measures: e.measures,
    byKind: byName(e.byKind),
  };
}

function byName(
  estimates: ReadonlyMap<number | string, Estimate>,
): Record<string, { value: number; ci95: readonly [number, number] }> {
  return Object.fromEntries([...estimates].map(([k, { value, interval }]) => [k, { value, ci95: interval }]));
}

const show = ({ value, interval }: Estimate) => percentWithInterval(value, interval);
const at = (estimates: ReadonlyMap<number, Estimate>, k: number) => show(estimates.get(k) as Estimate);

/** One setting: by k, and what else is known. */
export function oneText({ evaluation: e }: Measured, title: string): string {
  const { bestAtK } = e;
  const header = ['95% interval', 'tokens', 'pass@k', 'maj@k', ...(bestAtK ? ['best@k'] : [])];
  const rows = [...e.passAtK.keys()].map((k) => [
    ...[`k = ${k}`, (k * e.meanLength).toFixed(0), at(e.passAtK, k), at(e.majAtK, k)],
    ...(bestAtK ? [at(bestAtK, k)] : []),
  ]);
  const lines = [
    title,
    table([header, ...rows]),
    `mean reward ${e.meanReward.toFixed(3)}, mean length ${e.meanLength.toFixed(1)} tokens, ${percent(e.truncated)} cut by the length limit`,
  ];
  if (e.thought) {
    const { tokens, cut, waits } = e.thought;
    lines.push(
      `thoughts: ${tokens.toFixed(1)} tokens, ${percent(cut)} closed by the budget, ${waits.toFixed(2)} stops replaced each`,
    );
  }
  const measures = Object.entries(e.measures).map(([name, value]) => `${name} ${value.toFixed(3)}`);
  if (measures.length > 0) lines.push(`means: ${measures.join(', ')}`);
  for (const [kind, estimate] of e.byKind) lines.push(`${kind}: ${show(estimate)}`);
  return lines.join('\n');
}

/** Several settings: a row each. */
export function settingsText(measured: readonly Measured[], title: string): string {
  const [{ evaluation: first }] = measured;
  const k = first.samples;
  const header = ['thinking', 'tokens', 'of the thought', 'closed', 'replaced', 'one sample'];
  if (k > 1) header.push(`maj@${k}`, ...(first.bestAtK ? [`best@${k}`] : []), `pass@${k}`);
  const rows = measured.map((one) => {
    const { evaluation: e } = one;
    const { tokens, cut, waits } = e.thought as NonNullable<Evaluation['thought']>;
    const row = [
      ...[nameOf(one), e.meanLength.toFixed(1), tokens.toFixed(1), percent(cut), waits.toFixed(2)],
      show(e.pass1),
    ];
    if (k > 1) row.push(at(e.majAtK, k), ...(e.bestAtK ? [at(e.bestAtK, k)] : []), at(e.passAtK, k));
    return row;
  });
  return `${title}\n${table([header, ...rows])}`;
}

/** Accuracy against the tokens of a problem: along k for one setting, along the settings for several. */
export function plotOf(measured: readonly Measured[], title: string): Plot {
  const series = measured.length > 1 ? alongSettings(measured) : alongK(measured[0]);
  return { title, xName: 'tokens for a problem, mean', yName: 'right, %', series };
}

function point(tokens: number, { value, interval: [low, high] }: Estimate, label?: string): PlotPoint {
  return { x: tokens, y: 100 * value, low: 100 * low, high: 100 * high, label };
}

function alongK({ evaluation: e }: Measured): PlotSeries[] {
  const along = (name: string, estimates: ReadonlyMap<number, Estimate> | null, dashed = false) =>
    estimates
      ? [{ name, dashed, points: [...estimates].map(([k, one]) => point(k * e.meanLength, one, `k=${k}`)) }]
      : [];
  return [...along('maj@k', e.majAtK), ...along('best@k', e.bestAtK), ...along('pass@k', e.passAtK, true)];
}

function alongSettings(measured: readonly Measured[]): PlotSeries[] {
  const [{ evaluation: first }] = measured;
  // In the order of the tokens spent, whatever the order of the flags.
  const sorted = [...measured].sort((a, b) => a.evaluation.meanLength - b.evaluation.meanLength);
  const along = (name: string, k: number, of: (e: Evaluation) => ReadonlyMap<number, Estimate> | null) => ({
    name,
    points: sorted.map((one) => {
      const estimate = of(one.evaluation)?.get(k) as Estimate;
      return point(k * one.evaluation.meanLength, estimate, k === 1 ? shortName(one) : undefined);
    }),
  });
  const several = [...first.majAtK.keys()].filter((k) => k > 2);
  return [
    along('one sample', 1, (e) => e.passAtK),
    ...several.map((k) => along(`maj@${k}`, k, (e) => e.majAtK)),
    ...(first.bestAtK ? several.map((k) => along(`best@${k}`, k, (e) => e.bestAtK)) : []),
  ];
}

function shortName({ thinking }: Setting): string {
  if (!thinking) return '';
  const { budget, least } = thinking;
  return (
    [...(least > 0 ? [`≥${least}`] : []), ...(budget !== null ? [`≤${budget}`] : [])].join(' ') || 'free'
  );
}
