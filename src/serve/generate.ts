// From a checked request to bytes on the connection, for both endpoints: one object, or a stream of events.
import { randomUUID } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import type { Accounts, Caller } from './account.js';
import type { Delta } from './answer.js';
import type { EngineClient } from './engine-client.js';
import { ApiError, errorBody, toApiError } from './errors.js';
import { type Ask, type Finish, type Job, startJob, type Usage } from './job.js';
import type { Metrics } from './metrics.js';
import type { Outcome } from './usage-log.js';
import { type Choice, type Head, joinDeltas, type Wire } from './wire.js';

/** What the endpoints need of the server. */
export interface Generator {
  readonly engine: EngineClient;
  readonly accounts: Accounts;
  readonly metrics: Metrics;
  /** Samples that may wait for a slot. */
  readonly queue: number;
  /** Longest time that one request may take. */
  readonly timeLimitMs: number;
  /** Whether the server takes new requests. */
  readonly open: boolean;
  /** What went wrong inside. */
  readonly onFault: (request: string, error: unknown) => void;
  /** Requests under way. */
  readonly active: Set<Promise<void>>;
  /** What a request and its answer said, where prompts are logged. */
  readonly logPrompt: ((line: object) => void) | null;
}

export interface Reply {
  readonly id: string;
  readonly wire: Wire;
  readonly stream: boolean;
  /** Whether a stream ends with an object of usage. */
  readonly streamUsage: boolean;
  /** The request as it came, for the prompt log. */
  readonly body: unknown;
  /** When it came, milliseconds of `performance.now`. */
  readonly began: number;
}

export function newId(prefix: string): string {
  return prefix + randomUUID().replaceAll('-', '').slice(0, 24);
}

function tooLong(limitMs: number): ApiError {
  const words = `the answer took longer than the ${limitMs / 1000} s that a request may take`;
  return new ApiError(504, words, { code: 'time_limit' });
}

/** What comes before an answer, within the time of its request. @throws ApiError 504 */
export async function inTime<T>(preparing: Promise<T>, began: number, limitMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(tooLong(limitMs)), began + limitMs - performance.now());
  });
  try {
    return await Promise.race([preparing, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** @throws ApiError 429 where the queue is full */
function checkRoom({ engine, queue }: Generator, ask: Ask): void {
  const samples = ask.prompts.length * ask.n;
  const { maxSequences } = ask.model.info;
  if (ask.n > maxSequences)
    throw new ApiError(
      400,
      `n: got ${ask.n}; this server runs ${maxSequences} samples at once, give at most that`,
      {
        param: 'n',
      },
    );
  const room = maxSequences + queue - engine.outstanding;
  // One request larger than the queue may come in where nothing else waits.
  if (samples <= room || engine.outstanding === 0) return;
  throw new ApiError(429, `the queue is full (${queue} samples wait); try again in 1 s`, {
    code: 'queue_full',
    retryAfter: 1,
  });
}

/**
 * Generates and writes the answer; resolves when the connection has all of it, or its client has left.
 * @throws ApiError before anything is written
 */
export function generate(
  generator: Generator,
  caller: Caller,
  ask: Ask,
  reply: Reply,
  out: ServerResponse,
): Promise<void> {
  const { engine, accounts, metrics, timeLimitMs } = generator;
  // Its client has left while the prompt was made.
  if (out.destroyed) return Promise.resolve();
  checkRoom(generator, ask);
  const promptTokens = ask.prompts.reduce((sum, { ids }) => sum + ids.length, 0);
  const mostTokens = ask.prompts.length * ask.n * ask.maxTokens;
  const reservedTokens = ask.openEnded ? 0 : mostTokens;
  const admission = accounts.admit(caller, ask.model.name, { promptTokens, mostTokens, reservedTokens });
  const { began } = reply;
  const head: Head = {
    id: reply.id,
    created: Math.floor(Date.now() / 1000),
    model: ask.model.name,
    system_fingerprint: ask.model.fingerprint,
    // Where usage comes at the end of a stream, the objects before have the field too.
    ...(reply.stream && reply.streamUsage ? { usage: null } : {}),
  };
  const writer = reply.stream ? streamWriter(head, reply, out) : wholeWriter(head, reply, ask, out);

  return new Promise<void>((resolve) => {
    let job: Job | undefined;
    let over = false;
    const said: Delta[][] | null = generator.logPrompt && ask.prompts.flatMap(() => Array(ask.n).fill([]));

    /** Ends the request: it goes into the log, then its last bytes to the client, one right after the other. */
    function end(usage: Usage, outcome: Outcome, send: () => void): void {
      if (over) return;
      over = true;
      clearTimeout(timer);
      out.off('close', onClose);
      try {
        admission.close(reply.id, usage, outcome);
        if (said)
          generator.logPrompt?.({
            id: reply.id,
            outcome,
            request: reply.body,
            answers: said.map(joinDeltas),
          });
        send();
      } catch (error) {
        generator.onFault(reply.id, error);
        writer.error(toApiError(error));
      }
      const toFirst = job?.firstToken == null ? null : (job.firstToken - began) / 1000;
      metrics.generation(ask.model.name, usage, (performance.now() - began) / 1000, toFirst);
      resolve();
    }

    const fail = (error: ApiError, usage: Usage) => end(usage, 'failed', () => writer.error(error));
    const cancel = () => (job as Job).cancel();
    const onClose = () => end(cancel(), 'left', () => {});
    const timer = setTimeout(
      () => fail(tooLong(timeLimitMs), cancel()),
      began + timeLimitMs - performance.now(),
    );

    job = startJob(engine, ask, {
      onDelta(choice, delta) {
        if (said) said[choice] = [...said[choice], delta];
        writer.delta(choice, delta);
      },
      onFinish(choice, delta, finish) {
        if (said) said[choice] = [...said[choice], delta];
        writer.finish(choice, delta, finish);
      },
      onDone(usage) {
        end(usage, 'done', writer.done(usage));
      },
      onError(error, usage) {
        if (error.status === 500) generator.onFault(reply.id, error.cause ?? error);
        fail(error, usage);
      },
    });
    out.once('close', onClose);
  });
}

interface Writer {
  delta(choice: number, delta: Delta): void;
  finish(choice: number, delta: Delta, finish: Finish): void;
  /** Makes the last bytes ready; what it gives sends them. */
  done(usage: Usage): () => void;
  error(error: ApiError): void;
}

function wholeWriter(head: Head, { wire }: Reply, ask: Ask, out: ServerResponse): Writer {
  const parts: Delta[][] = Array.from({ length: ask.prompts.length * ask.n }, () => []);
  const ends: Finish[] = [];
  return {
    delta: (choice, delta) => parts[choice].push(delta),
    finish(choice, delta, finish) {
      parts[choice].push(delta);
      ends[choice] = finish;
    },
    done(usage) {
      const choices: Choice[] = parts.map((deltas, i) => ({ delta: joinDeltas(deltas), finish: ends[i] }));
      const bytes = Buffer.from(JSON.stringify(wire.whole(head, choices, usage)));
      return () => sendBytes(out, 200, bytes);
    },
    error: (error) => sendError(out, error),
  };
}

function streamWriter(head: Head, { wire, streamUsage }: Reply, out: ServerResponse): Writer {
  const opened = new Set<number>();
  /** What belongs to the last bytes: it waits until the request is in the log. */
  let last = '';
  const event = (object: object) => `data: ${JSON.stringify(object)}\n\n`;
  function start(): void {
    if (out.headersSent) return;
    out.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      // Proxies that collect answers would hold a stream back.
      'x-accel-buffering': 'no',
    });
  }
  function open(choice: number): string {
    if (opened.has(choice)) return '';
    opened.add(choice);
    const first = wire.first(head, choice);
    return first ? event(first) : '';
  }
  const pieces = (choice: number, delta: Delta) => wire.pieces(head, choice, delta).map(event).join('');
  return {
    delta(choice, delta) {
      start();
      out.write(last + open(choice) + pieces(choice, delta));
      last = '';
    },
    finish(choice, delta, finish) {
      last += open(choice) + pieces(choice, delta) + event(wire.last(head, choice, finish));
    },
    done(usage) {
      start();
      if (streamUsage) last += event(wire.usage(head, usage));
      const bytes = Buffer.from(`${last}data: [DONE]\n\n`);
      return () => out.end(bytes);
    },
    error(error) {
      if (out.headersSent) out.end(`${last}${event(errorBody(error))}`);
      else sendError(out, error);
    },
  };
}

function sendBytes(out: ServerResponse, status: number, bytes: Buffer): void {
  out.writeHead(status, { 'content-type': 'application/json', 'content-length': bytes.length });
  out.end(bytes);
}

function sendError(out: ServerResponse, error: ApiError): void {
  if (error.retryAfter !== null) out.setHeader('retry-after', String(error.retryAfter));
  sendBytes(out, error.status, Buffer.from(JSON.stringify(errorBody(error))));
}
