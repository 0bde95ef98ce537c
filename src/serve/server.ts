// The server: an engine thread, its models, and HTTP in front; started and stopped as one.
//
// A request's way: http.ts (key, size, form) -> schema.ts -> prompt.ts (template, tokens) -> account.ts (limits) ->
// job.ts -> engine thread (scheduler, rollout engine) -> answer.ts (reasoning, content, calls) -> wire.ts -> the client.

import type { ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { setTimeout } from 'node:timers/promises';
import { openJsonlWriter } from '../checkpoint/jsonl.js';
import type { Dtype } from '../compute/kernel/bfloat16.js';
import { RetortError, refuse } from '../errors.js';
import { openAccounts } from './account.js';
import { startEngine } from './engine-client.js';
import type { Generator } from './generate.js';
import { createHttpServer } from './http.js';
import { openKeyRing } from './keys.js';
import { createMetrics } from './metrics.js';
import { currentFolder, loadModel, type ModelSpec, type ServedModel, stampOf } from './model.js';
import { FREE, type Prices } from './prices.js';
import { startPromptThread } from './prompts.js';
import { openUsageLog } from './usage-log.js';

export interface ServeOptions {
  readonly models: readonly ModelSpec[];
  readonly host?: string;
  /** 0 takes a free one. Default 8000. */
  readonly port?: number;
  /** Folder of keys and the usage log. */
  readonly folder: string;
  readonly prices?: Prices;
  readonly template?: string;
  readonly threads?: number;
  /** Sequences that run at once. Default 256. */
  readonly maxSequences?: number;
  /** Longest sequence, prompt included; default: the model's context. */
  readonly maxLength?: number;
  /** Most bytes of keys and values. Default 1 GiB. */
  readonly maxKvBytes?: number;
  /** How matrices are packed for products. Default: bfloat16 where all of a model's files are, else float32. */
  readonly dtype?: Dtype;
  /** How keys and values are kept. Default float32. */
  readonly kvCacheDtype?: Dtype;
  /** Samples that may wait for a slot. Default 1024. */
  readonly queue?: number;
  /** File that gets every request and its answer, a line each. Default: prompts are nowhere. */
  readonly logPrompts?: string;
  /** Default 600. */
  readonly timeLimitSeconds?: number;
  /** Gets a line of what happened. Default: nothing is said. */
  readonly say?: (line: string) => void;
}

export interface RunningServer {
  readonly url: string;
  readonly models: ReadonlyMap<string, ServedModel>;
  /**
   * Loads each model again whose folder has changed. Requests that run end on the model that they began with; those
   * that come get the new one. Where one cannot be loaded, the old one stays.
   * @returns names of those that were swapped
   */
  reload(): Promise<string[]>;
  /** Takes no new request, lets what runs end, then ends itself. */
  close(): Promise<void>;
  /** Resolves with the reason when the engine has died. */
  readonly died: Promise<Error>;
}

/** After the last answer is written its client gets so long to read it. */
const DRAIN_MS = 5000;
const CLOSE_LOOK_MS = 20;
const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|::1)$/;

/**
 * Loads the models and listens.
 * @throws RetortError bad-input for a port that is taken, or a host beyond this machine without keys; bad-model
 */
export async function startServer(options: ServeOptions): Promise<RunningServer> {
  const { host = '127.0.0.1', port = 8000, folder, prices = FREE, say = () => {} } = options;
  const keys = openKeyRing(folder, (error) => say(`keys stay as they were: ${error.message}`));
  if (!keys.guarded && !LOOPBACK.test(host))
    throw new RetortError(
      'bad-input',
      `host: got ${JSON.stringify(host)}; without keys the server listens on this machine alone: make one with "retort keys add NAME", or leave --host out`,
    );
  const names = options.models.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    throw refuse('bad-input', 'name of two models', twice, 'give each its own: --model NAME=DIR');
  await checkPort(host, port);
  const log = openUsageLog(folder);
  const engine = startEngine({
    threads: options.threads,
    maxSequences: options.maxSequences ?? 256,
    maxLength: options.maxLength,
    maxKvBytes: options.maxKvBytes ?? 2 ** 30,
    dtype: options.dtype,
    kvCacheDtype: options.kvCacheDtype,
  });
  const prompts = startPromptThread();
  const models = new Map<string, ServedModel>();
  try {
    for (const spec of options.models)
      models.set(spec.name, await loadModel(engine, prompts, spec, options.template));
    const accounts = openAccounts({ keys, log, prices, folder });
    const metrics = createMetrics(engine);
    let open = true;
    let dead = false;
    const died = Promise.race([engine.died, prompts.died]);
    void died.then(() => {
      dead = true;
    });
    const promptLog = options.logPrompts === undefined ? null : openJsonlWriter(options.logPrompts);
    const onFault = (request: string, error: unknown) => say(`${request}: ${describeFault(error)}`);
    const generator: Generator = {
      ...{ engine, accounts, metrics, queue: options.queue ?? 1024 },
      timeLimitMs: 1000 * (options.timeLimitSeconds ?? 600),
      get open() {
        return open;
      },
      active: new Set(),
      onFault,
      logPrompt: promptLog && ((line) => promptLog.append({ time: new Date().toISOString(), ...line })),
    };
    const server = createHttpServer({
      ...{ generator, accounts, metrics, models },
      onlyLocalNames: () => !keys.guarded,
      healthy: () => !dead,
      onFault,
    });
    const unfinished = new Set<ServerResponse>();
    server.on('request', (_, response: ServerResponse) => {
      unfinished.add(response);
      response.once('close', () => unfinished.delete(response));
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    });
    async function reload(): Promise<string[]> {
      const swapped: string[] = [];
      for (const spec of options.models) {
        const old = models.get(spec.name) as ServedModel;
        try {
          const dir = currentFolder(spec.dir);
          if (dir === old.dir && stampOf(dir) === old.stamp) continue;
          models.set(spec.name, await loadModel(engine, prompts, spec, options.template));
        } catch (error) {
          say(`model ${spec.name} stays as it was: ${(error as Error).message}`);
          continue;
        }
        void old.idle().then(() => {
          engine.retire(old.handle);
          old.prompts.drop();
        });
        swapped.push(spec.name);
        say(`model ${spec.name}: now ${models.get(spec.name)?.dir}`);
      }
      return swapped;
    }
    let reloads: Promise<unknown> = Promise.resolve();
    const address = server.address() as AddressInfo;
    const shown = address.family === 'IPv6' ? `[${address.address}]` : address.address;
    return {
      url: `http://${shown}:${address.port}`,
      models,
      died,
      reload() {
        const next = reloads.then(reload);
        reloads = next;
        return next;
      },
      close: once(async () => {
        open = false;
        let closed = false;
        const ended = new Promise<void>((resolve) =>
          server.close(() => {
            closed = true;
            resolve();
          }),
        );
        // What runs is finished, however long it takes; a client that does not read its answer is not waited for.
        let deadline = Number.POSITIVE_INFINITY;
        while (!closed) {
          server.closeIdleConnections();
          if (generator.active.size === 0) deadline = Math.min(deadline, performance.now() + DRAIN_MS);
          // A connection that was opened ahead and asked nothing is not idle to Node.
          if (unfinished.size === 0 || performance.now() > deadline) server.closeAllConnections();
          await Promise.race([ended, setTimeout(CLOSE_LOOK_MS)]);
        }
        await Promise.all([reloads, ...generator.active]);
        log.close();
        promptLog?.close();
        await Promise.all([engine.close(), prompts.close()]);
      }),
    };
  } catch (error) {
    log.close();
    await Promise.all([engine.close(), prompts.close()]);
    throw error;
  }
}

function once<T>(run: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | undefined;
  return () => {
    result ??= run();
    return result;
  };
}

/** A taken port is told before a model is loaded. */
async function checkPort(host: string, port: number): Promise<void> {
  if (port === 0) return;
  await new Promise<void>((resolve, reject) => {
    const probe = createServer();
    probe.once('error', (error: NodeJS.ErrnoException) => {
      const why = error.code === 'EADDRINUSE' ? 'another program listens there' : error.message;
      reject(
        new RetortError('bad-input', `address ${host}:${port}: ${why}; give another --port or --host`, {
          cause: error,
        }),
      );
    });
    probe.listen(port, host, () => probe.close(() => resolve()));
  });
}

/** Where a fault was, without the words of a message that may hold a prompt. */
function describeFault(error: unknown): string {
  if (!(error instanceof Error)) return 'something that is no error was thrown';
  const frames = (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line));
  const code = error instanceof RetortError ? ` ${error.code}` : '';
  return [`${error.name}${code}`, ...frames.slice(0, 8)].join('\n');
}
