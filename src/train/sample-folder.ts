// The folder of a rejection sampling run: config.json, data.jsonl (what was kept), progress.jsonl (how far it is).
// Killed at any moment it goes on from the last line of progress.jsonl, with data.jsonl cut back to what that knows.
import fs from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomically } from '../checkpoint/atomic.js';
import { openJsonlWriter, readJsonl } from '../checkpoint/jsonl.js';
import { takeLock } from '../checkpoint/lock.js';
import { createRun, resumeRun } from '../checkpoint/run-folder.js';
import type { ModelIdentity } from '../checkpoint/weights-hash.js';
import type { Device } from '../compute/device/device.js';
import { refuse } from '../errors.js';
import type { DropRule } from './keep.js';
import { newRunConfig, type RunConfig, runConfig } from './recorder.js';
import type { SampleOptions } from './sample-options.js';

/** What was counted so far. */
export interface SampleCounts {
  /** Problems done, in their order. */
  readonly problems: number;
  readonly sampled: number;
  readonly kept: number;
  readonly dropped: Readonly<Record<DropRule, number>>;
  readonly right: number;
  /** Problems of which at least one completion was right, and kept. */
  readonly problemsRight: number;
  readonly problemsKept: number;
  readonly tokens: number;
  readonly keptTokens: number;
  readonly seconds: number;
  readonly rewardFailures: Readonly<Record<string, number>>;
}

export interface SampleFolder {
  readonly dir: string;
  readonly data: string;
  /** Where an earlier process stopped; null at the beginning. */
  readonly before: SampleCounts | null;
  /** Makes lines and counts durable, together. */
  write(lines: readonly unknown[], counts: SampleCounts): void;
  finish(summary: unknown): void;
  close(): void;
}

type SampleConfig = RunConfig & { readonly source: ModelIdentity };

const DATA = 'data.jsonl';
const PROGRESS = 'progress.jsonl';

/** Begins a folder, or goes on with one. @throws RetortError bad-input, bad-checkpoint, storage */
export function openSampleFolder(
  o: SampleOptions,
  source: ModelIdentity,
  device: Device,
  resume: string | null,
  warn: (message: string) => void,
): SampleFolder {
  const dir = resume ?? o.out;
  if (resume === null) {
    const config: SampleConfig = { ...newRunConfig('sample', o, device), source };
    createRun(dir, config);
  } else {
    const { source: first, target } = runConfig(resume) as SampleConfig;
    if (first.sha256 !== source.sha256) {
      const remedy = `the run ${resume} began with other weights (${first.sha256}): bring them back, or begin a new run`;
      throw refuse('bad-input', `weights of ${source.model}`, source.sha256, remedy);
    }
    if (JSON.stringify(target) !== JSON.stringify(device.target))
      warn(
        `the run was begun on ${JSON.stringify(target)} and goes on on ${JSON.stringify(device.target)}: its completions may differ from those of a run never interrupted`,
      );
  }
  const unlock = takeLock(join(dir, 'lock.json'), `the run ${dir}`);
  try {
    if (resume !== null) resumeRun(resume);
    const last = lastProgress(join(dir, PROGRESS));
    const data = openJsonlWriter(join(dir, DATA), { truncateTo: last?.bytes ?? 0 });
    const progress = openJsonlWriter(join(dir, PROGRESS));
    return {
      dir,
      data: data.path,
      before: last?.counts ?? null,
      write(lines, counts) {
        for (const line of lines) data.append(line);
        data.sync();
        progress.append({ bytes: data.offset(), counts });
        progress.sync();
      },
      finish: (summary) =>
        writeFileAtomically(join(dir, 'summary.json'), `${JSON.stringify(summary, null, 2)}\n`),
      close() {
        data.close();
        progress.close();
        unlock();
      },
    };
  } catch (error) {
    unlock();
    throw error;
  }
}

interface ProgressLine {
  /** Length of data.jsonl. */
  readonly bytes: number;
  readonly counts: SampleCounts;
}

function lastProgress(path: string): ProgressLine | null {
  if (!fs.existsSync(path)) return null;
  let last: ProgressLine | null = null;
  const options = {
    code: 'bad-checkpoint',
    remedy: 'sample anew into another folder',
    tornLastLine: true,
  } as const;
  for (const { value } of readJsonl(path, options)) last = value as ProgressLine;
  return last;
}
