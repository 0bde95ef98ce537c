// What an API was asked and what it answered and cost, in one file that survives a kill at any moment.
//
// Before a call leaves, what it may cost at most is written and made durable; when its answer is whole, the answer is,
// before anyone uses it. So no answer is paid twice, and what is spent is never more than the file says: a call without
// an end (the process was killed meanwhile) may have been paid, and counts at its most.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { z } from 'zod';
import { syncFolder } from '../checkpoint/atomic.js';
import { makeFolder } from '../checkpoint/files.js';
import { openJsonlWriter, readJsonl, readLines } from '../checkpoint/jsonl.js';
import { takeLock } from '../checkpoint/lock.js';
import { RetortError, refuse } from '../errors.js';
import type { Prices } from './options.js';

const count = z.number().int().min(0);

/** Tokens as an API bills them. */
const tokens = z.object({
  /** Cached ones included. */
  input: count,
  cachedInput: count,
  output: count,
});
export type BilledTokens = z.output<typeof tokens>;

const answer = z.object({
  content: z.string(),
  /** The thought, where the API tells it apart. */
  reasoning: z.string().nullable(),
  finishReason: z.string(),
  endpoint: z.string(),
  /** As it was asked for, and as the API says that it answered. */
  requestedModel: z.string(),
  model: z.string(),
  systemFingerprint: z.string().nullable(),
  /** When the answer was whole, ISO 8601. */
  date: z.string(),
  parameters: z.record(z.string(), z.unknown()),
  /** Null where the API did not say: the most that the call could cost is counted then. */
  usage: tokens.nullable(),
});
/** An answer with its provenance. */
export type ApiAnswer = Readonly<z.output<typeof answer>>;

const line = z.discriminatedUnion('type', [
  z.object({ type: z.literal('format'), format: z.string() }),
  z.object({
    type: z.literal('begin'),
    call: count,
    key: z.string(),
    most: tokens,
    cost: z.number().nullable(),
  }),
  z.object({ type: z.literal('failed'), call: count, billed: z.enum(['no', 'perhaps']), why: z.string() }),
  z.object({
    type: z.literal('answer'),
    call: count,
    key: z.string(),
    billed: tokens,
    cost: z.number().nullable(),
    answer,
  }),
]);
type Line = z.output<typeof line>;

const FORMAT: Line = { type: 'format', format: 'retort-api/1' };
const REMEDY = 'name another file of answers, or a new one';

/** What was spent. Costs are in millionths of the prices' currency: tokens times prices are whole for whole prices. */
export interface Spent {
  readonly tokens: number;
  readonly cost: number;
}

export interface ApiTotals {
  /** Answers in the file. */
  readonly answers: number;
  readonly inputTokens: number;
  readonly cachedInputTokens: number;
  readonly outputTokens: number;
  /** In the prices' currency. */
  readonly cost: number;
  /** Calls that may have been paid without an answer: cut off, or killed. Their most is in the totals. */
  readonly unanswered: number;
}

export interface Ledger {
  find(key: string): ApiAnswer | undefined;
  /** The model name of the first answer of a model, undefined where it has none. */
  firstModel(endpoint: string, requestedModel: string): string | undefined;
  /** Spent for certain or perhaps, calls under way at their most. */
  spent(): Spent;
  /** Writes, durably, that a call begins. Returns its number. */
  begin(key: string, most: BilledTokens): number;
  failed(call: number, billed: 'no' | 'perhaps', why: string): void;
  /** Stores an answer, durably. */
  answered(call: number, key: string, answer: ApiAnswer): void;
  totals(): ApiTotals;
  close(): void;
}

/** The key of a question: equal questions of one sample number are asked once. */
export function keyOf(question: unknown): string {
  return createHash('sha256').update(JSON.stringify(question)).digest('hex');
}

export function costOf({ input, cachedInput, output }: BilledTokens, prices: Prices): number {
  return (input - cachedInput) * prices.input + cachedInput * prices.cachedInput + output * prices.output;
}

/** What a call that may cost `most` counts: no part of its input is certain to be cached. */
export function mostCostOf({ input, output }: BilledTokens, prices: Prices): number {
  return input * Math.max(prices.input, prices.cachedInput) + output * prices.output;
}

/**
 * Opens the file, or makes it.
 * @throws RetortError bad-data for a file that is not one of these; bad-input where another process writes it; storage
 */
export function openLedger(path: string, prices: Prices | null): Ledger {
  makeFolder(dirname(path));
  const unlock = takeLock(`${path}.lock`, `the file of answers ${path}`);
  try {
    return openLocked(path, prices, unlock);
  } catch (error) {
    unlock();
    throw error;
  }
}

interface Entry {
  readonly tokens: BilledTokens;
  readonly cost: number;
}

function openLocked(path: string, prices: Prices | null, unlock: () => void): Ledger {
  const answers = new Map<string, ApiAnswer>();
  const models = new Map<string, string>();
  /** Calls without an end: under way, or perhaps paid. */
  const open = new Map<number, Entry>();
  let settled: BilledTokens = { input: 0, cachedInput: 0, output: 0 };
  let cost = 0;
  let calls = 0;
  const modelKey = (endpoint: string, model: string) => JSON.stringify([endpoint, model]);
  const priced = (stored: number | null, count: (prices: Prices) => number) =>
    prices ? (stored ?? count(prices)) : (stored ?? 0);
  const apply = (one: Line) => {
    if (one.type === 'begin') {
      calls = Math.max(calls, one.call + 1);
      open.set(one.call, { tokens: one.most, cost: priced(one.cost, (p) => mostCostOf(one.most, p)) });
    } else if (one.type === 'failed' && one.billed === 'no') {
      open.delete(one.call);
    } else if (one.type === 'answer') {
      open.delete(one.call);
      answers.set(one.key, one.answer);
      const asked = modelKey(one.answer.endpoint, one.answer.requestedModel);
      if (!models.has(asked)) models.set(asked, one.answer.model);
      settled = plus(settled, one.billed);
      cost += priced(one.cost, (p) => costOf(one.billed, p));
    }
  };
  const known = existsSync(path);
  if (known) checkFormat(path);
  // Cuts a torn last line off first, so that what is read is what stays.
  const writer = openJsonlWriter(path);
  if (known) for (const one of readLedger(path)) apply(one);
  const put = (one: Line) => {
    writer.append(one);
    writer.sync();
    apply(one);
  };
  if (writer.offset() === 0) {
    put(FORMAT);
    syncFolder(dirname(path));
  }
  return {
    find: (key) => answers.get(key),
    firstModel: (endpoint, model) => models.get(modelKey(endpoint, model)),
    spent() {
      let tokens = settled.input + settled.output;
      let all = cost;
      for (const entry of open.values()) {
        tokens += entry.tokens.input + entry.tokens.output;
        all += entry.cost;
      }
      return { tokens, cost: all };
    },
    begin(key, most) {
      const call = calls;
      put({ type: 'begin', call, key, most, cost: prices && mostCostOf(most, prices) });
      return call;
    },
    failed(call, billed, why) {
      put({ type: 'failed', call, billed, why });
    },
    answered(call, key, given) {
      const billed = given.usage ?? (open.get(call) as Entry).tokens;
      const sum = prices && (given.usage ? costOf(billed, prices) : mostCostOf(billed, prices));
      put({ type: 'answer', call, key, billed, cost: sum, answer: given });
    },
    totals() {
      const all = [...open.values()].reduce((sum, { tokens }) => plus(sum, tokens), settled);
      return {
        answers: answers.size,
        inputTokens: all.input,
        cachedInputTokens: all.cachedInput,
        outputTokens: all.output,
        cost: (cost + [...open.values()].reduce((sum, e) => sum + e.cost, 0)) / 1e6,
        unanswered: open.size,
      };
    },
    close() {
      writer.close();
      unlock();
    },
  };
}

function plus(a: BilledTokens, b: BilledTokens): BilledTokens {
  return {
    input: a.input + b.input,
    cachedInput: a.cachedInput + b.cachedInput,
    output: a.output + b.output,
  };
}

/** Before anything is cut off a file: it must be one of these, or what a kill left of the first line of one. */
function checkFormat(path: string): void {
  const format = JSON.stringify(FORMAT);
  const [first] = readLines(path, 'bad-data', REMEDY);
  if (!first || (first.complete ? first.text === format : format.startsWith(first.text))) return;
  throw refuse('bad-data', `first line of ${path}`, first.text, `it is no file of answers: ${REMEDY}`);
}

function* readLedger(path: string): Generator<Line> {
  for (const { number, value } of readJsonl(path, { code: 'bad-data', remedy: REMEDY })) {
    const parsed = line.safeParse(value);
    if (!parsed.success) {
      const { path: at, message } = parsed.error.issues[0];
      throw new RetortError('bad-data', `${path}:${number}: ${at.join('.')}: ${message}; ${REMEDY}`);
    }
    yield parsed.data;
  }
}
