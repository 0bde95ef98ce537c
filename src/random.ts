// Counter-based random numbers: the same key and counter give the same numbers, whatever was drawn before.
// Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (2011), Philox 4x32-10.

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** Upper 32 bits of the 64-bit product of two unsigned 32-bit numbers. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 65536) + Math.floor(carry / 65536)) >>> 0;
}

/** Four unsigned 32-bit numbers for a counter of four words under a key of two; words are taken modulo 2^32. */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter.map((c) => c >>> 0) as [number, number, number, number];
  let k0 = key[0] >>> 0;
  let k1 = key[1] >>> 0;
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(M0, c0);
    const low0 = Math.imul(M0, c0) >>> 0;
    const high1 = multiplyHigh(M1, c2);
    const low1 = Math.imul(M1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** Four unsigned 32-bit numbers keyed by a seed (up to 2^53) and up to three words. */
export function philox(seed: number, a: number, b: number, c: number): [number, number, number, number] {
  return philox4x32([a, b, c, 0], [seed, Math.floor(seed / 4294967296)]);
}

/** A number in [0, 1) with 24 bits, so that it is exact in float32. */
export function uniform(seed: number, a: number, b: number, c: number): number {
  return (philox(seed, a, b, c)[0] >>> 8) / 16777216;
}

/** The numbers 0..n-1 in an order drawn by (seed, stream). Fisher and Yates. */
export function permutation(n: number, seed: number, stream: number): Int32Array {
  const order = Int32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor((philox(seed, i, stream, 0x5f17)[0] / 4294967296) * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
