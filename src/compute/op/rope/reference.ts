// Rotary embedding in float64: the definition that kernels are tested against.

/**
 * Rotates x[rows, heads * headDim] by each row's position, rotate-half convention; direction -1 turns back. Frequencies
 * are divided by `factors`.
 */
export function ropeReference(
  x: Float64Array,
  positions: readonly number[],
  headDim: number,
  theta: number,
  direction = 1,
  factors: readonly number[] | null = null,
): Float64Array {
  const half = headDim / 2;
  const width = x.length / positions.length;
  return x.map((value, i) => {
    const position = positions[Math.floor(i / width)];
    const inHead = i % headDim;
    const frequency = theta ** ((-2 * (inHead % half)) / headDim) / (factors?.[inHead % half] ?? 1);
    const angle = direction * position * frequency;
    const other = inHead < half ? -x[i + half] : x[i - half];
    return value * Math.cos(angle) + other * Math.sin(angle);
  });
}
