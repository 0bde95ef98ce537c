// What the folders named to `retort report` hold: runs, and pipelines with the runs of their stages.
import fs from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { checkJson, parseJson, readOptionalTextFile } from '../checkpoint/files.js';
import { readJsonl } from '../checkpoint/jsonl.js';
import { isRun } from '../checkpoint/run-folder.js';
import { refuse } from '../errors.js';
import type { StageResult } from '../train/r1.js';
import { type RunConfig, runConfig } from '../train/recorder.js';
import { accuracies, interval } from './records.js';
import { type CompletionChoice, chooseCompletions, READING } from './report-completions.js';

const summarySchema = z.looseObject({
  steps: z.number().optional(),
  tokens: z.number().optional(),
  trainedTokens: z.number().optional(),
  seconds: z.number().optional(),
  before: accuracies,
  after: accuracies,
  evalLoss: z.number().nullish(),
  /** Of `retort sample`. */
  sampled: z.number().optional(),
  kept: z.number().optional(),
  /** Bytes. */
  memory: z.record(z.string(), z.looseObject({ peak: z.number() })).optional(),
});
export type ReportSummary = z.output<typeof summarySchema>;

const stagesSchema = z.looseObject({
  stages: z.array(
    z.looseObject({
      name: z.string(),
      run: z.string().nullable(),
      model: z.string().nullable(),
      accuracies: z.record(
        z.string(),
        z.looseObject({
          value: z.number(),
          ci95: interval,
          greedy: z.number(),
          greedyCi95: interval,
          meanLength: z.number(),
        }),
      ),
      tokens: z.number(),
      trainedTokens: z.number(),
      seconds: z.number(),
      judging: z.record(z.string(), z.number()).optional(),
    }),
  ),
});

/** A value for each row of metrics.jsonl, by metric; null where the row has none. */
export type Columns = Readonly<Record<string, readonly (number | null)[]>>;

/** One run's folder. */
export interface ReportRun {
  readonly dir: string;
  readonly config: RunConfig;
  /** Null where the run is not finished. */
  readonly summary: ReportSummary | null;
  /** `seconds` beside the run's own metrics: the sum of step_time. */
  readonly columns: Columns;
  /** The last step recorded. */
  readonly lastStep: number;
  readonly completions: CompletionChoice;
}

/** A run, or a pipeline: then its own folder has no curves, and its stages' runs do. */
export interface ReportFolder {
  readonly run: ReportRun;
  /** Null for a run. */
  readonly pipeline: {
    /** Those that are done. */
    readonly results: readonly StageResult[];
    /** Those that were begun, by folder. */
    readonly runs: readonly { readonly folder: string; readonly name: string; readonly run: ReportRun }[];
  } | null;
}

/**
 * @param completions how many of each run are taken at most
 * @throws RetortError bad-input for what is no run's folder, or whose files are not as Retort writes them
 */
export function readFolder(dir: string, completions: number): ReportFolder {
  const run = readRun(dir, completions);
  if (run.config.command !== 'r1') return { run, pipeline: null };
  const path = join(dir, 'stages.json');
  const text = readOptionalTextFile(path, 'bad-input', 'make it readable');
  const results =
    text === undefined ? [] : (parseJson(text, path, stagesSchema, 'bad-input').stages as StageResult[]);
  const folders = fs
    .readdirSync(dir)
    .filter((name) => isRun(join(dir, name)))
    .sort();
  const runs = folders.map((folder) => ({
    folder,
    name: results.find((stage) => stage.run === folder)?.name ?? folder,
    run: readRun(join(dir, folder), completions),
  }));
  return { run, pipeline: { results, runs } };
}

function readRun(dir: string, completions: number): ReportRun {
  const config = runConfig(dir);
  const path = join(dir, 'summary.json');
  const text = readOptionalTextFile(path, 'bad-input', 'make it readable');
  // A pipeline's summary is of another form: its stages, which stages.json has too.
  const summary =
    text === undefined
      ? null
      : config.command === 'r1'
        ? {}
        : parseJson(text, path, summarySchema, 'bad-input');
  const columns = readColumns(join(dir, 'metrics.jsonl'));
  return {
    ...{ dir, config, summary, columns },
    lastStep: columns.step?.at(-1) ?? 0,
    completions: chooseCompletions(join(dir, 'completions.jsonl'), completions),
  };
}

/** The column of the sum of step_time. */
export const SECONDS = 'seconds';

const rowSchema = z.looseObject({ step: z.number() });

function readColumns(path: string): Columns {
  const columns = new Map<string, (number | null)[]>();
  if (!fs.existsSync(path)) return {};
  let rows = 0;
  let seconds = 0;
  const fill = (column: (number | null)[]) => {
    while (column.length < rows) column.push(null);
  };
  const put = (name: string, value: unknown) => {
    if (typeof value !== 'number') return;
    const column = columns.get(name) ?? [];
    columns.set(name, column);
    fill(column);
    column.push(value);
  };
  for (const { number, value } of readJsonl(path, READING)) {
    const row = checkJson(value, `${path}:${number}`, rowSchema, 'bad-input');
    for (const [name, metric] of Object.entries(row)) if (name !== SECONDS) put(name, metric);
    if (typeof row.step_time === 'number') {
      seconds += row.step_time;
      put(SECONDS, seconds);
    }
    rows++;
  }
  columns.forEach(fill);
  return Object.fromEntries(columns);
}

/** The folders named, each once. @throws RetortError bad-input where none is named, or one is not there */
export function readFolders(dirs: readonly string[], completions: number): ReportFolder[] {
  if (dirs.length === 0) throw refuse('bad-input', 'runs', dirs, 'name the folder of a run or of a pipeline');
  const seen = new Set<string>();
  const folders: ReportFolder[] = [];
  for (const dir of dirs) {
    const folder = readFolder(dir, completions);
    const real = fs.realpathSync(dir);
    if (!seen.has(real)) folders.push(folder);
    seen.add(real);
  }
  return folders;
}
