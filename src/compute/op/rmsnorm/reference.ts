// RMSNorm in float64: the definition that kernels are tested against.

/** y = x / sqrt(mean(x^2) + eps) * w, row by row. */
export function rmsnormReference(x: Float64Array, w: Float64Array, eps: number): Float64Array {
  const n = w.length;
  return x.map((value, i) => {
    const start = i - (i % n);
    let sum = 0;
    for (let j = 0; j < n; j++) sum += x[start + j] ** 2;
    return (value / Math.sqrt(sum / n + eps)) * w[i % n];
  });
}

export function rmsnormGradientReference(
  x: Float64Array,
  w: Float64Array,
  dy: Float64Array,
  eps: number,
): [dx: Float64Array, dw: Float64Array] {
  const n = w.length;
  const dx = new Float64Array(x.length);
  const dw = new Float64Array(n);
  for (let start = 0; start < x.length; start += n) {
    let sum = 0;
    let dot = 0;
    for (let j = 0; j < n; j++) {
      sum += x[start + j] ** 2;
      dot += x[start + j] * w[j] * dy[start + j];
    }
    const scale = 1 / Math.sqrt(sum / n + eps);
    for (let j = 0; j < n; j++) {
      dx[start + j] = scale * (w[j] * dy[start + j] - (x[start + j] * scale * scale * dot) / n);
      dw[j] += dy[start + j] * x[start + j] * scale;
    }
  }
  return [dx, dw];
}
