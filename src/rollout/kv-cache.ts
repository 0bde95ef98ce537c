// The KV cache: blocks of keys and values for every layer, counted by their users, so that samples share a prompt.

import type { Device } from '../compute/device/device.js';
import { type Dtype, dtypeOf, elementOf } from '../compute/kernel/bfloat16.js';
import {
  type AttentionPlan,
  attend,
  type KvBlocks,
  storeKeysValues,
} from '../compute/op/attention/attention.js';
import { BLOCK, blockSizes, copyBlocksKernel } from '../compute/op/attention/layout.js';
import type { Tensor } from '../compute/tensor.js';
import { RetortError, refuse } from '../errors.js';
import type { Attend, Llama } from '../model/llama.js';
import { createPrefixTree } from './prefix-tree.js';

export interface KvCache {
  readonly layers: readonly KvBlocks[];
  /** Blocks that nobody uses; what they hold of earlier sequences is given up when they are taken. */
  readonly free: number;
  /**
   * Blocks with one user each, ascending: a sequence's blocks are read in order, and memory is read fastest forwards.
   * @throws RetortError out-of-memory where too few are free; ask `free` first
   */
  take(count: number): number[];
  /**
   * The blocks that hold the longest known beginning of the tokens, at most `most` of them, with one more user each.
   * None where sequences are not remembered.
   */
  takeKnown(ids: readonly number[], most: number): number[];
  /** Remembers the whole blocks of tokens that are in the cache. */
  remember(ids: readonly number[], table: readonly number[]): void;
  /** One more user. */
  retain(block: number): void;
  /** One user fewer. */
  release(block: number): void;
  /** Copies the content of blocks, in every layer. */
  copy(pairs: readonly { from: number; to: number }[]): void;
  /** Gives the memory back. */
  close(): void;
}

/** Blocks that hold n positions. */
export function blocksFor(positions: number): number {
  return Math.ceil(positions / BLOCK);
}

/** Bytes of one block in all layers. */
export function blockBytes({ device, config, shape }: Llama, dtype: Dtype): number {
  const { keys, values } = blockSizes(device.target, shape, dtype);
  return 4 * config.numHiddenLayers * (keys + values);
}

/**
 * Blocks for all sequences, or as many as the bytes hold.
 * @throws RetortError bad-input where they do not hold one sequence
 */
export function blocksWithin(
  bytes: number | undefined,
  llama: Llama,
  dtype: Dtype,
  maxSequences: number,
  maxLength: number,
): number {
  const perSequence = blocksFor(maxLength);
  const wanted = (maxSequences + 2) * perSequence;
  if (bytes === undefined) return wanted;
  const blocks = Math.min(wanted, Math.floor(bytes / blockBytes(llama, dtype)));
  // A prompt's last block is there twice when a sample starts.
  if (blocks > perSequence) return blocks;
  const needed = Math.ceil(((perSequence + 1) * blockBytes(llama, dtype)) / 2 ** 20);
  throw refuse(
    'bad-input',
    'bytes of keys and values',
    bytes,
    `one sequence of ${maxLength} tokens takes ${needed} MiB: give more, or a shorter context`,
  );
}

/** @param remembers whether later sequences find what earlier ones began with; void once the weights change */
export function createKvCache(
  { device, config, shape }: Llama,
  dtype: Dtype,
  blocks: number,
  { remembers = false }: { readonly remembers?: boolean } = {},
): KvCache {
  const sizes = blockSizes(device.target, shape, dtype);
  const layers = Array.from({ length: config.numHiddenLayers }, () => {
    // What is past a sequence's end has no say, whatever it is: attention does not read values there, and takes -Infinity
    // for the scores of keys there.
    const keys = device.tensor('kvCache', [blocks, sizes.keys], elementOf(dtype));
    const values = device.tensor('kvCache', [blocks, sizes.values], elementOf(dtype));
    return { keys, values };
  });
  const users = new Int32Array(blocks);
  const spare = Array.from({ length: blocks }, (_, i) => blocks - 1 - i);
  const tree = remembers ? createPrefixTree() : null;
  /** Blocks that nobody uses and the tree holds. */
  let kept = 0;
  const isUsed = (block: number) => users[block] > 0;

  function use(block: number): void {
    if (users[block] === 0) kept--;
    users[block]++;
  }

  return {
    layers,
    get free() {
      return spare.length + kept;
    },
    take(count) {
      if (count > spare.length + kept) {
        throw refuse('out-of-memory', 'KV blocks asked for', count, `${spare.length + kept} are free`);
      }
      while (spare.length < count) {
        spare.push(tree?.forget(isUsed) as number);
        kept--;
      }
      const taken = spare.splice(spare.length - count).sort((a, b) => a - b);
      for (const block of taken) users[block] = 1;
      return taken;
    },
    takeKnown(ids, most) {
      const known = tree?.find(ids, most) ?? [];
      for (const block of known) use(block);
      return known;
    },
    remember(ids, table) {
      tree?.remember(ids, table);
    },
    retain: use,
    release(block) {
      if (users[block] < 1)
        throw new RetortError('bad-kernel', `KV block ${block} released more often than used`);
      if (--users[block] > 0) return;
      if (tree?.has(block)) kept++;
      else spare.push(block);
    },
    copy(pairs) {
      if (pairs.length === 0) return;
      const mark = device.mark();
      const from = device.upload(
        pairs.map((p) => p.from),
        'i32',
      );
      const to = device.upload(
        pairs.map((p) => p.to),
        'i32',
      );
      for (const { keys, values } of layers) {
        copyBlocks(device, keys, from, to, sizes.keys);
        copyBlocks(device, values, from, to, sizes.values);
      }
      device.rewind(mark);
    },
    close() {
      for (const { keys, values } of layers) {
        device.free(keys);
        device.free(values);
      }
    },
  };
}

/** Attention over the cache: the rows' keys and values go into their blocks first. */
export function attendCached({ device, shape }: Llama, cache: KvCache, plan: AttentionPlan): Attend {
  return (layer, qkv) => {
    storeKeysValues(device, shape, qkv, plan.slots, cache.layers[layer]);
    return attend(device, shape, qkv, cache.layers[layer], plan).out;
  };
}

function copyBlocks(device: Device, blocks: Tensor, from: Tensor, to: Tensor, size: number): void {
  const dtype = dtypeOf(blocks);
  const kernel = device.kernel(`copy-blocks ${dtype}`, (t) => copyBlocksKernel(t, dtype));
  device.launch(kernel, from.size, [blocks, from, to], [size], 8);
}
