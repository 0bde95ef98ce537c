// Numbers kept as bfloat16, two to an element of i32: half the memory, and half of what is read of it. They are widened as
// they are read, so arithmetic is that of f32, and bfloat16 numbers give the same bits either way.
import { refuse } from '../../errors.js';
import type { Buffer, Builder, I32, IVec, Value, Vec } from './builder.js';
import type { ElementType } from './ir.js';

export const dtypes = ['float32', 'bfloat16'] as const;
/** How numbers are kept, as Hugging Face's `torch_dtype` says it. */
export type Dtype = (typeof dtypes)[number];

/** A buffer of numbers: of f32, or of two bfloat16 to an element. */
export type Numbers = Buffer<'f32'> | Buffer<'i32'>;

/** What is kept as asked for. @throws RetortError bad-input for what is no dtype */
export function checkDtype(what: string, dtype: Dtype): void {
  if (!dtypes.includes(dtype)) throw refuse('bad-input', what, dtype, `use ${dtypes.join(' or ')}`);
}

/** What tells kernels over bfloat16 apart by their names. */
export function suffixOf(dtype: Dtype): string {
  return dtype === 'float32' ? '' : `-${dtype}`;
}

/** Numbers to an element. */
export function perElement(of: Dtype | ElementType): 1 | 2 {
  return of === 'float32' || of === 'f32' ? 1 : 2;
}
export function elementOf(dtype: Dtype): ElementType {
  return dtype === 'float32' ? 'f32' : 'i32';
}
/** How a tensor of numbers keeps them. */
export function dtypeOf({ element }: { readonly element: ElementType }): Dtype {
  return element === 'f32' ? 'float32' : 'bfloat16';
}
/** What a kernel calls a buffer of them. */
export function bufferOf(dtype: Dtype): 'f32*' | 'i32*' {
  return `${elementOf(dtype)}*`;
}

/** The numbers of `lanes` elements: a vector, or one of the lower halves and one of the upper. */
export function loadNumbers(b: Builder, from: Numbers, index: I32, imm = 0): Vec[] {
  if (from.element === 'f32') return [b.loadVec(from, index, undefined, imm)];
  const pairs = b.loadIVec(from, index, undefined, imm);
  return [b.bitsToFloat(b.shl(pairs, 16)), b.bitsToFloat(b.and(pairs, b.splatInt(-65536)))];
}

/** Two numbers, each rounded to the nearest (ties to even), as one element. A NaN stays one. */
export function narrow<T extends 'f32' | 'vec'>(
  b: Builder,
  low: Value<T>,
  high: Value<T>,
): Value<T extends 'f32' ? 'i32' : 'ivec'> {
  const [lower, upper] = [low, high].map((x) => rounded(b, x as Vec));
  return b.or(b.shr(lower, 16), b.shl(b.shr(upper, 16), 16)) as never;
}

/** Bits of which the upper half is the rounded number; written as if for vectors, as in math.ts. */
function rounded(b: Builder, x: Vec): IVec {
  const constant = (value: number) =>
    ((x.type as 'f32' | 'vec') === 'f32' ? b.int(value) : b.splatInt(value)) as IVec;
  const bits = b.bitsToInt(x);
  const odd = b.and(b.shr(bits, 16), constant(1));
  // Rounding up could carry a NaN's bits over into its sign.
  return b.select(b.eq(x, x), b.add(bits, b.add(odd, constant(0x7fff))), constant(0x7fc00000));
}
