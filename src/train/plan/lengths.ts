// Lengths of completions that a rehearsal makes up: as if each token were the last one with the same chance.
import { uniform } from '../../random.js';
import type { TextStream } from '../../text/stream.js';

/** What a staged completion's text ends with: no tokenizer's text holds it. */
export const STAGED_END = '\u0000staged end';

/** The chance to go on after each token: the mean of lengths cut at `most` is (1 - chance^most) / (1 - chance). */
function chanceFor(mean: number, most: number): number {
  let [low, high] = [0, 1];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if ((1 - middle ** most) / (1 - middle) < mean) low = middle;
    else high = middle;
  }
  return low;
}

/** Lengths of at least 1 token, `most` at most, with about that mean; the same ones each time. */
export function drawLengths(mean: number, most: number): () => number {
  const perToken = Math.log(mean >= most ? 1 : chanceFor(mean, most));
  let drawn = 0;
  return () => {
    if (perToken === 0) return most;
    const length = Math.ceil(Math.log(1 - uniform(0, drawn++, 0, 0)) / perToken);
    return Math.min(most, Math.max(1, length));
  };
}

/** Text streams that say `STAGED_END` when the completion has got its length; a tokenizer's `stream`. */
export function stagedStream(nextLength: () => number): () => TextStream {
  return () => {
    let left = nextLength();
    return { push: () => (--left === 0 ? STAGED_END : ''), end: () => '' };
  };
}
