// The 16-bit formats of model files, bfloat16 and IEEE float16, widened to float32 exactly.

/** Widens 16-bit values into float32 memory of the same length. Every value, subnormals and NaN too, is exact. */
export function widen(format: 'BF16' | 'F16', from: Uint16Array, into: Float32Array): void {
  const bits = new Uint32Array(into.buffer, into.byteOffset, into.length);
  if (format === 'BF16') for (let i = 0; i < from.length; i++) bits[i] = from[i]! << 16;
  else for (let i = 0; i < from.length; i++) bits[i] = halfTable()[from[i]!]!;
}

let table: Uint32Array | undefined;

// All 65,536 values, made on first use: a look-up is faster than the arithmetic.
function halfTable(): Uint32Array {
  if (table) return table;
  table = new Uint32Array(65536);
  const value = new Float32Array(1);
  const valueBits = new Uint32Array(value.buffer);
  for (let half = 0; half < 65536; half++) {
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    const sign = (half & 0x8000) << 16;
    if (exponent === 31) table[half] = sign | 0x7f800000 | (fraction << 13);
    else {
      value[0] = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
      table[half] = sign | valueBits[0]!;
    }
  }
  return table;
}
