// What every training loop does with its run folder: begin or go on, record, checkpoint, stop, finish.
import fs from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomically } from '../checkpoint/atomic.js';
import type { JsonlWriter } from '../checkpoint/jsonl.js';
import { openJsonlWriter, readJsonl } from '../checkpoint/jsonl.js';
import { takeLock } from '../checkpoint/lock.js';
import {
  type Checkpoint,
  createRun,
  listCheckpoints,
  newestCheckpoint,
  openJournal,
  openRun,
  type Run,
  resumeRun,
  saveCheckpoint,
} from '../checkpoint/run-folder.js';
import type { NamedTensor } from '../checkpoint/safetensors.js';
import type { Device } from '../compute/device/device.js';
import { RetortError, refuse } from '../errors.js';
import { freeLlama, readWeights, type Trainable, weightsOf } from '../model/llama.js';
import { VERSION } from '../version.js';
import { createOptimizer, type Optimizer, type OptimizerOptions } from './optimizer.js';
import type { RunFields } from './options.js';
import { loadPolicy, type Policy, policyFiles } from './policy.js';

/**
 * What is trained beside the policy, a critic for instance, by an optimizer of its own: both are in every checkpoint.
 */
export interface Part {
  readonly trained: Trainable;
  /** What it is, as plain JSON: kept with it. */
  readonly about: unknown;
  free(): void;
}

/** What a loop gives to begin a run or to go on with one. */
export interface RunOptions<State> {
  readonly device: Device;
  /** Verb that made the run: `retort resume` calls its loop. */
  readonly command: string;
  /** Everything the loop was given, defaults filled in, as plain JSON. Without `out` nothing is recorded. */
  readonly options: Readonly<Record<string, unknown>> & RunFields & OptimizerOptions;
  /** Folder of a run to go on with, instead of `out`. */
  readonly resume?: string;
  /** Makes the policy of step 0. The same each time it is called. */
  readonly makePolicy: () => Policy;
  /**
   * Makes what is trained beside the policy, by name, as it is at step 0.
   * @param about what a checkpoint says of a part, which is then read from there; undefined at step 0
   */
  readonly makeParts?: (policy: Policy, about: (name: string) => unknown) => Readonly<Record<string, Part>>;
  /** The loop's own state at step 0, plain JSON. */
  readonly initialState: State;
  /** Further tensors of a checkpoint by group, the reference model for instance. */
  readonly groups?: () => Readonly<Record<string, Iterable<NamedTensor>>>;
  readonly signal?: AbortSignal;
  readonly warn: (message: string) => void;
}

/** A run under way. */
export interface ActiveRun<State> {
  readonly dir: string | null;
  readonly policy: Policy;
  readonly optimizer: Optimizer;
  /** Of the parts, by name. */
  readonly optimizers: Readonly<Record<string, Optimizer>>;
  /** Steps done when the run was opened. */
  readonly startStep: number;
  readonly state: State;
  /** Reads a tensor of a checkpoint's further group; null where the run starts anew or the group is not there. */
  readonly restored: (group: string) => { read(name: string, into: Float32Array): void } | null;
  recordMetrics(metrics: Readonly<Record<string, unknown>>): void;
  recordCompletions(rows: Iterable<unknown>): void;
  /**
   * What `make` gave under a key of a step, also when the step is done again after a kill: for what is not the same
   * twice, the rewards of a user's function for instance. It is durable when this returns.
   */
  journalled<T>(key: string, step: number, make: () => Promise<T>): Promise<T>;
  /**
   * Call after each step with the state to go on from: writes a checkpoint where one is due.
   * @throws RetortError interrupted, after a checkpoint, where the signal was aborted
   */
  stepDone(step: number, state: State): void;
  /**
   * What to do with an error of work after a step: as `stepDone` where the signal ended it, a checkpoint where an API
   * may do again later what it could not do now; then throws on.
   */
  stoppedAt(step: number, state: State): (error: unknown) => never;
  /** Writes the last checkpoint and summary.json. */
  finish(step: number, state: State, summary: Readonly<Record<string, unknown>>): void;
  close(): void;
}

interface SavedState {
  readonly optimizerSteps: number;
  readonly parts?: Readonly<Record<string, { readonly optimizerSteps: number; readonly about: unknown }>>;
  readonly loop: unknown;
}

/** What `config.json` holds. */
export interface RunConfig {
  readonly command: string;
  readonly options: Readonly<Record<string, unknown>>;
  readonly seed: number;
  /** Working directory in which the run began: relative paths of the options start there. */
  readonly cwd: string;
  readonly version: string;
  readonly target: unknown;
  readonly threads: number;
}

/** The configuration that a run was made with. @throws RetortError bad-input where the folder is no run */
export function runConfig(dir: string): RunConfig {
  const config = openRun(dir).config as Partial<RunConfig> | null;
  if (typeof config?.command !== 'string' || typeof config.options !== 'object') {
    throw refuse(
      'bad-input',
      'run folder',
      dir,
      'its config.json names no command: name the folder of a run',
    );
  }
  return config as RunConfig;
}

/** The configuration of a run that begins. */
export function newRunConfig(
  command: string,
  options: Readonly<Record<string, unknown>> & { readonly seed: number },
  { target, threads }: Device,
): RunConfig {
  return { command, options, seed: options.seed, cwd: process.cwd(), version: VERSION, target, threads };
}

/** Begins a run or goes on with one. @throws RetortError bad-input, bad-checkpoint, storage */
export function openActiveRun<State>(o: RunOptions<State>): ActiveRun<State> {
  const { device, command, options, warn } = o;
  let run: Run | null = null;
  if (o.resume !== undefined) {
    run = openRun(o.resume);
    const { target } = runConfig(o.resume);
    if (JSON.stringify(target) !== JSON.stringify(device.target)) {
      warn(
        `the run was begun on ${JSON.stringify(target)} and goes on on ${JSON.stringify(device.target)}: ` +
          'its numbers may differ in the last bits from those of a run never interrupted',
      );
    }
  } else if (options.out !== undefined) {
    run = createRun(options.out, newRunConfig(command, options, device));
  }
  const unlock = run ? takeLock(join(run.dir, 'lock.json'), `the run ${run.dir}`) : () => {};
  try {
    // After the lock: what another process is about to put in place is nothing that was left.
    if (o.resume !== undefined) resumeRun(o.resume);
    return openLocked(o, run, unlock);
  } catch (error) {
    unlock();
    // A run that could not begin is none: its folder can be named again once the mistake is mended.
    // It was empty before, else createRun would have refused it.
    if (run && o.resume === undefined) {
      for (const name of fs.readdirSync(run.dir)) fs.rmSync(join(run.dir, name), { recursive: true });
    }
    throw error;
  }

  function openLocked(_: RunOptions<State>, run: Run | null, unlock: () => void): ActiveRun<State> {
    // A run killed before its first checkpoint begins anew: nothing is lost.
    const checkpoint = run && listCheckpoints(run).length > 0 ? newestCheckpoint(run, warn) : null;
    const policy = checkpoint ? loadPolicy(checkpoint.path, device, { trainable: true }) : o.makePolicy();
    const optimizer = createOptimizer(policy.llama, options);
    const restored = checkpoint ? (checkpoint.state as SavedState) : null;
    const made = o.makeParts?.(policy, (name) => restored?.parts?.[name]?.about) ?? {};
    const parts = Object.entries(made).map(([name, part]) => ({
      name,
      part,
      optimizer: createOptimizer(part.trained, options),
    }));
    let state = o.initialState;
    if (checkpoint && restored) {
      optimizer.restore(restored.optimizerSteps, checkpoint.groups.optimizer);
      for (const { name, part, optimizer } of parts) {
        readWeights(part.trained, checkpoint.groups[name]);
        const steps = restored.parts?.[name]?.optimizerSteps ?? 0;
        optimizer.restore(steps, checkpoint.groups[optimizerOf(name)]);
      }
      state = restored.loop as State;
    }
    const files = openJournals(run, checkpoint);
    const replay = run
      ? readReplay(join(run.dir, REPLAY), checkpoint?.step ?? 0)
      : new Map<string, unknown>();
    let lastSaved = checkpoint?.step ?? -1;

    const save = (step: number, loop: State) => {
      if (!run || step === lastSaved) return;
      const saved: SavedState = {
        optimizerSteps: optimizer.steps,
        ...(parts.length > 0 && {
          parts: Object.fromEntries(
            parts.map(({ name, part, optimizer }) => [
              name,
              { optimizerSteps: optimizer.steps, about: part.about },
            ]),
          ),
        }),
        loop,
      };
      const groups: Record<string, Iterable<NamedTensor>> = {
        optimizer: optimizer.tensors(),
        ...o.groups?.(),
      };
      for (const { name, part, optimizer } of parts) {
        groups[name] = weightsOf(part.trained);
        groups[optimizerOf(name)] = optimizer.tensors();
      }
      const content = { model: policyFiles(policy), groups, state: saved };
      saveCheckpoint(run, step, content, {
        journals: files ? [files.metrics, files.completions] : [],
        keepLast: options.keepLast,
      });
      lastSaved = step;
    };
    if (!checkpoint) save(0, state);

    const active: ActiveRun<State> = {
      dir: run?.dir ?? null,
      policy,
      optimizer,
      optimizers: Object.fromEntries(parts.map(({ name, optimizer }) => [name, optimizer])),
      startStep: checkpoint?.step ?? 0,
      state,
      restored: (group) => checkpoint?.groups[group] ?? null,
      recordMetrics: (metrics) => files?.metrics.append(metrics),
      recordCompletions(rows) {
        for (const row of rows) files?.completions.append(row);
      },
      async journalled<T>(key: string, step: number, make: () => Promise<T>) {
        if (replay.has(key)) return replay.get(key) as T;
        const value = await make();
        files?.replay.append({ key, step, value });
        files?.replay.sync();
        return value;
      },
      stepDone(step, loop) {
        const stop = o.signal?.aborted ?? false;
        if (stop || (options.saveEvery > 0 && step % options.saveEvery === 0)) save(step, loop);
        if (!stop) return;
        const how = run
          ? `; go on with: retort resume ${run.dir}`
          : '; nothing was recorded, since no output folder was named';
        throw new RetortError('interrupted', `stopped after step ${step}${how}`);
      },
      stoppedAt: (step, loop) => (error) => {
        if (o.signal?.aborted) active.stepDone(step, loop);
        if (error instanceof RetortError && PASSING.includes(error.code)) save(step, loop);
        throw error;
      },
      finish(step, loop, summary) {
        save(step, loop);
        if (run) writeFileAtomically(join(run.dir, 'summary.json'), `${JSON.stringify(summary, null, 2)}\n`);
      },
      close() {
        checkpoint?.close();
        files?.metrics.close();
        files?.completions.close();
        files?.replay.close();
        for (const { part, optimizer } of parts) {
          optimizer.free();
          part.free();
        }
        optimizer.free();
        freeLlama(policy.llama);
        unlock();
      },
    };
    return active;
  }
}

/** Errors of an API's client: neither the weights nor the state are to blame. */
const PASSING: readonly string[] = ['budget', 'network', 'bad-data'];

const REPLAY = 'journal.jsonl';

/** The group of a checkpoint that holds a part's optimizer. */
function optimizerOf(part: string): string {
  return `${part}-optimizer`;
}

function openJournals(
  run: Run | null,
  checkpoint: Checkpoint | null,
): { metrics: JsonlWriter; completions: JsonlWriter; replay: JsonlWriter } | null {
  if (!run) return null;
  // Without a checkpoint the run begins anew, and so do its journals.
  const open = (name: string) =>
    checkpoint ? openJournal(run, name, checkpoint) : openJsonlWriter(join(run.dir, name), { truncateTo: 0 });
  return {
    metrics: open('metrics.jsonl'),
    completions: open('completions.jsonl'),
    // Never cut back: what it holds of steps after the checkpoint is what they must give again.
    replay: openJsonlWriter(join(run.dir, REPLAY)),
  };
}

function readReplay(path: string, after: number): Map<string, unknown> {
  const values = new Map<string, unknown>();
  if (!fs.existsSync(path)) return values;
  const options = {
    code: 'bad-checkpoint',
    remedy: 'remove the file to score those steps anew',
    tornLastLine: true,
  } as const;
  for (const { value } of readJsonl(path, options)) {
    const { key, step, value: what } = value as { key: string; step: number; value: unknown };
    if (step > after) values.set(key, what);
  }
  return values;
}
