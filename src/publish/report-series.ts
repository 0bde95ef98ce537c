// Which runs of a report are the same but for the seed, how they are called, and the points that stand for long curves.
import { basename } from 'node:path';
import type { Columns, ReportFolder, ReportRun } from './report-runs.js';

/** What makes no other experiment of a run. */
const APART = ['seed', 'out', 'save', 'threads'];

/** Runs of the same command and options but seed, folders and threads. */
export interface Series {
  readonly name: string;
  readonly runs: readonly ReportRun[];
}

/** Pipelines of the same options but seed, with the series of their stages. */
export interface PipelineSeries {
  readonly name: string;
  readonly folders: readonly ReportFolder[];
}

export interface Grouped {
  /** Of runs and pipelines, each once. */
  readonly names: readonly string[];
  /** Runs, and stages' runs. */
  readonly series: readonly Series[];
  readonly pipelines: readonly PipelineSeries[];
}

/** In the order of the folders. */
export function group(folders: readonly ReportFolder[]): Grouped {
  const groups = new Map<string, ReportFolder[]>();
  for (const folder of folders) {
    const key = keyOf(folder.run);
    groups.set(key, [...(groups.get(key) ?? []), folder]);
  }
  const named = [...groups.values()];
  const names = namesOf(named.map((members) => members[0].run));
  const series: Series[] = [];
  const pipelines: PipelineSeries[] = [];
  named.forEach((members, i) => {
    if (members[0].pipeline === null) {
      series.push({ name: names[i], runs: members.map(({ run }) => run) });
      return;
    }
    pipelines.push({ name: names[i], folders: members });
    // Stages name the folders of their own pipeline in their options: the pipeline's options say what is the same.
    const begun = members.flatMap(({ pipeline }) => pipeline?.runs ?? []);
    for (const folder of new Set(begun.map((stage) => stage.folder))) {
      const stages = begun.filter((stage) => stage.folder === folder);
      const called = stages.find(({ name }) => name !== folder)?.name ?? folder;
      series.push({ name: `${names[i]}: ${called}`, runs: stages.map(({ run }) => run) });
    }
  });
  return { names, series, pipelines };
}

/** Options that say what a run was, in one order. */
export function tellingOptions({ config }: ReportRun): [string, unknown][] {
  return Object.entries(config.options)
    .filter(([name, value]) => !APART.includes(name) && value !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

function keyOf(run: ReportRun): string {
  return canonical([run.config.command, tellingOptions(run)]);
}

/** JSON with the keys of objects in order. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    inner !== null && typeof inner === 'object' && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

const MOST_IN_NAME = 3;
const LONGEST_IN_NAME = 60;

/** The command and the few short options in which runs of it differ; the folder too where those do not tell all. */
function namesOf(runs: readonly ReportRun[]): string[] {
  const names = runs.map((run) => {
    const same = runs.filter((other) => other.config.command === run.config.command);
    const differs = (name: string) =>
      same.some(({ config }) => canonical(config.options[name]) !== canonical(run.config.options[name]));
    const all = new Set(same.flatMap((other) => tellingOptions(other).map(([name]) => name)).filter(differs));
    const said = [...all]
      .sort((a, b) => telling(a) - telling(b))
      .map((name) => brief(name, run.config.options[name]));
    const words = said.filter((word) => word !== null && word !== '');
    const name = [run.config.command, ...words.slice(0, MOST_IN_NAME)].join(', ');
    return { name, whole: words.length <= MOST_IN_NAME && !said.includes(null), dir: run.dir };
  });
  return names.map(({ name, whole, dir }) =>
    whole && names.filter((other) => other.name === name).length === 1 ? name : `${name} (${basename(dir)})`,
  );
}

/** What tells runs apart at first sight is said first, how they are measured and kept last. */
function telling(name: string): number {
  const first = ['task', 'model'].indexOf(name);
  if (first >= 0) return first;
  return /^(eval|save|keep|log)/.test(name) ? 3 : 2;
}

/** An option in a name: nothing where it is off, null where it is too long. */
function brief(name: string, value: unknown): string | null {
  if (value === undefined || value === null || value === false) return '';
  if (value === true) return name;
  const word = typeof value === 'string' ? value : JSON.stringify(value);
  return typeof value === 'object' || word.length > LONGEST_IN_NAME ? null : `${name} ${word}`;
}

/** What tells a run from the others of its series. */
export function runLabel(run: ReportRun, { runs }: Series): string {
  const { seed } = run.config;
  const alone = runs.filter((other) => other.config.seed === seed).length === 1;
  return alone ? `seed ${seed}` : `seed ${seed}, ${run.dir}`;
}

/** Points of a curve beyond which rows are taken together. */
export const MOST_POINTS = 1000;
const DIGITS = 6;

/** How many rows become one point, so that a curve has no more than MOST_POINTS. */
export function rowsPerPoint(columns: Columns): number {
  return Math.max(1, Math.ceil((columns.step?.length ?? 0) / MOST_POINTS));
}

/** What is counted up over a run: of rows taken together, the last. */
export const COUNTERS = ['step', 'num_tokens', 'seconds'];

/** The columns of a run as the page gets them: six digits, at most MOST_POINTS points, each the mean of its rows. */
export function condense(columns: Columns): Record<string, (number | null)[]> {
  const size = rowsPerPoint(columns);
  return Object.fromEntries(
    Object.entries(columns).map(([name, column]) => {
      const points: (number | null)[] = [];
      for (let from = 0; from < column.length; from += size) {
        const known = column.slice(from, from + size).filter((value) => value !== null);
        if (known.length === 0) points.push(null);
        else if (COUNTERS.includes(name)) points.push(rounded(known[known.length - 1]));
        else points.push(rounded(known.reduce((sum, value) => sum + value, 0) / known.length));
      }
      return [name, points];
    }),
  );
}

function rounded(value: number): number {
  return Number(value.toPrecision(DIGITS));
}
