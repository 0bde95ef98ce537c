// Token log-probability and entropy in float64: the definition that kernels are tested against.

function softmaxRow(
  logits: Float64Array,
  row: number,
  n: number,
  temperature: number,
): { p: Float64Array; logSum: number; peak: number } {
  const z = logits.slice(row * n, (row + 1) * n).map((x) => x / temperature);
  const peak = z.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const e = z.map((x) => Math.exp(x - peak));
  const sum = e.reduce((a, b) => a + b, 0);
  return { p: e.map((x) => x / sum), logSum: Math.log(sum), peak };
}

/** logprob[rows] of the tokens, then entropy[rows]: one array of both. */
export function tokenLogprobReference(
  logits: Float64Array,
  tokens: readonly number[],
  n: number,
  temperature: number,
): Float64Array {
  const out = new Float64Array(2 * tokens.length);
  tokens.forEach((token, row) => {
    const { p, logSum, peak } = softmaxRow(logits, row, n, temperature);
    out[row] = logits[row * n + token] / temperature - peak - logSum;
    out[tokens.length + row] = -p.reduce((sum, x) => sum + (x > 0 ? x * Math.log(x) : 0), 0);
  });
  return out;
}

/** The gradient of the logits from those of logprob and entropy, in the layout of `tokenLogprobReference`. */
export function tokenLogprobGradientReference(
  logits: Float64Array,
  tokens: readonly number[],
  n: number,
  temperature: number,
  dout: Float64Array,
): Float64Array {
  const d = new Float64Array(logits.length);
  tokens.forEach((token, row) => {
    const { p } = softmaxRow(logits, row, n, temperature);
    const entropy = -p.reduce((sum, x) => sum + (x > 0 ? x * Math.log(x) : 0), 0);
    const g = dout[row];
    const h = dout[tokens.length + row];
    for (let i = 0; i < n; i++) {
      const log = p[i] > 0 ? Math.log(p[i]) : 0;
      d[row * n + i] = (g * ((i === token ? 1 : 0) - p[i]) - h * p[i] * (log + entropy)) / temperature;
    }
  });
  return d;
}
