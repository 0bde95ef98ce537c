// Worker threads that score with a user's module; one that exceeds the time limit is killed and replaced.
import { Worker } from 'node:worker_threads';
import { RetortError } from '../errors.js';
import type { ModuleReference } from './reward.js';
import type { Loaded, WorkerJob, WorkerMessage, WorkerStart } from './worker-entry.js';

/** Why a score is missing. */
export type FailureKind = 'threw' | 'timed-out' | 'crashed' | 'malformed' | 'not-finite';

/** What a judge rejects with: a failure of the user's code, not of ours. */
export class JudgeFailure extends Error {
  readonly kind: FailureKind;

  constructor(kind: FailureKind, message: string) {
    super(message);
    this.kind = kind;
  }
}

export interface WorkerPoolOptions {
  readonly kind: 'task' | 'reward';
  /** Threads at most; they start when first needed. */
  readonly size: number;
  /** For one completion. Loading the module may take ten times as long, at least 10 s. */
  readonly timeLimitSeconds: number;
}

export interface WorkerPool {
  readonly loaded: Loaded;
  /** Scores one completion; rejects with JudgeFailure. Calls beyond the size wait their turn, first come first. */
  score(job: Omit<WorkerJob, 'id'>): Promise<unknown>;
  /** Ends the threads. */
  close(): Promise<void>;
}

/**
 * Opens a pool and loads the module in a first worker, so that a module that does not load, or loops while it does,
 * is found out now.
 *
 * @throws RetortError (bad-input) where the module does not load.
 */
export async function openWorkerPool(reference: ModuleReference, o: WorkerPoolOptions): Promise<WorkerPool> {
  const start = () => startWorker({ reference, kind: o.kind }, Math.max(10, 10 * o.timeLimitSeconds));
  const first = await start().catch((e: Error) => {
    throw new RetortError('bad-input', `${o.kind} module ${reference.path}: ${e.message}`);
  });
  const idle: (Worker | null)[] = [first.worker, ...Array<null>(o.size - 1).fill(null)];
  const running = new Set<Worker>();
  const waiting: ((slot: Worker | null) => void)[] = [];
  let closed = false;
  let lastId = 0;

  const release = (slot: Worker | null) => {
    const next = waiting.shift();
    if (next) next(slot);
    else idle.push(slot);
  };
  // The slot used last comes first: as few threads as the load needs.
  const acquire = () => {
    const at = idle.findIndex((slot) => slot !== null);
    if (idle.length > 0) return Promise.resolve(idle.splice(Math.max(0, at), 1)[0]);
    return new Promise<Worker | null>((resolve) => waiting.push(resolve));
  };

  return {
    loaded: first.loaded,
    async score(job) {
      let worker = await acquire();
      if (worker && dead.has(worker)) worker = null;
      try {
        for (;;) {
          if (closed) throw new JudgeFailure('crashed', 'the scorer was closed');
          const used = worker !== null;
          worker ??= (await start()).worker;
          running.add(worker);
          try {
            return await ask(worker, { ...job, id: ++lastId }, o.timeLimitSeconds);
          } catch (e) {
            // An exception that was awaited leaves its worker usable; anything else does not.
            if (e instanceof JudgeFailure && e.kind === 'threw') throw e;
            running.delete(worker);
            await worker.terminate();
            worker = null;
            // A worker may crash of something that an earlier job left behind: a fresh one tells.
            if (!(used && e instanceof JudgeFailure && e.kind === 'crashed')) throw e;
          }
        }
      } finally {
        if (worker) running.delete(worker);
        release(worker);
      }
    },
    async close() {
      closed = true;
      const workers = [...idle.splice(0).filter((slot) => slot !== null), ...running];
      await Promise.all(workers.map((worker) => worker.terminate()));
    },
  };
}

// Workers that ended by themselves, for instance by an exception nobody awaited.
const dead = new WeakSet<Worker>();

async function startWorker(data: WorkerStart, limit: number): Promise<{ worker: Worker; loaded: Loaded }> {
  // No flags of this process: --input-type of `node -e` would be refused there.
  const worker = new Worker(new URL('./worker-entry.js', import.meta.url), {
    workerData: data,
    execArgv: [],
  });
  worker.on('exit', () => dead.add(worker));
  // An exception while idle: without a listener it would end this process.
  worker.on('error', () => dead.add(worker));
  try {
    const message = await answerOf(worker, 0, limit, 'loading took');
    if (message.kind === 'ready') {
      // The timer of a pending call keeps the process alive; an idle worker should not.
      worker.unref();
      return { worker, loaded: message.loaded };
    }
    throw new JudgeFailure('crashed', message.kind === 'error' ? message.message : 'unexpected message');
  } catch (e) {
    await worker.terminate();
    throw e;
  }
}

async function ask(worker: Worker, job: WorkerJob, limit: number): Promise<unknown> {
  const answer = answerOf(worker, job.id, limit, 'took');
  try {
    worker.postMessage(job);
  } catch (e) {
    answer.catch(() => {});
    throw new JudgeFailure('crashed', `the problem cannot be sent to a worker: ${(e as Error).message}`);
  }
  const message = await answer;
  if (message.kind === 'value') return message.value;
  throw new JudgeFailure('threw', message.kind === 'error' ? message.message : 'unexpected message');
}

// The message of a worker with this id, or why there will be none.
function answerOf(worker: Worker, id: number, limit: number, what: string): Promise<WorkerMessage> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void) => {
      clearTimeout(timer);
      worker.off('message', onMessage).off('error', onError).off('exit', onExit);
      act();
    };
    const fail = (kind: FailureKind, message: string) =>
      settle(() => reject(new JudgeFailure(kind, message)));
    const onMessage = (message: WorkerMessage) => {
      if (message?.id === id) settle(() => resolve(message));
    };
    const onError = (e: unknown) =>
      fail('crashed', e instanceof Error ? `${e.name}: ${e.message}` : String(e));
    const onExit = (code: number) => fail('crashed', `the worker ended with code ${code}`);
    const timer = setTimeout(() => fail('timed-out', `${what} more than ${limit} s`), limit * 1000);
    worker.on('message', onMessage).on('error', onError).on('exit', onExit);
  });
}
