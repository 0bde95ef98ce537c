// Runs in a worker thread: loads a user's task or reward and scores what the pool sends, one at a time.
import { writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { RetortError } from '../errors.js';
import { importExport } from './module.js';
import type { ModuleReference, RewardContext } from './reward.js';

/** What the pool tells the worker at its start. */
export interface WorkerStart {
  readonly reference: ModuleReference;
  readonly kind: 'task' | 'reward';
}

/** One completion to score. */
export interface WorkerJob {
  /** Comes back with the answer, so that nothing else which the module posts is taken for it. */
  readonly id: number;
  readonly problem: unknown;
  readonly completion: string;
  readonly context: RewardContext;
}

/** Name and weight of what was loaded. */
export interface Loaded {
  readonly name: string;
  readonly weight: number | undefined;
}

/** An answer. The id of the start is 0. */
export type WorkerMessage = { readonly id: number } & (
  | { readonly kind: 'ready'; readonly loaded: Loaded }
  | { readonly kind: 'value'; readonly value: unknown }
  | { readonly kind: 'error'; readonly message: string }
);

type Judge = (problem: unknown, completion: string, context: RewardContext) => unknown;

async function load({ reference, kind }: WorkerStart): Promise<{ judge: Judge; loaded: Loaded }> {
  let target = await importExport(reference, kind);
  if (kind === 'task' && typeof target === 'function') target = await target(reference.options);
  if (kind === 'reward' && typeof target === 'function') {
    const judge = target as Judge;
    return { judge, loaded: { name: reference.exportName ?? (target.name || 'reward'), weight: undefined } };
  }
  const { name, weight, score } = (target ?? {}) as { name?: unknown; weight?: unknown; score?: unknown };
  if (typeof name !== 'string' || typeof score !== 'function') {
    throw new Error(`the ${kind} needs a name and a function score`);
  }
  const judge: Judge = (problem, completion, context) => score.call(target, problem, completion, context);
  return { judge, loaded: { name, weight: weight as number | undefined } };
}

const say = (message: WorkerMessage) => parentPort?.postMessage(message);
const explain = (e: unknown) => {
  if (e instanceof RetortError) return e.message;
  return e instanceof Error ? `${e.name}: ${e.message}` : String(e);
};

// What a user's module prints goes to standard error: standard output may carry a result that a program reads. It goes
// straight to the file, since a worker's stream is emptied by the main thread, which may end before it does so.
const streamed = process.stderr.write.bind(process.stderr);
const direct: typeof process.stderr.write = (
  chunk: string | Uint8Array,
  encoding?: BufferEncoding | ((error?: Error | null) => void),
  done?: (error?: Error | null) => void,
): boolean => {
  const bytes =
    typeof chunk === 'string' ? Buffer.from(chunk, typeof encoding === 'string' ? encoding : 'utf8') : chunk;
  let written = 0;
  try {
    while (written < bytes.length) written += writeSync(2, bytes, written);
  } catch {
    // A pipe that is full, or closed: the stream waits for it, or tells.
    return streamed(bytes.subarray(written), typeof encoding === 'function' ? encoding : done);
  }
  const told = typeof encoding === 'function' ? encoding : done;
  if (told) process.nextTick(told);
  return true;
};
process.stdout.write = direct;
process.stderr.write = direct;

try {
  const { judge, loaded } = await load(workerData as WorkerStart);
  parentPort?.on('message', async (job: WorkerJob) => {
    try {
      say({ id: job.id, kind: 'value', value: await judge(job.problem, job.completion, job.context) });
    } catch (e) {
      // Also reached where the value cannot be sent, for instance because it holds a function.
      say({ id: job.id, kind: 'error', message: explain(e) });
    }
  });
  say({ id: 0, kind: 'ready', loaded });
} catch (e) {
  say({ id: 0, kind: 'error', message: explain(e) });
}
