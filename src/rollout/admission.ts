// Who joins the next step: queued requests start where there are slots, blocks of the cache, and time for their prompts.
//
// Blocks for the longest completion are set aside here, so that a running sequence never waits. A prompt that is short and
// has one sample joins the step of those that run: a pass of its own would take all the weights in for a few rows.
import type { Device } from '../compute/device/device.js';
import { BLOCK } from '../compute/op/attention/layout.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { blocksFor, type KvCache } from './kv-cache.js';
import { type GenerateRequest, limitOf } from './request.js';
import { dropPrefix, type Group, type Sequence, sharedBlocks } from './sequence.js';

/** Sequences from which on new ones that need a pass of their own wait: for so many steps, or so long where steps are slow. */
const MANY = 16;
const ADMISSION_STEPS = 6;
const ADMISSION_MS = 20;

/** Rows of prompts that join a step at most: each takes a row of logits, and is attended for on its own. */
const JOINING = 32;

export interface AdmissionOptions {
  readonly device: Device;
  readonly cache: KvCache;
  readonly tokenizer: Tokenizer;
  readonly maxSequences: number;
  readonly maxLength: number;
  /** Most prompt tokens computed in one pass. */
  readonly prefillTokens: number;
}

export interface Admission {
  /** Whether anything is queued. */
  readonly waits: boolean;
  add(request: number, r: GenerateRequest): void;
  /** Takes a request's samples that have not started out of the queue. */
  remove(request: number): void;
  /** Starts queued samples while there is room, as more of those that run; gives the groups whose prompt needs a pass now. */
  admit(running: Sequence[]): Group[];
}

export function createAdmission({ device, cache, tokenizer, ...o }: AdmissionOptions): Admission {
  let queue: Group[] = [];
  /** Steps since the last pass for prompts, and when that was. */
  let steps = 0;
  let passed = 0;

  /** Passes for prompts hold up the samples that run; where many do, prompts wait a few steps and come together. */
  function mayPass(running: number): boolean {
    return running < MANY || ++steps >= ADMISSION_STEPS || performance.now() - passed >= ADMISSION_MS;
  }

  /**
   * Whether a sequence of so many rows may join a step in which `joined` do. A thread runs all rows of a sequence, since
   * in each layer later ones read what earlier ones stored; all that join fit into one thread's rows, so that they can be
   * dealt out.
   */
  function mayJoin(
    rows: number,
    joined: { readonly rows: number; readonly sequences: number },
    running: number,
  ): boolean {
    const several = joined.rows + rows;
    const [fewest] = device.shares(running - joined.sequences + several);
    return several <= Math.min(fewest, JOINING);
  }

  /** A sample with the blocks that it will write to. */
  function start(group: Group, ownBlocks: number): Sequence {
    const { r, shared } = group;
    return {
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
    };
  }

  return {
    get waits() {
      return queue.length > 0;
    },
    add(request, r) {
      const fresh = { prefix: null, cached: 0, computed: 0, prefilled: false, started: 0, forked: 0 };
      queue.push({ request, r, shared: r.promptIds.length - 1, ...fresh });
    },
    remove(request) {
      for (const group of queue) if (group.request === request) dropPrefix(cache, group);
      queue = queue.filter((g) => g.request !== request);
    },
    admit(running) {
      const fresh: Group[] = [];
      const passing = queue.length > 0 && mayPass(running.length);
      let rows = 0;
      const joined = { rows: 0, sequences: 0 };
      while (queue.length > 0 && running.length < o.maxSequences) {
        const group = queue[0];
        const { r, shared } = group;
        const prefixBlocks = blocksFor(shared);
        // The last token is written at most at limit - 2: what is sampled there is not fed back.
        const ownBlocks = blocksFor(limitOf(r, o.maxLength)) - sharedBlocks(group);
        if (!group.prefix) {
          // What is too long to join waits without a look at what is known of it.
          if (!passing && !((r.n ?? 1) === 1 && shared < JOINING)) break;
          const known = cache.takeKnown(r.promptIds, Math.floor(shared / BLOCK));
          const cached = BLOCK * known.length;
          const left = shared - cached;
          const alone = (r.n ?? 1) === 1 && fresh.length === 0;
          const joins = left > 0 && alone && mayJoin(left + 1, joined, running.length);
          const needsPass = left > 0 && !joins;
          const isFull = !passing || (fresh.length > 0 && rows + left > o.prefillTokens);
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
        running.push(start(group, ownBlocks));
        group.started++;
        if (group.started === (r.n ?? 1)) queue.shift();
      }
      if (fresh.length > 0) {
        steps = 0;
        passed = performance.now();
      }
      return fresh;
    },
  };
}
