// Clients that keep a server busy: each streams one answer after another, and what they saw is summed up.
import { once } from 'node:events';
import { connect } from 'node:net';
import { Worker } from 'node:worker_threads';
import type { HealthSeen, HealthWatch } from './bench-health.js';

export interface LoadOptions {
  readonly url: string;
  readonly model: string;
  readonly clients: number;
  readonly seconds: number;
  /** Most tokens of an answer. */
  readonly tokens: number;
  /** Token ids; requests take turns. */
  readonly prompts: readonly (readonly number[])[];
  /** What a greedy request to each prompt gives when it is alone; every fourth request is greedy and compared. */
  readonly expected: readonly string[];
}

export interface LoadResult {
  readonly clients: number;
  readonly requests: number;
  readonly tokens: number;
  readonly seconds: number;
  readonly tokensPerSecond: number;
  /** Seconds to the first token: of half, and of 99 in a hundred requests. */
  readonly firstToken: { readonly p50: number; readonly p99: number };
  /** Tokens a second of one answer, from its first token on. */
  readonly answerSpeed: number;
  /** Milliseconds that /health took at worst. */
  readonly health: { readonly p99: number; readonly worst: number; readonly asked: number };
  readonly compared: number;
  readonly different: number;
  readonly errors: readonly string[];
}

interface Streamed {
  readonly text: string;
  readonly tokens: number;
  readonly first: number;
  readonly seconds: number;
}

/** A connection that streams one completion after another. */
export interface LoadClient {
  /** Rejects where the stream does not come to its end. */
  complete(body: Readonly<Record<string, unknown>>): Promise<Streamed>;
  close(): void;
}

const END = Buffer.from('\r\n0\r\n\r\n');

/**
 * Clients share the machine with the server that they measure, so this one does little: bytes are gathered as they come,
 * and read once the last has come.
 */
export function connectLoadClient(url: string): LoadClient {
  const { hostname, port, host } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), noDelay: true });
  let parts: Buffer[] = [];
  let took: { resolve(whole: Buffer): void; reject(error: Error): void } | null = null;
  let first = 0;
  let broken: Error | null = null;
  socket.on('data', (part) => {
    if (parts.length === 0) first = performance.now();
    parts.push(part);
    if (!endsAnswer(parts)) return;
    took?.resolve(Buffer.concat(parts));
    took = null;
  });
  const end = (error: Error) => {
    broken ??= error;
    took?.reject(error);
    took = null;
  };
  socket.on('error', end);
  socket.on('close', () => end(new Error('the server closed the connection')));
  return {
    async complete(body) {
      if (broken) throw broken;
      const text = JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } });
      const head = `POST /v1/completions HTTP/1.1\r\nhost: ${host}\r\ncontent-type: application/json\r\n`;
      const began = performance.now();
      parts = [];
      const whole = await new Promise<Buffer>((resolve, reject) => {
        took = { resolve, reject };
        socket.write(`${head}content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
      });
      const seconds = (performance.now() - began) / 1000;
      return { ...readAnswer(whole), first: (first - began) / 1000, seconds };
    },
    close: () => socket.destroy(),
  };
}

/** A stream ends with an empty chunk; an error is one object, of the length that it says. */
function endsAnswer(parts: readonly Buffer[]): boolean {
  const last = parts[parts.length - 1];
  const tail = last.length >= END.length ? last : Buffer.concat(parts.slice(-2));
  if (tail.subarray(-END.length).equals(END)) return true;
  const begin = parts[0].toString('latin1');
  const head = begin.indexOf('\r\n\r\n') + 4;
  const length = /\r\ncontent-length: *(\d+)/i.exec(begin.slice(0, head))?.[1];
  return length !== undefined && parts.reduce((sum, part) => sum + part.length, 0) >= head + Number(length);
}

/** @throws Error with what the server said instead of a whole stream */
function readAnswer(whole: Buffer): { text: string; tokens: number } {
  const start = whole.indexOf('\r\n\r\n') + 4;
  const status = whole.toString('latin1', 9, 12);
  if (status !== '200') throw new Error(`status ${status}: ${whole.toString('utf8', start).slice(-200)}`);
  const chunks: Buffer[] = [];
  for (let at = start; ; ) {
    const line = whole.indexOf('\r\n', at);
    const length = Number.parseInt(whole.toString('latin1', at, line), 16);
    if (!(length > 0)) break;
    chunks.push(whole.subarray(line + 2, line + 2 + length));
    at = line + 2 + length + 2;
  }
  const all = Buffer.concat(chunks).toString('utf8');
  if (!all.endsWith('data: [DONE]\n\n')) throw new Error(`the stream ended in: ${all.slice(-200)}`);
  let text = '';
  let tokens = 0;
  for (const event of all.split('\n\n').slice(0, -2)) {
    const { choices, usage } = JSON.parse(event.slice('data: '.length)) as Chunk;
    for (const choice of choices) text += choice.text;
    if (usage) tokens = usage.completion_tokens;
  }
  return { text, tokens };
}

interface Chunk {
  readonly choices: readonly { readonly text: string }[];
  readonly usage?: { readonly completion_tokens: number };
}

const HEALTH_EVERY_MS = 100;
/** For so long the server's code is compiled, on the cores that the engine needs; what comes in it is not counted. */
const WARM_SECONDS = 15;

export async function runLoad(o: LoadOptions): Promise<LoadResult> {
  const firsts: number[] = [];
  const speeds: number[] = [];
  const errors: string[] = [];
  let [requests, tokens, compared, different, next] = [0, 0, 0, 0, 0];
  const began = performance.now() + 1000 * WARM_SECONDS;
  const end = began + 1000 * o.seconds;

  async function client(): Promise<void> {
    const connection = connectLoadClient(o.url);
    while (performance.now() < end) {
      const number = next++;
      const place = number % o.prompts.length;
      const greedy = number % 4 === 0;
      const more = greedy ? { temperature: 0 } : { temperature: 1, seed: number };
      const body = { model: o.model, prompt: o.prompts[place], max_tokens: o.tokens, ...more };
      try {
        const answer = await connection.complete(body);
        if (greedy) {
          compared++;
          if (answer.text !== o.expected[place]) different++;
        }
        const now = performance.now();
        // Clients that began together end together: counted by their ends, tokens would come in lumps.
        tokens += answer.tokens * shareWithin(now - 1000 * (answer.seconds - answer.first), now, began, end);
        if (now < began || now > end) continue;
        requests++;
        firsts.push(answer.first);
        speeds.push(answer.tokens / Math.max(1e-6, answer.seconds - answer.first));
      } catch (error) {
        errors.push((error as Error).message);
        break;
      }
    }
    connection.close();
  }

  const watch: HealthWatch = {
    url: o.url,
    skipMs: 1000 * WARM_SECONDS,
    forMs: 1000 * (WARM_SECONDS + o.seconds),
    everyMs: HEALTH_EVERY_MS,
  };
  const watcher = new Worker(new URL('./bench-health.js', import.meta.url), { workerData: watch });
  const watched = once(watcher, 'message') as Promise<[HealthSeen]>;
  const clients = Array.from({ length: o.clients }, client);
  const [[{ took: health, failed }]] = await Promise.all([watched, ...clients]);
  if (failed > 0) errors.push(`/health did not answer ${failed} times`);
  return {
    clients: o.clients,
    requests,
    tokens: Math.round(tokens),
    seconds: o.seconds,
    tokensPerSecond: tokens / o.seconds,
    firstToken: { p50: quantile(firsts, 0.5), p99: quantile(firsts, 0.99) },
    answerSpeed: quantile(speeds, 0.5),
    health: { p99: quantile(health, 0.99), worst: Math.max(0, ...health), asked: health.length },
    ...{ compared, different, errors },
  };
}

/** How much of the time from `from` to `to` lies within a window, from 0 to 1. */
function shareWithin(from: number, to: number, began: number, end: number): number {
  if (to === from) return to >= began && to <= end ? 1 : 0;
  return Math.max(0, Math.min(to, end) - Math.max(from, began)) / (to - from);
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
