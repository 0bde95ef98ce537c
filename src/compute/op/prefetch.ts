// What kernels ask for ahead of use, where the hardware does not see what comes next: rows with gaps between them.
import type { Buffer, Builder, I32, Int } from '../kernel/builder.js';

/** Elements of a cache line. */
export const LINE = 16;

/** Rows ahead of the one at work: about what memory takes to answer. */
export const ROWS_AHEAD = 2;

/** Asks for n elements from index `from` on. */
export function prefetchAll(b: Builder, buffer: Buffer, from: I32, n: Int): void {
  b.loop(0, n, LINE, (i) => b.prefetch(buffer, b.add(from, i)));
}

/** The same for an n that is known, without a loop. */
export function prefetchNear(b: Builder, buffer: Buffer, from: I32, n: number): void {
  for (let element = 0; element < n; element += LINE) b.prefetch(buffer, from, element);
}

/** Asks for the lines of the vector at index `at`. */
export function prefetchVector(b: Builder, buffer: Buffer, at: I32): void {
  prefetchNear(b, buffer, at, b.lanes);
}
