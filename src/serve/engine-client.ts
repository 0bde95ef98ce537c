// The server's side of the engine thread: loads models, submits requests, and routes the news to who asked.
import { MessageChannel, Worker } from 'node:worker_threads';
import { type ErrorCode, RetortError } from '../errors.js';
import type {
  EngineInfo,
  EngineLoad,
  EngineThreadOptions,
  FromEngine,
  SampleEnd,
  SampleTokens,
  ToEngine,
  WorkOrder,
} from './engine-messages.js';

/** Who hears of a request. Exactly one of `onFailed` and the last sample's `onEnd` comes, unless it is cancelled. */
export interface WorkListener {
  onTokens(tokens: SampleTokens): void;
  onEnd(end: SampleEnd): void;
  /** @param why in words where the request is at fault; an error where the server is */
  onFailed(why: string | Error): void;
}

export interface EngineClient {
  /** Loads a model folder; gives its handle. @throws RetortError bad-model, out-of-memory */
  load(dir: string): Promise<{ handle: number; info: EngineInfo }>;
  /** Lets a model go once its requests have ended. */
  retire(handle: number): void;
  /** Starts a request; the function it gives cancels it. @throws Error where the thread has died */
  submit(order: Omit<WorkOrder, 'id'>, listener: WorkListener): () => void;
  /** Samples asked for and not ended. */
  readonly outstanding: number;
  /** As the engine last said. */
  readonly busyness: EngineLoad;
  /** Resolves when the thread has died by itself, with the reason. */
  readonly died: Promise<Error>;
  /** Ends the thread; what runs is lost, so wait for it first. */
  close(): Promise<void>;
}

type News = Extract<FromEngine, { type: 'news' }>;

/** News are handed on for so long at a stretch. */
const TURN_MS = 2;

interface Pending {
  readonly listener: WorkListener;
  open: number;
}

export function startEngine(options: EngineThreadOptions): EngineClient {
  const { port1: port, port2 } = new MessageChannel();
  const worker = new Worker(new URL('./engine-thread.js', import.meta.url), {
    workerData: { port: port2, options },
    transferList: [port2],
  });
  const pending = new Map<number, Pending>();
  const loading = new Map<number, { resolve(info: EngineInfo): void; reject(error: Error): void }>();
  /** News that nobody has been told of, in order. */
  let undelivered: (() => void)[] = [];
  let next = 0;
  let outstanding = 0;
  let load: EngineLoad = { running: 0, waiting: 0, generatedTokens: 0, bytes: 0 };
  let stopped = (): void => {};
  let dead: Error | null = null;
  const tell = (message: ToEngine) => port.postMessage(message);

  function done(id: number, samples: number): void {
    const entry = pending.get(id);
    if (!entry) return;
    entry.open -= samples;
    outstanding -= samples;
    if (entry.open === 0) pending.delete(id);
  }

  function fail(id: number, why: string | Error): void {
    const entry = pending.get(id);
    if (!entry) return;
    done(id, entry.open);
    entry.listener.onFailed(why);
  }

  function tellEnd(end: SampleEnd): void {
    const entry = pending.get(end.id);
    if (!entry) return;
    done(end.id, 1);
    entry.listener.onEnd(end);
  }

  function deliver({ tokens, ends, failed }: News): void {
    const resting = undelivered.length === 0;
    for (const some of tokens) undelivered.push(() => pending.get(some.id)?.listener.onTokens(some));
    for (const end of ends) undelivered.push(() => tellEnd(end));
    for (const { id, message: why, stack } of failed)
      undelivered.push(() => fail(id, stack === null ? why : Object.assign(new Error(why), { stack })));
    if (resting) deliverSome();
  }

  /** Writing to many clients takes long; others of the event loop, /health among them, have a turn in between. */
  function deliverSome(): void {
    const until = performance.now() + TURN_MS;
    let told = 0;
    try {
      while (told < undelivered.length && performance.now() < until) undelivered[told++]();
    } finally {
      undelivered = undelivered.slice(told);
      if (undelivered.length > 0) setImmediate(deliverSome);
    }
  }

  port.on('message', (message: FromEngine) => {
    switch (message.type) {
      case 'loaded':
        loading.get(message.handle)?.resolve(message.info);
        loading.delete(message.handle);
        return;
      case 'load-failed':
        loading.get(message.handle)?.reject(new RetortError(message.code as ErrorCode, message.message));
        loading.delete(message.handle);
        return;
      case 'stopped':
        stopped();
        return;
      case 'news':
        load = message.load;
        deliver(message);
    }
  });

  const died = new Promise<Error>((resolve) => {
    const end = (error: Error) => {
      dead ??= error;
      for (const tell of undelivered.splice(0)) tell();
      for (const id of [...pending.keys()]) fail(id, dead);
      for (const { reject } of loading.values()) reject(dead);
      loading.clear();
      stopped();
      resolve(dead);
    };
    worker.on('error', end);
    worker.on('exit', (code) => end(new Error(`the engine's thread ended with code ${code}`)));
  });

  return {
    async load(dir) {
      if (dead) throw dead;
      const handle = next++;
      const info = await new Promise<EngineInfo>((resolve, reject) => {
        loading.set(handle, { resolve, reject });
        tell({ type: 'load', handle, dir });
      });
      return { handle, info };
    },
    retire: (handle) => tell({ type: 'retire', handle }),
    submit(order, listener) {
      if (dead) throw dead;
      const id = next++;
      tell({ type: 'submit', id, ...order });
      pending.set(id, { listener, open: order.n });
      outstanding += order.n;
      return () => {
        const entry = pending.get(id);
        if (!entry) return;
        done(id, entry.open);
        tell({ type: 'cancel', id });
      };
    },
    get outstanding() {
      return outstanding;
    },
    get busyness() {
      return load;
    },
    died,
    async close() {
      await new Promise<void>((resolve) => {
        stopped = resolve;
        if (dead) resolve();
        else tell({ type: 'stop' });
      });
      await worker.terminate();
      port.close();
    },
  };
}
