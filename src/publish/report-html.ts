// The page of a report: one HTML file that loads nothing. What models wrote is text in it, escaped where it stands.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { html, raw } from 'hono/html';
import { VERSION } from '../version.js';
import type { ReportData } from './page/curves.js';
import type { CompletionRow } from './report-completions.js';
import { type ReportFolder, type ReportRun, SECONDS } from './report-runs.js';
import { COUNTERS, condense, type Grouped, group, runLabel } from './report-series.js';
import { STYLE } from './report-style.js';
import { type Html, memoryTable, runTable, settings, stageTables, swatch } from './report-tables.js';

/** Shown at first, where the runs have them, in this order. */
const FIRST = [
  'reward',
  'accuracy',
  'eval/pass1',
  'entropy',
  'policy/entropy_avg',
  'kl',
  'objective/kl',
  'loss',
  'eval_loss',
  'completions/mean_length',
  'tokens_per_second',
];
/** Offered right after those. */
const NEXT = ['rewards/', 'accuracy/', 'eval/', 'completions/', 'loss/', 'policy/', 'objective/'];

/** A page of the folders. Everything that is not Retort's own goes through `html`, which escapes it. */
export function reportPage(folders: readonly ReportFolder[]): string {
  const grouped = group(folders);
  const { series, pipelines } = grouped;
  const curves = series.filter(({ runs }) => runs.some(({ columns }) => columns.step));
  const memory = memoryTable(series);
  const completions = completionsOf(grouped);
  const sections: [id: string, title: string, content: Html][] = [];
  if (curves.length > 0) sections.push(['curves', 'Curves', choices(curves)]);
  if (pipelines.length > 0) sections.push(['stages', 'Stages', html`${pipelines.map(stageTables)}`]);
  sections.push(['runs', 'Runs', runTable(series)]);
  if (memory) sections.push(['memory', 'Memory', memory]);
  if (completions) sections.push(['completions', 'Completions', completions]);
  sections.push(['settings', 'Settings', settings(grouped)]);
  const data: ReportData = {
    series: curves.map((one) => ({
      name: one.name,
      runs: one.runs.map((run) => ({ label: runLabel(run, one), columns: condense(run.columns) })),
    })),
  };
  const title = `Retort: ${grouped.names.join(', ')}`;
  const body = html`<header><h1>${title}</h1>
<nav>${sections.map(([id, title]) => html`<a href="#${id}">${title}</a> `)}</nav></header>
<main>
${sections.map(([id, title, content]) => html`<section id="${id}" aria-labelledby="h-${id}"><h2 id="h-${id}">${title}</h2>\n${content}</section>\n`)}</main>
<footer class="soft"><p>Made by <code>retort report</code>, Retort ${VERSION}.</p>
<details><summary>Charts by uPlot: its licence</summary><pre>${readUplot('LICENSE')}</pre></details></footer>
<script type="application/json" id="data">${raw(inScript(data))}</script>`;
  return document(title, String(body));
}

function document(title: string, body: string): string {
  const scripts = [readUplot('dist/uPlot.iife.min.js'), pageScript()];
  const hashes = scripts.map((text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`);
  // The browser itself holds the page to it: nothing is loaded, and no script runs but these.
  const policy = `default-src 'none'; script-src ${hashes.join(' ')}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'`;
  const head = html`<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${raw(policy)}">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>${title}</title>
<style>${raw(readUplot('dist/uPlot.min.css'))}${raw(STYLE)}</style>`;
  const code = scripts.map((text) => `<script>${text}</script>\n`).join('');
  return `<!doctype html>\n<html lang="en">\n<head>\n${visible(String(head))}\n</head>\n<body>\n${visible(body)}\n${code}</body>\n</html>\n`;
}

/** Control characters that a model may write are no HTML. */
function visible(text: string): string {
  return text.replace(/[^\P{Cc}\n\t]/gu, '\uFFFD');
}

/** JSON that cannot end the script it stands in. */
function inScript(data: unknown): string {
  return JSON.stringify(data).replaceAll('<', '\\u003c');
}

const require = createRequire(import.meta.url);

function readUplot(file: string): string {
  return fs.readFileSync(join(dirname(require.resolve('uplot/package.json')), file), 'utf8');
}

/** The page's modules, compiled from page/, as one script: names are unlike across them, so imports can go. */
function pageScript(): string {
  const modules = ['curves.js', 'charts.js', 'page.js'].map((name) =>
    fs
      .readFileSync(new URL(`./page/${name}`, import.meta.url), 'utf8')
      .replace(/^import .*;\n/gm, '')
      .replace(/^export /gm, '')
      .replace(/^\/\/# sourceMappingURL=.*\n?/gm, ''),
  );
  return `'use strict';(() => {\n${modules.join('')}startPage(uPlot);\n})();`;
}

type CurveSeries = Grouped['series'];

/** Every metric of the runs, sensible ones first. */
function metricsOf(series: CurveSeries): string[] {
  const names = new Set(series.flatMap(({ runs }) => runs.flatMap(({ columns }) => Object.keys(columns))));
  for (const counter of COUNTERS) names.delete(counter);
  const rank = (name: string) => {
    if (FIRST.includes(name)) return FIRST.indexOf(name);
    const next = NEXT.findIndex((start) => name.startsWith(start));
    return FIRST.length + (next < 0 ? NEXT.length : next);
  };
  return [...names].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
}

/** A metric that is the same throughout, the kl of a run without reference for instance, says nothing at first sight. */
function varies(name: string, series: CurveSeries): boolean {
  const values = series.flatMap(({ runs }) => runs.flatMap(({ columns }) => columns[name] ?? []));
  const known = values.filter((value) => value !== null);
  return known.some((value) => value !== known[0]);
}

function choices(series: CurveSeries): Html {
  const has = (column: string) => series.some(({ runs }) => runs.some(({ columns }) => columns[column]));
  const metrics = metricsOf(series);
  const shown = FIRST.filter((name) => metrics.includes(name) && varies(name, series));
  const radio = (name: string, value: string, text: string, checked: boolean) =>
    html`<label><input type="radio" name="${name}" value="${value}" ${checked ? raw('checked') : ''}> ${text}</label>\n`;
  const box = (name: string, value: string, label: string | Html, checked: boolean) =>
    html`<label><input type="checkbox" name="${name}" value="${value}" ${checked ? raw('checked') : ''}> ${label}</label>\n`;
  const axes = [
    ['step', 'steps'],
    ['num_tokens', 'tokens'],
    [SECONDS, 'seconds of steps'],
  ].filter(([column]) => has(column));
  const several = series.some(({ runs }) => runs.length > 1);
  return html`<noscript><p>The curves need JavaScript; everything else on this page does not.</p></noscript>
<form id="choices" hidden>
<fieldset><legend>Series</legend>
${series.map(({ name, runs }, i) => box('series', String(i), html`${swatch(i)} ${name}${runs.length > 1 ? ` (${runs.length} runs)` : ''}`, true))}</fieldset>
<fieldset><legend>Against</legend>
${axes.map(([column, text], i) => radio('x', column, text, i === 0))}</fieldset>
${
  several
    ? html`<fieldset><legend>Seeds</legend>
${radio('seeds', 'band', 'mean, with least and greatest', true)}${radio('seeds', 'separate', 'each by itself', false)}</fieldset>`
    : ''
}
<label>Running mean <select id="window">
${[1, 5, 10, 25, 50].map((n) => html`<option value="${n}">${n === 1 ? 'none' : `of ${n} points`}</option>`)}
</select></label>
<details><summary>Metrics: ${metrics.length}, <span id="chosen">${shown.length} chosen</span></summary>
<fieldset>${metrics.map((name) => box('metric', name, name, shown.includes(name)))}</fieldset></details>
</form>
<p id="without" class="soft" role="status"></p>
<div id="charts"></div>
<p class="soft">A mean is drawn where all runs of a series have values. Drag over a chart to zoom, double-click to go back.</p>
`;
}

/** Characters of a text that are shown: its beginning and its end. */
const SHOWN = { head: 4000, tail: 2000 };

function clipped(text: string): string {
  const left = text.length - SHOWN.head - SHOWN.tail;
  if (left <= 0) return text;
  return `${text.slice(0, SHOWN.head)}\n[… ${left.toLocaleString('en-US')} characters left out …]\n${text.slice(-SHOWN.tail)}`;
}

function completionsOf({ series }: Grouped): Html | null {
  const runs = series
    .flatMap((one) => one.runs.map((run) => ({ run, title: `${one.name}, ${runLabel(run, one)}` })))
    .filter(({ run }) => run.completions.rows.length > 0);
  if (runs.length === 0) return null;
  return html`<form id="filter" hidden>
<label>Run <select id="filter-run">${runs.map(({ title }, i) => html`<option value="${i}">${title}</option>`)}</select></label>
<label>Step <select id="filter-step"></select></label>
<label>Answer <select id="filter-answer"><option value="">all</option><option>right</option><option>wrong</option></select></label>
<output id="shown"></output>
</form>
${runs.map(({ run, title }, i) => html`<p class="soft" data-note="${i}">${title}: ${leftOut(run)}</p>\n${run.completions.rows.map((row) => completion(row, i))}`)}`;
}

function leftOut({ dir, completions: { rows, recorded } }: ReportRun): string {
  const steps = new Set(rows.map(({ step }) => step)).size;
  const all = rows.length === recorded;
  return `${all ? 'all' : `${rows.length} of`} ${recorded} recorded completions, of ${steps} steps.${all ? '' : ` The others are in ${dir}/completions.jsonl.`}`;
}

const number = (value: number | null | undefined) => (value == null ? '–' : String(Number(value.toFixed(3))));

function completion(row: CompletionRow, run: number): Html {
  const answer = row.correct == null ? '' : row.correct ? 'right' : 'wrong';
  const parts = Object.entries(row.rewards ?? {}).map(
    ([name, value]) => html`<span>${name} ${number(value)}</span>`,
  );
  return html`<article data-run="${run}" data-step="${row.step}" data-answer="${answer}">
<p><span>step ${row.step}</span> <span class="${answer}">${answer}</span> <b>reward ${number(row.reward)}</b> <b>advantage ${number(row.advantage)}</b>
${parts} <span class="soft">${row.tokens ?? '–'} tokens, ends by ${row.finishReason ?? '–'}</span></p>
<pre class="prompt">
${clipped(row.prompt ?? '')}</pre>
<pre>
${clipped(row.completion)}</pre>
<details><summary>problem</summary><pre>
${clipped(JSON.stringify(row.problem) ?? '–')}</pre></details></article>
`;
}
