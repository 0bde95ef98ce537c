// Sums over rows, cut by columns: one item owns a chunk of columns and adds every row in order, whatever the threads.
import type { Builder, I32 } from '../kernel/builder.js';

/** Columns of one item: a cache line, and a multiple of every target's lanes. */
export const COLUMN_CHUNK = 16;

/** Calls body for each vector of columns of the items; n columns in all. */
export function columnChunks(b: Builder, n: I32, body: (column: I32, count: I32 | undefined) => void): void {
  b.items((item) => {
    const start = b.mul(item, COLUMN_CHUNK);
    const width = b.min(b.sub(n, start), COLUMN_CHUNK);
    b.vectors(width, (i, count) => body(b.add(start, i), count));
  });
}
