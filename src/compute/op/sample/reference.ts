// The sampler in float64, by sorting: the definition that the kernel is tested against.
import type { Sampling } from './sample.js';

/** softmax(logits / temperature). */
export function softmaxReference(logits: readonly number[], temperature: number): number[] {
  const peak = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const e = logits.map((x) => Math.exp((x - peak) / temperature));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}

/**
 * The distribution a token is drawn from: temperature, then top-k, then top-p over what is left, then min-p, then
 * normalised. Tokens tied with the last one that is kept are kept too.
 */
export function truncatedReference(logits: readonly number[], s: Omit<Sampling, 'random'>): number[] {
  const p = softmaxReference(logits, s.temperature);
  const order = p.map((_, i) => i).sort((a, b) => p[b] - p[a]);
  const keepFrom = (kept: number[], count: number) => kept.filter((i) => p[i] >= p[kept[count - 1]]);
  let kept = order;
  if (s.topK > 0 && s.topK < p.length) kept = keepFrom(kept, s.topK);
  if (s.topP < 1) {
    const all = kept.reduce((sum, i) => sum + p[i], 0);
    let mass = 0;
    const enough = kept.findIndex((i) => {
      mass += p[i];
      return mass >= s.topP * all;
    });
    if (enough >= 0) kept = keepFrom(kept, enough + 1);
  }
  if (s.minP > 0) kept = kept.filter((i) => p[i] >= s.minP * p[order[0]]);
  const total = kept.reduce((sum, i) => sum + p[i], 0);
  const held = new Set(kept);
  return p.map((x, i) => (held.has(i) ? x / total : 0));
}

/** The likeliest token, the first of equals. */
export function greedyReference(logits: readonly number[]): number {
  return logits.indexOf(logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY));
}
