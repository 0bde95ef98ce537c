// Functions that kernels compute by polynomials, on scalars and vectors alike. Denormals in and out are right.
import type { Builder, Value } from './builder.js';

/**
 * The body of each function is written once, as if for vectors; the builder emits by the type that its operand has
 * when it runs.
 */
type Floating = 'f32' | 'vec';
type V = Value<'vec'>;

function constant(b: Builder, like: V, value: number): V {
  return (like.type as Floating) === 'f32' ? (b.float(value) as unknown as V) : b.splat(value);
}

function intConstant(b: Builder, like: V, value: number): Value<'ivec'> {
  return (like.type as Floating) === 'f32' ? (b.int(value) as unknown as Value<'ivec'>) : b.splatInt(value);
}

/** coefficients[0] + x coefficients[1] + ... by Horner's rule. */
function polynomial(b: Builder, x: V, coefficients: readonly number[]): V {
  const at = (i: number) => constant(b, x, coefficients[i]);
  let sum = at(coefficients.length - 1);
  for (let i = coefficients.length - 2; i >= 0; i--) sum = b.mulAdd(sum, x, at(i));
  return sum;
}

/** 2^n for an n from -126 to 127 that is a whole number; of NaN 0. */
function powerOfTwo(b: Builder, n: V): V {
  // From 2^23 on a float's last bits count ones: after the sum they are the exponent that is wanted.
  return b.bitsToFloat(b.shl(b.bitsToInt(b.add(n, 1.5 * 2 ** 23 + 127)), 23));
}

// ln 2 in two parts; n times the first is exact for exponents n.
const LN2_HIGH = 0.693359375;
const LN2_LOW = -0.00021219444;

/**
 * e^x within 2 ulp, denormal results included. 0 where e^x is below half the smallest denormal (from about -104 down),
 * Infinity from about 88.73 up; NaN gives NaN. Polynomial from Cephes (expf).
 */
export function exp<T extends Floating>(b: Builder, x: Value<T>): Value<T> {
  const given = x as unknown as V;
  // The constant stands first, so that NaN passes.
  const inside = b.max(constant(b, given, -105), b.min(constant(b, given, 89), given));
  const n = b.nearest(b.mul(inside, Math.LOG2E));
  const r = b.mulAdd(n, constant(b, n, -LN2_LOW), b.mulAdd(n, constant(b, n, -LN2_HIGH), inside));
  const tail = polynomial(
    b,
    r,
    [5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.98756915e-4],
  );
  const mantissa = b.add(b.mulAdd(b.mul(r, r), tail, r), 1);
  // Two factors: 2^n itself may be no normal number although the result is one. Only the second rounds.
  const half = b.floor(b.mul(n, 0.5));
  // Where the result is 0 it comes from a factor of 0, not from rounding: some processors take 100 times as long to round
  // to a denormal, and masked scores are all -Infinity.
  const second = b.select(b.lt(given, -104), 0, powerOfTwo(b, b.sub(n, half)));
  const result = b.mul(b.mul(mantissa, powerOfTwo(b, half)), second);
  return result as unknown as Value<T>;
}

/**
 * Natural logarithm within 2 ulp, of denormals too. 0 gives -Infinity, below 0 and NaN give NaN, Infinity gives
 * Infinity. Reduction and polynomial from FreeBSD's e_logf.c.
 */
export function log<T extends Floating>(b: Builder, x: Value<T>): Value<T> {
  const given = x as unknown as V;
  const tiny = b.lt(given, 2 ** -126);
  const normal = b.select(tiny, b.mul(given, 2 ** 23), given);
  // x = 2^k m with m from sqrt(1/2) to sqrt(2): the constant carries into the exponent where the mantissa is larger.
  const root = 0x3f3504f3;
  const bits = b.add(b.bitsToInt(normal), 0x3f800000 - root);
  const exponent = b.sub(b.toFloat(b.shr(bits, 23)), b.select(tiny, constant(b, given, 127 + 23), 127));
  const mantissa = b.bitsToFloat(b.add(b.and(bits, intConstant(b, given, 0x007fffff)), root));
  const f = b.sub(mantissa, 1);
  // log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)) with s = f / (2 + f).
  const s = b.div(f, b.add(f, 2));
  const z = b.mul(s, s);
  const rest = b.mul(z, polynomial(b, z, [0.66666662693, 0.40000972152, 0.28498786688, 0.24279078841]));
  const half = b.mul(b.mul(f, 0.5), f);
  const low = b.mulAdd(s, b.add(half, rest), b.mul(exponent, 9.0580006145e-6));
  const small = b.add(b.sub(low, half), f);
  const finite = b.mulAdd(exponent, constant(b, given, 6.9313812256e-1), small);
  const upwards = b.select(b.lt(given, Number.POSITIVE_INFINITY), finite, given);
  const positive = b.select(b.lt(given, 0), Number.NaN, upwards);
  return b.select(b.eq(given, 0), Number.NEGATIVE_INFINITY, positive) as unknown as Value<T>;
}

/** 1 / (1 + e^-x); 0 from about -88.73 down, where e^-x is past the largest number. */
export function sigmoid<T extends Floating>(b: Builder, x: Value<T>): Value<T> {
  const given = x as unknown as V;
  const e = exp(b, b.neg(given));
  return b.div(constant(b, given, 1), b.add(e, 1)) as unknown as Value<T>;
}

/** 1 / sqrt(x), rounded twice: the root, then the quotient. */
export function rsqrt<T extends Floating>(b: Builder, x: Value<T>): Value<T> {
  const given = x as unknown as V;
  return b.div(constant(b, given, 1), b.sqrt(given)) as unknown as Value<T>;
}
