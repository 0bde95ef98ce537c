// The tables of a report: runs with held-out accuracy, stages of pipelines, memory by kind, settings.
import { html } from 'hono/html';
import { commandLine } from '../train/option-flags.js';
import type { StageResult } from '../train/r1.js';
import { COLORS } from './page/curves.js';
import type { ReportRun } from './report-runs.js';
import {
  type Grouped,
  type PipelineSeries,
  rowsPerPoint,
  runLabel,
  type Series,
  tellingOptions,
} from './report-series.js';

/** Escaped HTML. */
export type Html = ReturnType<typeof html>;

const NONE = '–';
const whole = (n: number | null | undefined) => (n == null ? NONE : Math.round(n).toLocaleString('en-US'));
const decimal = (n: number | null | undefined, digits: number) => (n == null ? NONE : n.toFixed(digits));
const percent = (x: number) => `${(100 * x).toFixed(1)}%`;
const mebibytes = (n: number) =>
  (n / 2 ** 20).toLocaleString('en-US', { maximumFractionDigits: 1, minimumFractionDigits: 1 });
const mean = (values: readonly number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;

/** A value and what it lies between. */
function between(value: string, range: readonly [string, string] | null): Html {
  return range === null
    ? html`${value}`
    : html`${value} <span class="between">(${range[0]} to ${range[1]})</span>`;
}

function share(x: number, [low, high]: readonly [number, number]): Html {
  return between(percent(x), [percent(low), percent(high)]);
}

/** The mean over seeds, with the least and the greatest; none where no run has a value. */
function overSeeds(values: readonly (number | null | undefined)[], show: (x: number) => string): Html {
  const known = values.filter((value) => value != null);
  if (known.length === 0) return html`${NONE}`;
  return between(show(mean(known)), [show(Math.min(...known)), show(Math.max(...known))]);
}

/** A row's cells; a row of means stands out. */
interface Row {
  readonly cells: readonly Cell[];
  readonly mean?: boolean;
}
type Cell = string | Html;

/** Columns where no row has a value are left out. */
function table(label: string, head: readonly Cell[], rows: readonly Row[]): Html {
  const kept = head.map((_, i) => i).filter((i) => rows.some(({ cells }) => String(cells[i]) !== NONE));
  return html`<div class="table" role="region" aria-label="${label}" tabindex="0"><table>
<thead><tr>${kept.map((i) => html`<th scope="col">${head[i]}</th>`)}</tr></thead>
<tbody>${rows.map(
    ({ cells, mean }) =>
      html`<tr class="${mean ? 'mean' : ''}">${kept.map((i) => html`<td>${cells[i]}</td>`)}</tr>\n`,
  )}</tbody></table></div>
`;
}

function row(cells: readonly Cell[]): Row {
  return { cells };
}

/** The line of a series as the charts draw it. */
export function swatch(index: number): Html {
  const dashed = index < COLORS ? '' : ' dashed';
  return html`<span class="swatch${dashed}" style="color:var(--s${index % COLORS})"></span>`;
}

/** What was generated and what was trained on, of a finished run. */
function tokensOf({ config, summary }: ReportRun): { generated?: number; trained?: number } {
  if (!summary) return {};
  const { tokens, trainedTokens } = summary;
  if (trainedTokens !== undefined) return { generated: tokens, trained: trainedTokens };
  return config.command === 'sample' ? { generated: tokens } : { trained: tokens };
}

/** Whether it is finished, and else how far it came. */
export function stateOf({ config, summary, lastStep }: ReportRun): string {
  if (config.command === 'r1') return summary ? 'finished' : 'unfinished';
  const steps = config.options.steps;
  if (!summary)
    return `unfinished, at step ${whole(lastStep)}${typeof steps === 'number' ? ` of ${whole(steps)}` : ''}`;
  if (summary.sampled !== undefined) return `kept ${whole(summary.kept)} of ${whole(summary.sampled)}`;
  return summary.steps === undefined ? 'finished' : `${whole(summary.steps)} steps`;
}

/** Runs with what their summaries say; a line of means after several seeds. */
export function runTable(series: readonly Series[]): Html {
  const head = [
    'series',
    'seed',
    'state',
    'greedy, before',
    'greedy, after',
    'sampled, before',
    'sampled, after',
    'held-out loss',
    'tokens generated',
    'tokens trained on',
    'seconds',
    'folder',
  ];
  const rows = series.flatMap((one) => {
    const { name, runs } = one;
    const lines = runs.map((run) => {
      const { before, after, evalLoss, seconds } = run.summary ?? {};
      const { generated, trained } = tokensOf(run);
      return row([
        html`<span class="wrap">${name}</span>`,
        String(run.config.seed),
        stateOf(run),
        before ? share(before.greedy, before.greedyCi95) : NONE,
        after ? share(after.greedy, after.greedyCi95) : NONE,
        before ? share(before.sampled, before.sampledCi95) : NONE,
        after ? share(after.sampled, after.sampledCi95) : NONE,
        decimal(evalLoss, 4),
        whole(generated),
        whole(trained),
        decimal(seconds, 1),
        html`<code>${run.dir}</code>`,
      ]);
    });
    const done = runs.filter(({ summary }) => summary !== null);
    if (done.length < 2) return lines;
    const of = (get: (run: ReportRun) => number | null | undefined, show: (x: number) => string) =>
      overSeeds(done.map(get), show);
    const means = [
      html`<span class="wrap">${name}</span>`,
      'mean',
      `${done.length} finished`,
      of((r) => r.summary?.before?.greedy, percent),
      of((r) => r.summary?.after?.greedy, percent),
      of((r) => r.summary?.before?.sampled, percent),
      of((r) => r.summary?.after?.sampled, percent),
      of(
        (r) => r.summary?.evalLoss,
        (x) => decimal(x, 4),
      ),
      of((r) => tokensOf(r).generated, whole),
      of((r) => tokensOf(r).trained, whole),
      of(
        (r) => r.summary?.seconds,
        (x) => decimal(x, 1),
      ),
      '',
    ];
    return [...lines, { cells: means, mean: true }];
  });
  return html`<p class="soft">Accuracies are of held-out problems, one completion each; in brackets the 95% interval over problems
of a run, and of a mean the least and the greatest of its seeds.</p>
${table('Runs', head, rows)}`;
}

/** Held-out accuracy after each stage: of each pipeline, and the mean over seeds where there are several. */
export function stageTables({ name, folders }: PipelineSeries): Html {
  const several = folders.map(({ run, pipeline }) => ({ run, results: pipeline?.results ?? [] }));
  const begun = several.filter(({ results }) => results.length > 0);
  const each = begun.map(
    ({ run, results }) => html`<h3>${name}, seed ${run.config.seed}: <code>${run.dir}</code></h3>
${stageTable(`Stages of ${run.dir}`, [results])}`,
  );
  const unfinished = several
    .filter(({ run }) => run.summary === null)
    .map(({ run }) => html`<p>The pipeline <code>${run.dir}</code> is not finished.</p>`);
  if (begun.length < 2) return html`${each}${unfinished}`;
  return html`<h3>${name}: mean of ${begun.length} seeds</h3>
${stageTable(
  `Stages of ${name}, mean over seeds`,
  begun.map(({ results }) => results),
)}${unfinished}<details><summary>each seed by itself</summary>${each}</details>`;
}

function stageTable(label: string, pipelines: readonly (readonly StageResult[])[]): Html {
  const names = [...new Set(pipelines.flatMap((stages) => stages.map((stage) => stage.name)))];
  const tasks = [
    ...new Set(pipelines.flatMap((stages) => stages.flatMap((stage) => Object.keys(stage.accuracies)))),
  ];
  const judged = pipelines.some((stages) => stages.some((stage) => stage.judging));
  const rows = names.map((name) => {
    const results = pipelines.flatMap((stages) => stages.filter((stage) => stage.name === name));
    const accuracy = (task: string, which: 'value' | 'greedy', interval: 'ci95' | 'greedyCi95') => {
      const known = results.flatMap(({ accuracies }) => (accuracies[task] ? [accuracies[task]] : []));
      if (known.length === 1 && pipelines.length === 1) return share(known[0][which], known[0][interval]);
      return overSeeds(
        known.map((a) => a[which]),
        percent,
      );
    };
    const average = results.flatMap(({ accuracies }) => {
      const values = Object.values(accuracies).map(({ value }) => value);
      return values.length > 0 ? [mean(values)] : [];
    });
    return row([
      name,
      ...tasks.flatMap((task) => [accuracy(task, 'value', 'ci95'), accuracy(task, 'greedy', 'greedyCi95')]),
      pipelines.length > 1 ? overSeeds(average, percent) : average.length > 0 ? percent(average[0]) : NONE,
      whole(mean(results.map(({ tokens }) => tokens))),
      whole(mean(results.map(({ trainedTokens }) => trainedTokens))),
      decimal(mean(results.map(({ seconds }) => seconds)), 1),
      ...(judged ? [judgingOf(results)] : []),
    ]);
  });
  const head = [
    'after stage',
    ...tasks.flatMap((task) => [`${task}, sampled`, `${task}, greedy`]),
    'mean of sampled',
    'tokens generated',
    'tokens trained on',
    'seconds',
    ...(judged ? ['judging'] : []),
  ];
  return table(label, head, rows);
}

/** What judges cost, as their files of answers count it; of several seeds, the sum. */
function judgingOf(results: readonly StageResult[]): string {
  const sums = new Map<string, number>();
  for (const { judging } of results)
    for (const [what, n] of Object.entries(judging ?? {})) sums.set(what, (sums.get(what) ?? 0) + n);
  return [...sums].map(([what, n]) => `${what} ${Number(n.toPrecision(4))}`).join(', ') || NONE;
}

const TRAINING_STATE = ['parameters', 'gradients', 'optimizer'];

/** Peak bytes by kind: the greatest of each series' runs. */
export function memoryTable(series: readonly Series[]): Html | null {
  const columns = series
    .map(({ name, runs }) => {
      const peaks = new Map<string, number>();
      for (const { summary } of runs)
        for (const [kind, { peak }] of Object.entries(summary?.memory ?? {}))
          peaks.set(kind, Math.max(peak, peaks.get(kind) ?? 0));
      return { name, peaks };
    })
    .filter(({ peaks }) => peaks.size > 0);
  if (columns.length === 0) return null;
  const kinds = [...new Set(columns.flatMap(({ peaks }) => [...peaks.keys()]))].filter(
    (kind) => kind !== 'total',
  );
  const most = Math.max(...columns.flatMap(({ peaks }) => [...peaks.values()]));
  const cell = (bytes: number | undefined) =>
    bytes === undefined
      ? NONE
      : html`${mebibytes(bytes)}<span class="bar" style="width:${((100 * bytes) / most).toFixed(2)}%"></span>`;
  const state = (peaks: ReadonlyMap<string, number>) =>
    TRAINING_STATE.reduce((sum, kind) => sum + (peaks.get(kind) ?? 0), 0);
  const rows = [
    ...kinds.map((kind) => row([kind, ...columns.map(({ peaks }) => cell(peaks.get(kind)))])),
    row([html`<b>in all, at one time</b>`, ...columns.map(({ peaks }) => cell(peaks.get('total')))]),
    row([html`${TRAINING_STATE.join(' + ')}`, ...columns.map(({ peaks }) => cell(state(peaks)))]),
  ];
  return html`<p class="soft">Peaks in MiB; kinds reach theirs at different times. Of several seeds, the greatest.</p>
${table('Memory by kind', ['kind', ...columns.map(({ name }) => name)], rows)}`;
}

/** The command and every option, of one run of each series and pipeline. */
export function settings({ series, pipelines }: Grouped): Html {
  const all = [
    ...pipelines.map(({ name, folders }) => ({ name, runs: folders.map(({ run }) => run) })),
    ...series,
  ];
  return html`${all.map((one) => settingsOf(one))}`;
}

function settingsOf(one: Series): Html {
  const { name, runs } = one;
  const [{ config, columns }] = runs;
  const options = tellingOptions(runs[0]);
  // A pipeline is configured by a file.
  const line =
    config.command === 'r1' ? 'retort r1 --config FILE' : commandLine(config.command, config.options);
  const versions = [...new Set(runs.map((run) => run.config.version))].join(', ');
  const machines = [
    ...new Set(
      runs
        .filter((run) => run.config.target !== undefined)
        .map((run) => `${JSON.stringify(run.config.target)}, ${run.config.threads} threads`),
    ),
  ].join('; ');
  const size = Math.max(...runs.map((run) => rowsPerPoint(run.columns)));
  const labels = runs.map((run) => `${runLabel(run, one)} (${run.dir})`).join('; ');
  return html`<details><summary>${name}</summary>
<pre>
${line}</pre>
<p>${labels}. Retort ${versions}.${machines ? ` Target: ${machines}.` : ''}${
    columns.step && size > 1 ? ` Each point of its curves is the mean of ${size} steps.` : ''
  }</p>
${table(
  `Options of ${name}`,
  ['option', 'value'],
  options.map(([option, value]) => row([option, html`<code class="wrap">${JSON.stringify(value)}</code>`])),
)}</details>
`;
}
