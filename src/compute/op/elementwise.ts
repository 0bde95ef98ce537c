// What the element-wise operations share: items are chunks of a flat tensor, so that small tensors stay on one thread.
import type { Builder, I32 } from '../kernel/builder.js';

/** Elements in one item of an element-wise kernel: a multiple of every target's lanes. */
export const CHUNK = 1024;

/** Covers a flat tensor of n elements by chunks; body gets the element index and the lane count of the tail. */
export function chunks(b: Builder, n: I32, body: (index: I32, count: I32 | undefined) => void): void {
  b.items((item) => {
    const start = b.mul(item, CHUNK);
    const length = b.min(b.sub(n, start), CHUNK);
    b.vectors(length, (i, count) => body(b.add(start, i), count));
  });
}

/** Items that n elements need. */
export function chunkCount(n: number): number {
  return Math.ceil(n / CHUNK);
}

/** Fewest items worth waking another thread for. */
export const CHUNK_GRAIN = 8;
