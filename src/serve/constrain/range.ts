// Numbers between bounds as grammars: the decimal digits of a range, written out by cases.
import { choice, DIGITS, type Expression, NOTHING, oneOf, sequence, someOf, text } from './expression.js';
import { MAX_DIGITS } from './json-text.js';

export interface Bounds {
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly exclusiveMaximum?: number;
}

/** Decimals that are written at most where a number is bounded. */
const DECIMALS = 4;

/** Whole numbers within bounds. */
export function integerWithin(bounds: Bounds): Expression {
  return withDecimals(bounds, 0);
}

/** Numbers within bounds, with no decimals or up to as many as fit. */
export function numberWithin(bounds: Bounds): Expression {
  const given = Object.values(bounds).filter((b) => b !== undefined);
  const whole = Math.max(...given.map(wholeDigits));
  const wanted = Math.max(DECIMALS, ...given.map(decimalsOf));
  const decimals = Math.max(0, Math.min(wanted, MAX_DIGITS - whole));
  return choice(...Array.from({ length: decimals + 1 }, (_, d) => withDecimals(bounds, d)));
}

/** A number as digits times a power of ten, without rounding. */
function exact(value: number): { digits: bigint; exponent: number } {
  const [mantissa, power = '0'] = value.toString().toLowerCase().split('e');
  const [whole, fraction = ''] = mantissa.split('.');
  return { digits: BigInt(whole + fraction), exponent: Number(power) - fraction.length };
}

function wholeDigits(value: number): number {
  return Math.abs(value) >= 10 ** MAX_DIGITS ? MAX_DIGITS : String(Math.trunc(Math.abs(value))).length;
}

function decimalsOf(value: number): number {
  return Math.max(0, -exact(value).exponent);
}

/** floor or ceil of value times 10^decimals, and whether nothing was cut off. */
function scaled(value: number, decimals: number, round: 'up' | 'down'): { digits: bigint; whole: boolean } {
  const { digits, exponent } = exact(value);
  const shift = exponent + decimals;
  if (shift >= 0) return { digits: digits * 10n ** BigInt(Math.min(shift, 400)), whole: true };
  const unit = 10n ** BigInt(Math.min(-shift, 400));
  const rest = ((digits % unit) + unit) % unit;
  const floor = (digits - rest) / unit;
  return { digits: round === 'down' || rest === 0n ? floor : floor + 1n, whole: rest === 0n };
}

/** Numbers of exactly so many decimals within bounds. */
function withDecimals(
  { minimum, maximum, exclusiveMinimum, exclusiveMaximum }: Bounds,
  decimals: number,
): Expression {
  const limit = 10n ** BigInt(MAX_DIGITS) - 1n;
  let low = -limit;
  let high = limit;
  const raise = (to: bigint) => {
    if (to > low) low = to;
  };
  const lower = (to: bigint) => {
    if (to < high) high = to;
  };
  if (minimum !== undefined) raise(scaled(minimum, decimals, 'up').digits);
  if (maximum !== undefined) lower(scaled(maximum, decimals, 'down').digits);
  if (exclusiveMinimum !== undefined) {
    const { digits, whole } = scaled(exclusiveMinimum, decimals, 'up');
    raise(whole ? digits + 1n : digits);
  }
  if (exclusiveMaximum !== undefined) {
    const { digits, whole } = scaled(exclusiveMaximum, decimals, 'down');
    lower(whole ? digits - 1n : digits);
  }
  const parts: Expression[] = [];
  if (low < 0n && low <= high) {
    const least = high < 0n ? -high : 1n;
    parts.push(sequence(text('-'), magnitudes(least, -low, decimals)));
  }
  if (high >= 0n && low <= high) parts.push(magnitudes(low > 0n ? low : 0n, high, decimals));
  return parts.length === 0 ? NOTHING : choice(...parts);
}

/** Numbers from `from` to `to` in units of 10^-decimals, none with needless zeros before the point. */
function magnitudes(from: bigint, to: bigint, decimals: number): Expression {
  const shortest = decimals + 1;
  const parts: Expression[] = [];
  const longest = Math.max(shortest, to.toString().length);
  for (let length = shortest; length <= longest; length++) {
    const least = length === shortest ? 0n : 10n ** BigInt(length - 1);
    const most = 10n ** BigInt(length) - 1n;
    const low = from > least ? from : least;
    const high = to < most ? to : most;
    if (low > high) continue;
    const digits = (n: bigint) => n.toString().padStart(length, '0');
    parts.push(between(digits(low), digits(high), decimals));
  }
  return parts.length === 0 ? NOTHING : choice(...parts);
}

/** Digits from `low` to `high`, of the same length, the point before the last `decimals`. */
function between(low: string, high: string, decimals: number): Expression {
  if (low === '') return text('');
  const point = pointBefore(low.length - 1, decimals);
  const [l, h] = [Number(low[0]), Number(high[0])];
  const [lowRest, highRest] = [low.slice(1), high.slice(1)];
  if (isAll(low, '0') && isAll(high, '9')) return free(low.length, decimals);
  if (l === h) return sequence(text(low[0] + point), between(lowRest, highRest, decimals));
  const parts: Expression[] = [];
  const nines = '9'.repeat(lowRest.length);
  const zeros = '0'.repeat(lowRest.length);
  parts.push(sequence(text(low[0] + point), between(lowRest, nines, decimals)));
  if (h - l > 1) parts.push(sequence(digit(l + 1, h - 1), text(point), free(lowRest.length, decimals)));
  parts.push(sequence(text(high[0] + point), between(zeros, highRest, decimals)));
  return choice(...parts);
}

/** Any digits; `count` are left, the point before the last `decimals` of them. */
function free(count: number, decimals: number): Expression {
  if (count === 0) return text('');
  if (count <= decimals || decimals === 0) return someOf(DIGITS, count, count);
  return sequence(
    someOf(DIGITS, count - decimals, count - decimals),
    text('.'),
    someOf(DIGITS, decimals, decimals),
  );
}

function pointBefore(left: number, decimals: number): string {
  return decimals > 0 && left === decimals ? '.' : '';
}

function digit(from: number, to: number): Expression {
  return oneOf([[0x30 + from, 0x30 + to]]);
}

function isAll(digits: string, one: string): boolean {
  return [...digits].every((d) => d === one);
}
