// The rollout engine: continuous batching. Each step runs one forward pass over the new tokens of every sequence.
//
// A request's prompt but for its last token is computed once; each sample then starts from that token, on the shared
// blocks. What is short joins the step of those that run instead (admission.ts).

import { checkDtype, type Dtype } from '../compute/kernel/bfloat16.js';
import { planAttention, type Span } from '../compute/op/attention/attention.js';
import type { Sampling } from '../compute/op/sample/sample.js';
import type { Tensor } from '../compute/tensor.js';
import { RetortError } from '../errors.js';
import { forward, type Llama } from '../model/llama.js';
import { uniform } from '../random.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { createAdmission } from './admission.js';
import { deal } from './deal.js';
import { createDecoder, type DecodeRow } from './decoder.js';
import { attendCached, blocksWithin, createKvCache } from './kv-cache.js';
import {
  type Completion,
  checkRequest,
  type FinishReason,
  type GenerateRequest,
  limitOf,
} from './request.js';
import {
  dropPrefix,
  fork,
  type Group,
  type ReadySequence,
  releaseSequence,
  rowsOf,
  type Sequence,
} from './sequence.js';
import { drawSteered, logprobOf, rowOf, type TokenControl, type TopLogprobs, topLogprobs } from './steer.js';

export interface EngineOptions {
  /** Sequences that run at once. Default 64. */
  readonly maxSequences?: number;
  /** Longest sequence, prompt included. Default: the model's context. */
  readonly maxLength?: number;
  /** Most prompt tokens computed in one step. Default 2048. */
  readonly prefillTokens?: number;
  /**
   * Whether prompts that begin like earlier sequences take over what those computed. For weights that do not change.
   * Default false.
   */
  readonly prefixCache?: boolean;
  /** How keys and values are kept; bfloat16 takes down to half the memory, and rounds them. Default float32. */
  readonly kvCacheDtype?: Dtype;
  /** Most bytes of keys and values. Default: what `maxSequences` of `maxLength` need. */
  readonly maxKvBytes?: number;
}

/** A token that a sequence got. */
export interface TokenEvent {
  readonly request: number;
  readonly sample: number;
  readonly id: number;
  /** Under the model as it is. */
  readonly logprob: number;
  /** Empty where none were asked for. */
  readonly top: TopLogprobs;
  /** Tokens of the prompt that the cache held. */
  readonly cachedTokens: number;
}

export interface StepResult {
  readonly tokens: readonly TokenEvent[];
  readonly finished: readonly Completion[];
}

export interface Engine {
  /** Queues a request and gives its number. @throws RetortError bad-input */
  submit(request: GenerateRequest): number;
  /** Drops a request's samples that are not finished. */
  cancel(request: number): void;
  /** Whether anything is queued or running. */
  readonly busy: boolean;
  /** Tokens sampled so far. */
  readonly generatedTokens: number;
  /** Longest sequence, prompt included. */
  readonly maxLength: number;
  /** One forward pass over everything that can move. */
  step(): StepResult;
  close(): void;
}

/** What a step drew for a sequence, from its row of the logits. */
interface Drawn {
  readonly row: number;
  id: number;
  logprob: number;
  samplingLogprob: number;
}

/** For rows from which nothing is taken. */
const UNUSED: Sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, random: 0 };

/** @throws RetortError bad-input for a dtype that is none, or bytes of keys and values that do not hold one sequence */
export function createEngine(
  { llama, tokenizer }: { readonly llama: Llama; readonly tokenizer: Tokenizer },
  options: EngineOptions = {},
): Engine {
  const { device, config } = llama;
  const { maxSequences = 64, prefillTokens = 2048, kvCacheDtype: dtype = 'float32' } = options;
  const maxLength = Math.min(options.maxLength ?? config.maxPositionEmbeddings, config.maxPositionEmbeddings);
  checkDtype('kvCacheDtype', dtype);
  const blocks = blocksWithin(options.maxKvBytes, llama, dtype, maxSequences, maxLength);
  const cache = createKvCache(llama, dtype, blocks, { remembers: options.prefixCache });
  const admission = createAdmission({ device, cache, tokenizer, maxSequences, maxLength, prefillTokens });
  const context = { device, tape: null };
  const decoder = createDecoder(llama, cache);
  const ends = new Set([...tokenizer.eosTokenIds, ...config.eosTokenIds]);
  let running: Sequence[] = [];
  let requests = 0;
  let generatedTokens = 0;
  /** Whether sequences have come or gone since they were dealt out to the threads. */
  let uneven = false;

  function admit(): Group[] {
    const before = running.length;
    try {
      return admission.admit(running);
    } finally {
      if (running.length > before) uneven = true;
    }
  }

  /** Computes what prompts have in front of the first sampled token. */
  function prefill(groups: readonly Group[]): void {
    const ids: number[] = [];
    const positions: number[] = [];
    const spans: Span[] = [];
    for (const { r, shared, prefix, cached } of groups) {
      spans.push({
        firstRow: ids.length,
        rows: shared - cached,
        position: cached,
        table: prefix as number[],
      });
      for (let position = cached; position < shared; position++) {
        ids.push(r.promptIds[position]);
        positions.push(position);
      }
    }
    const mark = device.mark();
    try {
      const plan = planAttention(device, spans);
      const rows = { ids: device.upload(ids, 'i32'), positions: device.upload(positions, 'i32') };
      forward(context, llama, rows, attendCached(llama, cache, plan));
    } finally {
      device.rewind(mark);
    }
    for (const group of groups) {
      group.prefilled = true;
      cache.remember(group.r.promptIds.slice(0, group.shared), group.prefix as number[]);
    }
  }

  /** One step of the sequences: the logits of all rows, and what was drawn from each sequence's last row. */
  function decode(ready: readonly ReadySequence[]): { drawn: Drawn[]; logits: Tensor } {
    const rows: DecodeRow[] = [];
    const sampling: Sampling[] = [];
    const lastRows: number[] = [];
    for (const s of ready) {
      const { table, group } = s;
      let { position } = s;
      for (; position < group.shared; position++) {
        rows.push({ next: group.r.promptIds[position], position, table });
        sampling.push(UNUSED);
      }
      lastRows.push(rows.length);
      // Where nothing of the prompt is missing, the sequence itself is the row.
      rows.push(position === s.position ? s : { next: s.next, position, table });
      sampling.push(samplingOf(s));
    }
    const { sampled, logits } = decoder.step(rows, sampling);
    for (const s of ready) {
      const { r, shared } = s.group;
      if (s.position >= shared) continue;
      s.position = shared;
      cache.remember(r.promptIds.slice(0, shared), s.table);
    }
    const drawn = lastRows.map((row) => ({
      row,
      id: sampled.tokens[row],
      logprob: sampled.logprobs[row],
      samplingLogprob: sampled.samplingLogprobs[row],
    }));
    return { drawn, logits };
  }

  /** Keeps the logits that are reported on, and draws again where controls have a say. */
  function steer(logits: Tensor, ready: readonly ReadySequence[], all: Drawn[]): void {
    const guided: number[] = [];
    ready.forEach((s, i) => {
      if (!s.control && !s.group.r.topLogprobs) return;
      const row = rowOf(device, logits, all[i].row);
      s.raw ??= new Float32Array(row.length);
      s.raw.set(row);
      if (s.control) guided.push(i);
    });
    if (guided.length === 0) return;
    const rows = guided.map((i) => {
      const s = ready[i];
      return { control: s.control as TokenControl, raw: s.raw as Float32Array, sampling: samplingOf(s) };
    });
    drawSteered(device, rows).forEach((drawn, k) => {
      const [s, i] = [ready[guided[k]], guided[k]];
      s.stuck = drawn === null;
      if (!drawn) return;
      all[i].id = drawn.id;
      all[i].logprob = logprobOf(s.raw as Float32Array, drawn.id);
      all[i].samplingLogprob = drawn.samplingLogprob;
    });
  }

  function samplingOf({ group: { r }, sample: number, ids }: Sequence) {
    const { temperature = 1, topK = 0, topP = 1, minP = 0 } = r;
    const random = uniform(r.seed, r.problem, (r.firstSample ?? 0) + number, ids.length);
    return { temperature, topK, topP, minP, random };
  }

  /** Takes up a sampled token; gives the completion where it ends the sequence. */
  function take(s: Sequence, { id, logprob, samplingLogprob }: Drawn): Completion | null {
    const { r } = s.group;
    if (Number.isNaN(logprob)) {
      throw new RetortError(
        'numerics',
        `the model's logits are NaN at position ${s.position}; its weights are broken`,
      );
    }
    s.ids.push(id);
    s.logprobs.push(logprob);
    s.samplingLogprobs.push(samplingLogprob);
    s.position++;
    s.next = id;
    generatedTokens++;
    s.control?.accept(id);
    if (ends.has(id)) return completionOf(s, textOf(r, s.ids.slice(0, -1)), 'stop');
    if (s.text) {
      s.seen += s.text.push(id);
      const { at, stop } = firstStop(s.seen, r.stop ?? []);
      if (stop !== null) return completionOf(s, s.seen.slice(0, at), 'stop', stop);
    }
    if (r.promptIds.length + s.ids.length < limitOf(r, maxLength)) return null;
    return completionOf(s, textOf(r, s.ids), 'length');
  }

  function textOf({ skipSpecialTokens }: GenerateRequest, ids: readonly number[]): string {
    return tokenizer.decode(ids, { skipSpecialTokens });
  }

  return {
    submit(r) {
      checkRequest(r, config, maxLength);
      admission.add(requests, r);
      return requests++;
    },
    cancel(request) {
      admission.remove(request);
      const leaving = running.filter((s) => s.group.request === request);
      running = running.filter((s) => s.group.request !== request);
      uneven = true;
      for (const s of leaving) {
        releaseSequence(cache, s);
        dropPrefix(cache, s.group);
      }
    },
    get busy() {
      return admission.waits || running.length > 0;
    },
    get generatedTokens() {
      return generatedTokens;
    },
    maxLength,
    step() {
      const fresh = admit();
      if (fresh.length > 0) prefill(fresh);
      fork(cache, running);
      if (running.length === 0) return { tokens: [], finished: [] };
      if (uneven) {
        const rows = running.reduce((sum, s) => sum + rowsOf(s), 0);
        running = deal(running, device.shares(rows), (s) => ({ rows: rowsOf(s), position: s.position }));
        // Those of several rows have one each from the next step on.
        uneven = running.some((s) => rowsOf(s) > 1);
      }
      // Every sequence has its blocks now; a step that threw leaves nothing but requests to cancel.
      const ready = running as ReadySequence[];
      const { drawn, logits } = decode(ready);
      steer(logits, ready, drawn);
      const tokens: TokenEvent[] = [];
      const finished: Completion[] = [];
      const gone = new Set<Sequence>();
      try {
        ready.forEach((s, i) => {
          const { group, raw } = s;
          let completion: Completion | null;
          if (s.stuck) completion = completionOf(s, textOf(group.r, s.ids), 'dead-end');
          else {
            const top = raw ? topLogprobs(raw, group.r.topLogprobs ?? 0) : [];
            const { request, cached: cachedTokens } = group;
            const { id, logprob } = drawn[i];
            tokens.push({ request, sample: s.sample, id, logprob, top, cachedTokens });
            completion = take(s, drawn[i]);
          }
          if (!completion) return;
          finished.push(completion);
          gone.add(s);
          releaseSequence(cache, s);
        });
      } finally {
        // What has ended is let go of once, also where a sequence after it throws and all are cancelled.
        if (gone.size > 0) {
          running = running.filter((s) => !gone.has(s));
          uneven = true;
        }
      }
      return { tokens, finished };
    },
    close() {
      cache.close();
    },
  };
}

function completionOf(
  s: Sequence,
  text: string,
  finishReason: FinishReason,
  stopString: string | null = null,
): Completion {
  const { ids, logprobs, samplingLogprobs, sample, group } = s;
  return {
    request: group.request,
    sample,
    promptIds: group.r.promptIds,
    ids,
    text,
    logprobs,
    samplingLogprobs,
    finishReason,
    stopString,
    cachedTokens: group.cached,
  };
}

/** The stop string that begins earliest in the text, and where. */
function firstStop(text: string, stops: readonly string[]): { at: number; stop: string | null } {
  let found: { at: number; stop: string | null } = { at: text.length, stop: null };
  for (const stop of stops) {
    const at = text.indexOf(stop);
    if (at >= 0 && at < found.at) found = { at, stop };
  }
  return found;
}
