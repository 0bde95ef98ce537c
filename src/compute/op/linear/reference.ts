// The linear layer in float64: the definition that kernels are tested against.

/** y[rows, n] = x[rows, k] w[n, k]^T. */
export function linearReference(
  x: Float64Array,
  w: Float64Array,
  rows: number,
  k: number,
  n: number,
): Float64Array {
  const y = new Float64Array(rows * n);
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let i = 0; i < k; i++) sum += x[r * k + i] * w[j * k + i];
      y[r * n + j] = sum;
    }
  }
  return y;
}

/** Gradients of x and w from dy. */
export function linearGradientReference(
  x: Float64Array,
  w: Float64Array,
  dy: Float64Array,
  rows: number,
  k: number,
  n: number,
): [dx: Float64Array, dw: Float64Array] {
  const dx = new Float64Array(rows * k);
  const dw = new Float64Array(n * k);
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < n; j++) {
      const d = dy[r * n + j];
      for (let i = 0; i < k; i++) {
        dx[r * k + i] += d * w[j * k + i];
        dw[j * k + i] += d * x[r * k + i];
      }
    }
  }
  return [dx, dw];
}

/** C[m, n] = A B with B[k, n]; A is [m, k] by rows or [k, m] by columns, `lda` elements from row to row. */
export function matmulReference(
  a: Float64Array,
  b: Float64Array,
  m: number,
  k: number,
  n: number,
  layout: 'rows' | 'columns',
  lda: number,
): Float64Array {
  const c = new Float64Array(m * n);
  for (let r = 0; r < m; r++) {
    for (let i = 0; i < k; i++) {
      const x = layout === 'rows' ? a[r * lda + i] : a[i * lda + r];
      for (let j = 0; j < n; j++) c[r * n + j] += x * b[i * n + j];
    }
  }
  return c;
}
