// Causal grouped-query attention over packed sequences in float64: the definition that kernels are tested against.
import type { HeadShape } from './layout.js';

/** Calls body for each query: its row, head, key/value head, and the rows it may look at. */
function eachQuery(
  { heads, kvHeads }: HeadShape,
  lengths: readonly number[],
  body: (row: number, head: number, kvHead: number, first: number) => void,
): void {
  let first = 0;
  for (const length of lengths) {
    for (let i = 0; i < length; i++) {
      for (let head = 0; head < heads; head++)
        body(first + i, head, Math.floor(head / (heads / kvHeads)), first);
    }
    first += length;
  }
}

function probabilities(
  shape: HeadShape,
  q: Float64Array,
  k: Float64Array,
  row: number,
  head: number,
  kvHead: number,
  first: number,
): number[] {
  const { heads, kvHeads, headDim } = shape;
  const scores: number[] = [];
  for (let j = first; j <= row; j++) {
    let s = 0;
    for (let d = 0; d < headDim; d++)
      s += q[(row * heads + head) * headDim + d] * k[(j * kvHeads + kvHead) * headDim + d];
    scores.push(s / Math.sqrt(headDim));
  }
  const peak = Math.max(...scores);
  const e = scores.map((s) => Math.exp(s - peak));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}

/** out[rows, heads * headDim] = softmax(q k^T / sqrt(headDim)) v. */
export function attentionReference(
  shape: HeadShape,
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
  lengths: readonly number[],
): Float64Array {
  const { heads, kvHeads, headDim } = shape;
  const out = new Float64Array(q.length);
  eachQuery(shape, lengths, (row, head, kvHead, first) => {
    probabilities(shape, q, k, row, head, kvHead, first).forEach((p, j) => {
      for (let d = 0; d < headDim; d++) {
        out[(row * heads + head) * headDim + d] += p * v[((first + j) * kvHeads + kvHead) * headDim + d];
      }
    });
  });
  return out;
}

export function attentionGradientReference(
  shape: HeadShape,
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
  dout: Float64Array,
  lengths: readonly number[],
): [dq: Float64Array, dk: Float64Array, dv: Float64Array] {
  const { heads, kvHeads, headDim } = shape;
  const [dq, dk, dv] = [new Float64Array(q.length), new Float64Array(k.length), new Float64Array(v.length)];
  eachQuery(shape, lengths, (row, head, kvHead, first) => {
    const p = probabilities(shape, q, k, row, head, kvHead, first);
    const at = (row * heads + head) * headDim;
    const dp = p.map((_, j) => {
      let sum = 0;
      for (let d = 0; d < headDim; d++)
        sum += dout[at + d] * v[((first + j) * kvHeads + kvHead) * headDim + d];
      return sum;
    });
    const mean = p.reduce((sum, x, j) => sum + x * dp[j], 0);
    p.forEach((x, j) => {
      const ds = (x * (dp[j] - mean)) / Math.sqrt(headDim);
      const key = ((first + j) * kvHeads + kvHead) * headDim;
      for (let d = 0; d < headDim; d++) {
        dq[at + d] += ds * k[key + d];
        dk[key + d] += ds * q[at + d];
        dv[key + d] += x * dout[at + d];
      }
    });
  });
  return [dq, dk, dv];
}
