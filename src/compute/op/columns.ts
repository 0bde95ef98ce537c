// Sums over rows, cut by columns: one item owns a chunk of columns and adds every row in order, whatever the threads.
import type { Buffer, Builder, I32, Vec } from '../kernel/builder.js';

/** Columns of one item: a cache line, and a multiple of every target's lanes. */
export const COLUMN_CHUNK = 16;
/** Vectors of columns that are summed up side by side: of each row so many neighbouring lines are read. */
const VECTORS = 4;

/** A vector of columns: the first, and how many there are where that is not a whole vector. */
export interface Columns {
  readonly at: I32;
  readonly count?: I32;
}

/** Calls body for the columns of the items, several vectors at once where there are so many; n columns in all. */
export function columnChunks(b: Builder, n: I32, body: (columns: readonly Columns[]) => void): void {
  const start = b.mul(b.begin, COLUMN_CHUNK);
  const end = b.min(n, b.mul(b.end, COLUMN_CHUNK));
  const width = VECTORS * b.lanes;
  const whole = b.sub(end, b.rem(b.sub(end, start), width));
  b.loop(start, whole, width, (at) =>
    body(Array.from({ length: VECTORS }, (_, v) => ({ at: b.add(at, v * b.lanes) }))),
  );
  b.vectors(b.sub(end, whole), (i, count) => body([{ at: b.add(whole, i), count }]));
}

/** Adds up columns of `into`: `each` runs over what is summed, and says for each what a column's sum becomes. */
export function columnSums(
  b: Builder,
  n: I32,
  into: Buffer<'f32'>,
  each: (add: (next: (columns: Columns, sum: Vec) => Vec) => void) => void,
): void {
  columnChunks(b, n, (columns) => {
    const sums = columns.map(({ at, count }) => b.variable(b.loadVec(into, at, count)));
    each((next) => {
      columns.forEach((some, i) => {
        sums[i].set(next(some, sums[i].get()));
      });
    });
    columns.forEach(({ at, count }, i) => {
      b.store(into, at, sums[i].get(), count);
    });
  });
}
