// The 16-bit formats of model files, bfloat16 and IEEE float16: widened to float32 exactly, narrowed to the nearest.

/** Widens 16-bit values into float32 memory of the same length. Every value, subnormals and NaN too, is exact. */
export function widen(format: 'BF16' | 'F16', from: Uint16Array, into: Float32Array): void {
  const bits = new Uint32Array(into.buffer, into.byteOffset, into.length);
  if (format === 'BF16') for (let i = 0; i < from.length; i++) bits[i] = from[i]! << 16;
  else for (let i = 0; i < from.length; i++) bits[i] = halfTable()[from[i]!]!;
}

/** The value of one float16. */
export function widenHalf(half: number): number {
  one[0] = halfTable()[half]!;
  return oneValue[0]!;
}

const one = new Uint32Array(1);
const oneValue = new Float32Array(one.buffer);

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

/**
 * float32 as 16-bit values: the nearest, ties to even; what is too large becomes infinite, NaN stays NaN.
 * A new array, one value for each.
 */
export function narrow(format: 'BF16' | 'F16', values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const into = new Uint16Array(values.length);
  const one = format === 'BF16' ? bfloat16Of : float16Of;
  for (let i = 0; i < bits.length; i++) into[i] = one(bits[i]!);
  return into;
}

function bfloat16Of(bits: number): number {
  const rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits >>> 16) + ((bits & 0xffff) + ((bits >>> 16) & 1) > 0x8000 ? 1 : 0);
}

function float16Of(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) return sign | 0x7e00;
  // Halfway between 65504 and the next power of two: from there on the nearest is infinity.
  if (rest >= 0x477ff000) return sign | 0x7c00;
  const exponent = rest >>> 23;
  // Below the smallest normal float16 the steps are 2^-24, however small the value.
  const shift = exponent >= 113 ? 13 : Math.min(126 - exponent, 25);
  const fraction = exponent >= 113 ? rest - (112 << 23) : (rest & 0x7fffff) | 0x800000;
  const kept = fraction >>> shift;
  const lost = fraction & ((1 << shift) - 1);
  const tie = 1 << (shift - 1);
  return sign | (kept + (lost > tie || (lost === tie && kept & 1) ? 1 : 0));
}
