// Single-precision arithmetic in plain JavaScript: what each operation means for one lane.
import type { Op, ValueType } from './ir.js';

const f64 = new Float64Array(1);
const words = new Int32Array(f64.buffer);
const f32 = new Float32Array(f64.buffer);
const LOW = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1 ? 0 : 1;
const HIGH = 1 - LOW;

/**
 * a*b+c of three f32, rounded once. The product is exact in f64; the sum is rounded to odd there (an inexact sum gets
 * the last bit 1), after which rounding to f32 gives what the exact sum would (Boldo and Melquiond 2008).
 */
export function fma32(a: number, b: number, c: number): number {
  const product = a * b;
  const sum = product + c;
  const second = sum - product;
  const error = product - (sum - second) + (c - second);
  if (error > 0 || error < 0) {
    f64[0] = sum;
    if ((words[LOW] & 1) === 0) {
      if (error > 0 === sum > 0) words[LOW] |= 1;
      else {
        // An even number minus one in two words.
        if (words[LOW] === 0) words[HIGH]--;
        words[LOW]--;
      }
      return Math.fround(f64[0]);
    }
  }
  return Math.fround(sum);
}

/** To the nearest integer, ties to even, the sign kept. */
export function nearest(x: number): number {
  if (!(Math.abs(x) < 2 ** 23)) return x;
  const rounded = Math.abs(x) + 2 ** 52 - 2 ** 52;
  return x < 0 || Object.is(x, -0) ? -rounded : rounded;
}

/** Truncates and saturates; NaN gives 0. */
export function toInt(x: number): number {
  if (Number.isNaN(x)) return 0;
  return Math.max(-(2 ** 31), Math.min(2 ** 31 - 1, Math.trunc(x))) | 0;
}

type Lane = (a: number, b: number, c: number) => number;

// Not Math.min and Math.max: NaN gives b, and so do zeros of either sign.
const min: Lane = (a, b) => (a < b ? a : b);
const max: Lane = (a, b) => (a > b ? a : b);

const comparisons: Partial<Record<Op, Lane>> = {
  lt: (a, b) => (a < b ? 1 : 0),
  le: (a, b) => (a <= b ? 1 : 0),
  eq: (a, b) => (a === b ? 1 : 0),
};

const floats: Partial<Record<Op, Lane>> = {
  ...comparisons,
  add: (a, b) => Math.fround(a + b),
  sub: (a, b) => Math.fround(a - b),
  mul: (a, b) => Math.fround(a * b),
  div: (a, b) => Math.fround(a / b),
  min,
  max,
  neg: (a) => -a,
  abs: Math.abs,
  sqrt: (a) => Math.fround(Math.sqrt(a)),
  floor: Math.floor,
  nearest,
  fma: fma32,
  toInt,
  bitsToInt: (a) => {
    f32[0] = a;
    return words[0];
  },
};

const ints: Partial<Record<Op, Lane>> = {
  ...comparisons,
  add: (a, b) => (a + b) | 0,
  sub: (a, b) => (a - b) | 0,
  mul: Math.imul,
  min,
  max,
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  not: (a) => (a === 0 ? 1 : 0),
  toFloat: (a) => Math.fround(a),
  bitsToFloat: (a) => {
    words[0] = a;
    return f32[0];
  },
};

/** The operation on one lane of these operands; undefined for operations that are not lane by lane. */
export function laneOperation(op: Op, operand: ValueType, fusedMulAdd: boolean): Lane | undefined {
  if (op === 'mulAdd') return fusedMulAdd ? fma32 : (a, b, c) => Math.fround(Math.fround(a * b) + c);
  return operand === 'f32' || operand === 'vec' ? floats[op] : ints[op];
}
