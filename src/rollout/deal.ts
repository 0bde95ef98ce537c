// How sequences are dealt out to the threads of a decoding step, of which each runs as many neighbouring rows.
import { refuse } from '../errors.js';

/** A sequence's part in a step. */
export interface Hand {
  /** Rows that follow one another in the sequence. */
  readonly rows: number;
  /** Keys and values before the first of them. */
  readonly position: number;
}

/**
 * The sequences in an order in which no thread's share cuts through one, and the threads read about equally many keys and
 * values.
 * @param shares rows of each thread in order, all rows together
 * @param handOf its part, for each; where several rows are one sequence's, all such rows fit into the smallest share
 * @throws RetortError bad-kernel where they do not
 */
export function deal<T>(
  sequences: readonly T[],
  shares: readonly number[],
  handOf: (sequence: T) => Hand,
): T[] {
  const parts = shares.map((room) => ({ room, load: 0, dealt: [] as T[] }));
  const hands = sequences.map((sequence) => {
    const { rows, position } = handOf(sequence);
    return { sequence, rows, position };
  });
  // Those of several rows first, while there is room for them everywhere; then the longest, each to the thread that has
  // least so far.
  hands.sort((a, b) => b.rows - a.rows || b.position - a.position);
  for (const { sequence, rows, position } of hands) {
    let least: (typeof parts)[number] | undefined;
    for (const part of parts) if (rows <= part.room && (!least || part.load < least.load)) least = part;
    if (!least) throw refuse('bad-kernel', 'rows of a sequence', rows, 'no thread has room for them');
    least.dealt.push(sequence);
    least.room -= rows;
    least.load += rows * (position + rows);
  }
  return parts.flatMap(({ dealt }) => dealt);
}
