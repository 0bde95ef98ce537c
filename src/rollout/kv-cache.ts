// The KV cache: blocks of keys and values for every layer, counted by their users, so that samples share a prompt.

import type { Device } from '../compute/device/device.js';
import type { KvBlocks } from '../compute/op/attention/attention.js';
import { BLOCK, blockSizes, copyBlocksKernel } from '../compute/op/attention/layout.js';
import type { Tensor } from '../compute/tensor.js';
import { RetortError } from '../errors.js';
import type { Llama } from '../model/llama.js';

export interface KvCache {
  readonly layers: readonly KvBlocks[];
  /** Blocks that nobody uses. */
  readonly free: number;
  /** A block with one user. @throws RetortError out-of-memory where none is free; ask `free` first */
  take(): number;
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

export function createKvCache({ device, config, shape }: Llama, blocks: number): KvCache {
  const sizes = blockSizes(device.target, shape);
  const layers = Array.from({ length: config.numHiddenLayers }, () => {
    const keys = device.tensor('kvCache', [blocks, sizes.keys]);
    const values = device.tensor('kvCache', [blocks, sizes.values]);
    // What is past a sequence's end is read, and weighed with 0: it must be finite.
    for (const t of [keys, values]) device.fill(t, 0);
    return { keys, values };
  });
  const users = new Int32Array(blocks);
  const spare = Array.from({ length: blocks }, (_, i) => blocks - 1 - i);
  return {
    layers,
    get free() {
      return spare.length;
    },
    take() {
      const block = spare.pop();
      if (block === undefined) throw new RetortError('out-of-memory', 'the KV cache has no free block');
      users[block] = 1;
      return block;
    },
    retain(block) {
      users[block]++;
    },
    release(block) {
      if (users[block] < 1)
        throw new RetortError('bad-kernel', `KV block ${block} released more often than used`);
      if (--users[block] === 0) spare.push(block);
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

function copyBlocks(device: Device, blocks: Tensor, from: Tensor, to: Tensor, size: number): void {
  device.launch(device.kernel('copy-blocks', copyBlocksKernel), from.size, [blocks, from, to], [size], 8);
}
