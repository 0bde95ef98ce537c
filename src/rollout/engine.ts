// The rollout engine: continuous batching. Each step runs one forward pass over the new tokens of every sequence.
//
// A request's prompt but for its last token is computed once; each sample then starts from that token, on the shared
// blocks. What is short and has one sample joins the step of those that run instead: a pass of its own would take all the
// weights in for a few rows. Blocks for the longest completion are set aside at admission, so that a running sequence
// never waits.
import { planAttention, type Span } from '../compute/op/attention/attention.js';
import { BLOCK } from '../compute/op/attention/layout.js';
import type { Sampling } from '../compute/op/sample/sample.js';
import type { Tensor } from '../compute/tensor.js';
import { RetortError, refuse } from '../errors.js';
import { forward, type Llama } from '../model/llama.js';
import { uniform } from '../random.js';
import type { TextStream } from '../text/stream.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { deal } from './deal.js';
import { createDecoder, type DecodeRow } from './decoder.js';
import { attendCached, blockBytes, blocksFor, createKvCache } from './kv-cache.js';
import { type Completion, checkRequest, type FinishReason, type GenerateRequest } from './request.js';
import { drawSteered, logprobOf, rowOf, type TokenControl, type TopLogprobs, topLogprobs } from './steer.js';

/** Sequences from which on new ones that need a pass of their own wait: for so many steps, or so long where steps are slow. */
const MANY = 16;
const ADMISSION_STEPS = 6;
const ADMISSION_MS = 20;

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

/** A request under way: its prompt's blocks are held until every sample has started. */
interface Group {
  readonly request: number;
  readonly r: GenerateRequest;
  /** Prompt tokens that all samples share: all but the last. */
  readonly shared: number;
  prefix: number[] | null;
  /** Of those, what the cache held already. */
  cached: number;
  /** Of those, what is in the cache when samples start: the rest they compute with their first step. */
  computed: number;
  prefilled: boolean;
  started: number;
  forked: number;
}

interface Sequence {
  readonly group: Group;
  readonly sample: number;
  /** Its own blocks after the shared ones; set when it is admitted. */
  readonly own: number[];
  table: number[] | null;
  /** Tokens whose keys and values are in the cache; the next step computes those of the prompt that are missing. */
  position: number;
  next: number;
  readonly ids: number[];
  readonly logprobs: number[];
  readonly samplingLogprobs: number[];
  readonly text: TextStream | null;
  seen: string;
  readonly control: TokenControl | null;
  /** The last logits as the model gave them, where they are changed or reported on. */
  raw: Float32Array | null;
  /** Whether the control has left no token possible. */
  stuck: boolean;
}

/** A sequence that has its blocks. */
type ReadySequence = Sequence & { table: number[] };

/** What a step drew for a sequence, from its row of the logits. */
interface Drawn {
  readonly row: number;
  id: number;
  logprob: number;
  samplingLogprob: number;
}

/** For rows from which nothing is taken. */
const UNUSED: Sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, random: 0 };

/** Rows of prompts that join a step at most: each takes a row of logits, and is attended for on its own. */
const JOINING = 32;

/** Rows of a sequence's next step: what of its prompt is missing in the cache, and the token from which it goes on. */
function rowsOf({ group, position }: Sequence): number {
  return Math.max(0, group.shared - position) + 1;
}

export function createEngine(
  { llama, tokenizer }: { readonly llama: Llama; readonly tokenizer: Tokenizer },
  options: EngineOptions = {},
): Engine {
  const { device, config } = llama;
  const { maxSequences = 64, prefillTokens = 2048 } = options;
  const maxLength = Math.min(options.maxLength ?? config.maxPositionEmbeddings, config.maxPositionEmbeddings);
  const perSequence = blocksFor(maxLength);
  const cache = createKvCache(llama, blocksWithin(options.maxKvBytes), { remembers: options.prefixCache });
  const context = { device, tape: null };
  const decoder = createDecoder(llama, cache);
  const ends = new Set([...tokenizer.eosTokenIds, ...config.eosTokenIds]);
  let queue: Group[] = [];
  let running: Sequence[] = [];
  let requests = 0;
  let generatedTokens = 0;
  /** Whether sequences have come or gone since they were dealt out to the threads. */
  let uneven = false;
  /** Steps since the last pass for prompts, and when that was. */
  let steps = 0;
  let passed = 0;

  /** @throws RetortError bad-input where the bytes do not hold one sequence */
  function blocksWithin(bytes: number | undefined): number {
    const wanted = (maxSequences + 2) * perSequence;
    if (bytes === undefined) return wanted;
    const blocks = Math.min(wanted, Math.floor(bytes / blockBytes(llama)));
    // A prompt's last block is there twice when a sample starts.
    if (blocks > perSequence) return blocks;
    const needed = Math.ceil(((perSequence + 1) * blockBytes(llama)) / 2 ** 20);
    throw refuse(
      'bad-input',
      'bytes of keys and values',
      bytes,
      `one sequence of ${maxLength} tokens takes ${needed} MiB: give more, or a shorter context`,
    );
  }

  const limitOf = (r: GenerateRequest) => Math.min(maxLength, r.promptIds.length + r.maxTokens);

  /** Passes for prompts hold up the samples that run; where many do, prompts wait a few steps and come together. */
  function mayPass(): boolean {
    return running.length < MANY || ++steps >= ADMISSION_STEPS || performance.now() - passed >= ADMISSION_MS;
  }

  /** Starts queued samples while there is room; gives the groups whose prompt must be computed now. */
  function admit(): Group[] {
    const fresh: Group[] = [];
    const passing = queue.length > 0 && mayPass();
    let rows = 0;
    const joined = { rows: 0, sequences: 0 };
    while (queue.length > 0 && running.length < maxSequences) {
      const group = queue[0];
      const { r, shared } = group;
      const prefixBlocks = blocksFor(shared);
      // The last token is written at most at limit - 2: what is sampled there is not fed back.
      const ownBlocks = blocksFor(limitOf(r)) - sharedBlocks(group);
      if (!group.prefix) {
        // What is too long to join waits without a look at what is known of it.
        if (!passing && !((r.n ?? 1) === 1 && shared < JOINING)) break;
        const known = cache.takeKnown(r.promptIds, Math.floor(shared / BLOCK));
        const cached = BLOCK * known.length;
        const left = shared - cached;
        const joins = left > 0 && (r.n ?? 1) === 1 && fresh.length === 0 && mayJoin(left + 1, joined);
        const needsPass = left > 0 && !joins;
        const isFull = !passing || (fresh.length > 0 && rows + left > prefillTokens);
        if ((needsPass && isFull) || cache.free < prefixBlocks - known.length + ownBlocks) {
          for (const block of known) cache.release(block);
          break;
        }
        group.prefix = [...known, ...cache.take(prefixBlocks - known.length)];
        group.cached = cached;
        group.computed = joins ? cached : shared;
        group.prefilled = !needsPass;
        if (joins) {
          joined.rows += left + 1;
          joined.sequences++;
        }
        if (needsPass) {
          rows += left;
          fresh.push(group);
        }
      }
      if (cache.free < ownBlocks) break;
      running.push({
        group,
        sample: group.started,
        own: cache.take(ownBlocks),
        table: null,
        position: group.computed,
        next: r.promptIds[shared],
        ids: [],
        logprobs: [],
        samplingLogprobs: [],
        text: r.stop?.length ? tokenizer.stream({ skipSpecialTokens: r.skipSpecialTokens }) : null,
        seen: '',
        control: r.control?.(group.started) ?? null,
        raw: null,
        stuck: false,
      });
      uneven = true;
      group.started++;
      if (group.started === (r.n ?? 1)) queue.shift();
    }
    if (fresh.length > 0) {
      steps = 0;
      passed = performance.now();
    }
    return fresh;
  }

  /**
   * Whether a sequence of so many rows may join a step in which `joined` do. A thread runs all rows of a sequence, since
   * in each layer later ones read what earlier ones stored; all that join fit into one thread's rows, so that they can be
   * dealt out.
   */
  function mayJoin(rows: number, joined: { readonly rows: number; readonly sequences: number }): boolean {
    const several = joined.rows + rows;
    const [fewest] = device.shares(running.length - joined.sequences + several);
    return several <= Math.min(fewest, JOINING);
  }

  /** Blocks of the prompt that a sample uses as they are: whole ones; where there is one sample, the last one too. */
  function sharedBlocks({ r, shared }: Group): number {
    return (r.n ?? 1) === 1 ? blocksFor(shared) : Math.floor(shared / BLOCK);
  }

  /** Gives sequences whose prompt is ready their block tables; a last block that several would write to is copied. */
  function fork(): void {
    const copies: { from: number; to: number }[] = [];
    const done: Group[] = [];
    for (const s of running) {
      const { group } = s;
      if (s.table || !group.prefilled || !group.prefix) continue;
      const table = group.prefix.slice(0, sharedBlocks(group));
      for (const block of table) cache.retain(block);
      if (table.length < group.prefix.length) copies.push({ from: group.prefix[table.length], to: s.own[0] });
      s.table = [...table, ...s.own];
      group.forked++;
      if (group.forked === (group.r.n ?? 1)) done.push(group);
    }
    cache.copy(copies);
    for (const group of done) dropPrefix(group);
  }

  function dropPrefix(group: Group): void {
    for (const block of group.prefix ?? []) cache.release(block);
    group.prefix = null;
  }

  function releaseSequence(s: Sequence): void {
    if (s.table) cache.remember([...s.group.r.promptIds, ...s.ids].slice(0, s.position), s.table);
    for (const block of s.table ?? s.own) cache.release(block);
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
      rows.push({ next: s.next, position, table });
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
    if (r.promptIds.length + s.ids.length < limitOf(r)) return null;
    return completionOf(s, textOf(r, s.ids), 'length');
  }

  function textOf({ skipSpecialTokens }: GenerateRequest, ids: readonly number[]): string {
    return tokenizer.decode(ids, { skipSpecialTokens });
  }

  return {
    submit(r) {
      checkRequest(r, config, maxLength);
      const shared = r.promptIds.length - 1;
      const fresh = { prefix: null, cached: 0, computed: 0, prefilled: false, started: 0, forked: 0 };
      queue.push({ request: requests, r, shared, ...fresh });
      return requests++;
    },
    cancel(request) {
      const groups = new Set(queue.filter((g) => g.request === request));
      queue = queue.filter((g) => g.request !== request);
      const leaving = running.filter((s) => s.group.request === request);
      running = running.filter((s) => s.group.request !== request);
      uneven = true;
      for (const s of leaving) {
        groups.add(s.group);
        releaseSequence(s);
      }
      for (const group of groups) dropPrefix(group);
    },
    get busy() {
      return queue.length > 0 || running.length > 0;
    },
    get generatedTokens() {
      return generatedTokens;
    },
    maxLength,
    step() {
      const fresh = admit();
      if (fresh.length > 0) prefill(fresh);
      fork();
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
          releaseSequence(s);
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
