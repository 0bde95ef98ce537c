// A run's folder: config.json, JSON-lines journals, checkpoints/step-N. Killed at any moment it can be resumed from the
// newest checkpoint, with the journals cut back to the offsets that the checkpoint recorded.
import fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { RetortError, refuse } from '../errors.js';
import {
  recoverEntries,
  removeDirectory,
  storageError,
  syncFolder,
  writeDirectoryAtomically,
  writeFileAtomically,
} from './atomic.js';
import { fileProblem, makeFolder, parseJson, readTextFile, systemCode } from './files.js';
import { fillModelFolder, type ModelFiles, readModelFolder } from './folder.js';
import { type JsonlWriter, openJsonlWriter } from './jsonl.js';
import { type NamedTensor, openSafetensors, type SafetensorsFile, writeSafetensors } from './safetensors.js';
import type { StoredModel } from './stored-model.js';

/** A run's folder and the configuration it was made with. */
export interface Run {
  readonly dir: string;
  /** What `createRun` was given: plain JSON. */
  readonly config: unknown;
}

const RUN_FORMAT = 'retort-run/1';
const CHECKPOINT_FORMAT = 'retort-checkpoint/1';

/**
 * Makes a run's folder. When it returns, `config.json` is durable and the run can be resumed once there is a
 * checkpoint.
 * @param config plain JSON: everything that `resume` needs
 * @throws RetortError `bad-input` where the folder holds another run or other files; `storage` where the disk refuses.
 */
export function createRun(dir: string, config: unknown): Run {
  let entries: string[];
  try {
    makeFolder(dir);
    // Killed while config.json was written: nothing of a run is there yet.
    entries = fs.readdirSync(dir).filter((name) => !name.endsWith('.tmp'));
  } catch (error) {
    if (['EEXIST', 'ENOTDIR'].includes(systemCode(error) ?? ''))
      throw refuse(
        'bad-input',
        'output folder',
        dir,
        'a file of that name is in the way: name a new or empty folder',
      );
    throw storageError(error, dir, 'nothing was written');
  }
  if (isRun(dir))
    throw refuse(
      'bad-input',
      'output folder',
      dir,
      'it holds another run: resume that one, or name another folder',
    );
  if (entries.length > 0)
    throw refuse(
      'bad-input',
      'output folder',
      dir,
      `it holds other files (${entries[0]}): name a new or empty folder`,
    );
  const text = jsonText({ format: RUN_FORMAT, config }, 'config.json');
  writeFileAtomically(join(dir, 'config.json'), text);
  syncFolder(dirname(dir));
  return { dir, config: JSON.parse(text).config };
}

const runSchema = z.looseObject({ format: z.string(), config: z.unknown() });

/** Whether a folder is that of a run. */
export function isRun(dir: string): boolean {
  try {
    return runSchema.safeParse(JSON.parse(fs.readFileSync(join(dir, 'config.json'), 'utf8'))).success;
  } catch {
    return false;
  }
}

/**
 * Opens a run to look at it; changes nothing.
 * @throws RetortError `bad-input` where the folder is no run.
 */
export function openRun(dir: string): Run {
  const path = join(dir, 'config.json');
  const remedy = 'name the folder of a run, as it was printed when the run began';
  const json = parseJson(readTextFile(path, 'bad-input', remedy), path, z.looseObject({}), 'bad-input');
  const run = runSchema.safeParse(json);
  if (!run.success)
    throw refuse('bad-input', 'run folder', dir, `its config.json is not that of a run: ${remedy}`);
  if (run.data.format !== RUN_FORMAT)
    throw refuse(
      'bad-input',
      `format of ${path}`,
      run.data.format,
      `this version of Retort reads ${RUN_FORMAT}`,
    );
  return { dir, config: run.data.config };
}

/** Opens a run to go on with it: clears what an interrupted write left. For whoever has the run's lock. */
export function resumeRun(dir: string): Run {
  const run = openRun(dir);
  try {
    recoverEntries(run.dir);
    const checkpoints = join(run.dir, 'checkpoints');
    if (fs.existsSync(checkpoints)) recoverEntries(checkpoints);
  } catch (error) {
    throw storageError(error, run.dir, 'the checkpoints are unchanged');
  }
  return run;
}

/**
 * Opens a journal of the run, `metrics.jsonl` for instance.
 * @param checkpoint where the run goes on from: the journal is cut back to its length then, to nothing where the
 * checkpoint does not know it
 */
export function openJournal(run: Run, name: string, checkpoint?: Checkpoint): JsonlWriter {
  const path = join(run.dir, name);
  return openJsonlWriter(path, checkpoint ? { truncateTo: checkpoint.journals[name] ?? 0 } : {});
}

/** Where a checkpoint is. */
export interface CheckpointPlace {
  readonly step: number;
  readonly path: string;
}

/** The run's checkpoints, oldest first; whether they can be read is not known yet. */
export function listCheckpoints(run: Run): CheckpointPlace[] {
  const folder = join(run.dir, 'checkpoints');
  let names: string[];
  try {
    names = fs.readdirSync(folder);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [];
    throw new RetortError(
      'bad-checkpoint',
      `cannot read ${folder}: ${fileProblem(error)}; name the folder of a run`,
    );
  }
  const places: CheckpointPlace[] = [];
  for (const name of names) {
    const match = /^step-(0|[1-9]\d*)$/.exec(name);
    if (match) places.push({ step: Number(match[1]), path: join(folder, name) });
  }
  return places.sort((a, b) => a.step - b.step);
}

/** What a checkpoint holds. */
export interface CheckpointContent {
  /** The weights; the checkpoint's folder is itself a model folder that `--model` takes. */
  readonly model: ModelFiles;
  /** Other tensors by group: `optimizer` becomes `optimizer.safetensors`. */
  readonly groups?: Readonly<Record<string, Iterable<NamedTensor>>>;
  /** Plain JSON: random state, data position, counters. Numbers must be finite. */
  readonly state: unknown;
}

/**
 * Writes `checkpoints/step-N` whole or not at all, and removes older ones beyond `keepLast`. The journals are synced
 * first, and their lengths recorded.
 * @param options.keepLast checkpoints to keep, this one included; at least 1
 * @throws RetortError `storage` where the disk refuses: the checkpoints before it stay as they are.
 */
export function saveCheckpoint(
  run: Run,
  step: number,
  content: CheckpointContent,
  options: { journals?: readonly JsonlWriter[]; keepLast?: number } = {},
): CheckpointPlace {
  const keepLast = options.keepLast ?? Number.POSITIVE_INFINITY;
  if (!Number.isInteger(step) || step < 0)
    throw refuse('bad-input', 'step', step, 'it is a whole number from 0');
  if (!(keepLast >= 1)) throw refuse('bad-input', 'keepLast', keepLast, 'keep at least 1 checkpoint');
  const journals: Record<string, number> = {};
  for (const journal of options.journals ?? []) {
    journal.sync();
    journals[basename(journal.path)] = journal.offset();
  }
  const groups = Object.entries(content.groups ?? {});
  const state = {
    format: CHECKPOINT_FORMAT,
    step,
    journals,
    groups: groups.map(([name]) => name),
    state: content.state,
  };
  const text = jsonText(state, 'state.json');
  const path = join(run.dir, 'checkpoints', `step-${step}`);
  writeDirectoryAtomically(path, (next) => {
    fillModelFolder(next, content.model);
    for (const [name, tensors] of groups) writeSafetensors(join(next, groupFile(name)), tensors);
    fs.writeFileSync(join(next, 'state.json'), text);
  });
  removeOld(run, step, keepLast);
  return { step, path };
}

function groupFile(name: string): string {
  if (!/^[a-z][\w-]*$/.test(name) || name === 'model')
    throw refuse('bad-input', 'group of tensors', name, 'use letters, digits, - and _, and not "model"');
  return `${name}.safetensors`;
}

// Checkpoints of later steps are left: they are there only when they could not be read and the run went back.
function removeOld(run: Run, step: number, keepLast: number): void {
  const older = listCheckpoints(run).filter((place) => place.step <= step);
  for (const { path } of older.slice(0, Math.max(0, older.length - keepLast))) {
    try {
      removeDirectory(path);
    } catch (error) {
      throw storageError(error, path, 'the new checkpoint is complete, this old one could not be removed');
    }
  }
}

/** An opened checkpoint: its files were found whole, tensors are not read yet. */
export interface Checkpoint extends CheckpointPlace {
  readonly model: StoredModel;
  readonly groups: Readonly<Record<string, SafetensorsFile>>;
  readonly state: unknown;
  /** Byte length of each journal when the checkpoint was written. */
  readonly journals: Readonly<Record<string, number>>;
  close(): void;
}

const stateSchema = z.looseObject({
  format: z.literal(CHECKPOINT_FORMAT),
  step: z.number().int().min(0),
  journals: z.record(z.string(), z.number().int().min(0)),
  groups: z.array(z.string()),
  state: z.unknown(),
});

/**
 * Opens a checkpoint and checks that all its files are whole.
 * @throws RetortError `bad-checkpoint` or `bad-model` naming the file and what is wrong with it.
 */
export function loadCheckpoint({ step, path }: CheckpointPlace): Checkpoint {
  const statePath = join(path, 'state.json');
  const remedy = 'resume from another checkpoint';
  const text = readTextFile(statePath, 'bad-checkpoint', remedy);
  const saved = parseJson(text, statePath, stateSchema, 'bad-checkpoint');
  if (saved.step !== step)
    throw refuse(
      'bad-checkpoint',
      `${statePath}: step`,
      saved.step,
      `the folder is of step ${step}; ${remedy}`,
    );
  const open: Array<{ close(): void }> = [];
  const keep = <T extends { close(): void }>(one: T): T => {
    open.push(one);
    return one;
  };
  const close = () => {
    for (const one of open) one.close();
  };
  try {
    const model = keep(readModelFolder(path));
    const groups: Record<string, SafetensorsFile> = {};
    for (const name of saved.groups) groups[name] = keep(openSafetensors(join(path, groupFile(name))));
    return { step, path, model, groups, state: saved.state, journals: saved.journals, close };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * Opens the newest checkpoint that can be read.
 * @param warn is told of each newer one that cannot, and why
 * @throws RetortError `bad-checkpoint` where there is none.
 */
export function newestCheckpoint(run: Run, warn: (message: string) => void): Checkpoint {
  const places = listCheckpoints(run).reverse();
  for (const place of places) {
    try {
      return loadCheckpoint(place);
    } catch (error) {
      if (!(error instanceof RetortError)) throw error;
      warn(`checkpoint of step ${place.step} cannot be read and is passed over: ${error.message}`);
    }
  }
  throw new RetortError(
    'bad-checkpoint',
    `${run.dir} has no readable checkpoint (${places.length} found); start the run anew in another folder`,
  );
}

// JSON would turn NaN into null and a typed array into an object, and a resumed run would differ without a word.
function jsonText(value: unknown, file: string): string {
  const check = (key: string, one: unknown) => {
    const plain = one === null || typeof one !== 'object' || Array.isArray(one) || isPlain(one);
    if (
      !plain ||
      typeof one === 'function' ||
      typeof one === 'bigint' ||
      (typeof one === 'number' && !Number.isFinite(one))
    )
      throw refuse(
        'bad-checkpoint',
        `value of ${key} for ${file}`,
        String(one),
        'use plain JSON values and finite numbers',
      );
    return one;
  };
  return `${JSON.stringify(value, check, 1)}\n`;
}

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
