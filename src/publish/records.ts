// What a run's folder holds of how its model came to be, checked to be enough for a model card.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { basename, isAbsolute, join, resolve } from 'node:path';
import { z } from 'zod';
import { parseJson, readOptionalTextFile } from '../checkpoint/files.js';
import { listCheckpoints, openRun } from '../checkpoint/run-folder.js';
import { RetortError, refuse } from '../errors.js';
import { isModulePath } from '../reward/module.js';
import { taskHelp } from '../task/registry.js';
import { type RunConfig, runConfig } from '../train/recorder.js';
import { type Base, describeBase } from './licence.js';

export const interval = z.tuple([z.number(), z.number()]);
export const accuracies = z
  .looseObject({ greedy: z.number(), sampled: z.number(), greedyCi95: interval, sampledCi95: interval })
  .nullish();

const summarySchema = z.looseObject({
  steps: z.number(),
  tokens: z.number().optional(),
  trainedTokens: z.number().optional(),
  seconds: z.number().optional(),
  before: accuracies,
  after: accuracies,
  evalLoss: z.number().nullish(),
  rewardFailures: z.record(z.string(), z.number()).optional(),
});

export type Accuracies = NonNullable<z.output<typeof accuracies>>;
export type RunSummary = z.output<typeof summarySchema>;

/** A file that a run learned from, as it is now. */
export interface DataFile {
  readonly name: string;
  readonly sha256: string;
  readonly bytes: number;
}

export interface Records {
  readonly config: RunConfig;
  readonly summary: RunSummary;
  /** The last checkpoint: the folder of the model. */
  readonly model: string;
  /** What the run began with; null where it made a model from nothing. */
  readonly base: Base | null;
  /** The task whose problems it learned from. */
  readonly task: { readonly name: string; readonly description: string | null } | null;
  readonly files: readonly DataFile[];
  /** Whether the data is made by Retort itself, from seeds. */
  readonly ownData: boolean;
}

/**
 * Reads a finished run.
 * @throws RetortError bad-input for a folder that is no run, or one that is not finished
 */
export function readRecords(dir: string): Records {
  const config = runConfig(dir);
  const path = join(dir, 'summary.json');
  const text = readOptionalTextFile(path, 'bad-input', 'make it readable');
  if (text === undefined)
    throw refuse(
      'bad-input',
      'run to release',
      dir,
      'it is not finished: go on with it first (retort resume)',
    );
  const summary = parseJson(text, path, summarySchema, 'bad-input');
  const last = listCheckpoints(openRun(dir)).at(-1);
  if (last?.step !== summary.steps)
    throw refuse(
      'bad-input',
      'run to release',
      dir,
      `its last checkpoint is of step ${last?.step}, not of step ${summary.steps}`,
    );
  const { model, task, data } = config.options;
  const at = (word: string) => (isAbsolute(word) ? word : resolve(config.cwd, word));
  const module = typeof task === 'string' && isModulePath(task);
  const taskFolder = (config.options.taskOptions as { path?: unknown } | undefined)?.path;
  return {
    config,
    summary,
    model: last.path,
    base: typeof model === 'string' ? baseOf(at(model)) : null,
    task:
      typeof task === 'string'
        ? { name: module ? basename(task) : task, description: module ? null : taskHelp(task).description }
        : null,
    files: [
      ...(typeof data === 'string' ? [dataFile(at(data))] : []),
      ...(typeof taskFolder === 'string' ? filesIn(at(taskFolder)) : []),
    ],
    ownData: typeof task === 'string' && !module && taskFolder === undefined,
  };
}

function baseOf(path: string): Base {
  if (fs.existsSync(path)) return describeBase(path);
  throw new RetortError(
    'bad-input',
    `the model that the run began with is not at ${path} any more: bring it back, its licence is stated there`,
  );
}

function dataFile(path: string): DataFile {
  if (!fs.existsSync(path))
    throw new RetortError(
      'bad-input',
      `the data that the run learned from is not at ${path} any more: bring it back`,
    );
  const bytes = fs.readFileSync(path);
  return {
    name: basename(path),
    sha256: createHash('sha256').update(bytes).digest('hex'),
    bytes: bytes.length,
  };
}

function filesIn(folder: string): DataFile[] {
  const names = fs.existsSync(folder) ? fs.readdirSync(folder).filter((name) => name.endsWith('.jsonl')) : [];
  if (names.length > 0) return names.sort().map((name) => dataFile(join(folder, name)));
  throw new RetortError(
    'bad-input',
    `the data that the run learned from is not in ${folder} any more: bring it back`,
  );
}
