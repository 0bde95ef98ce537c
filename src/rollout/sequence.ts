// A request and its samples under way in the engine, and the blocks of the KV cache that they hold.
import { BLOCK } from '../compute/op/attention/layout.js';
import type { TextStream } from '../text/stream.js';
import { blocksFor, type KvCache } from './kv-cache.js';
import type { GenerateRequest } from './request.js';
import type { TokenControl } from './steer.js';

/** A request under way: its prompt's blocks are held until every sample has started. */
export interface Group {
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

export interface Sequence {
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
export type ReadySequence = Sequence & { table: number[] };

/** Rows of a sequence's next step: what of its prompt is missing in the cache, and the token from which it goes on. */
export function rowsOf({ group, position }: Sequence): number {
  return Math.max(0, group.shared - position) + 1;
}

/** Blocks of the prompt that a sample uses as they are: whole ones; where there is one sample, the last one too. */
export function sharedBlocks({ r, shared }: Group): number {
  return (r.n ?? 1) === 1 ? blocksFor(shared) : Math.floor(shared / BLOCK);
}

/** Gives sequences whose prompt is ready their block tables; a last block that several would write to is copied. */
export function fork(cache: KvCache, running: readonly Sequence[]): void {
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
  for (const group of done) dropPrefix(cache, group);
}

export function dropPrefix(cache: KvCache, group: Group): void {
  for (const block of group.prefix ?? []) cache.release(block);
  group.prefix = null;
}

/** Gives the blocks of a sequence back that has ended or is dropped; what it computed is remembered. */
export function releaseSequence(cache: KvCache, s: Sequence): void {
  if (s.table) cache.remember([...s.group.r.promptIds, ...s.ids].slice(0, s.position), s.table);
  for (const block of s.table ?? s.own) cache.release(block);
}
