// Tensors: a shape over a range of device memory. They hold no data of their own and are never moved.
import { refuse } from '../errors.js';
import type { ElementType } from './kernel/ir.js';

export type { Dtype } from './kernel/bfloat16.js';

export interface Tensor {
  readonly shape: readonly number[];
  readonly element: ElementType;
  /** Number of elements. */
  readonly size: number;
  /** Where it starts in device memory, in bytes. */
  readonly byteOffset: number;
}

/**
 * Elements of a tensor at most: kernels count them in 32 bits with a sign, and a loop's counter goes up to a step past
 * the last; no step comes near this margin.
 */
export const MOST_ELEMENTS = 2 ** 31 - 2 ** 20;

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** The size of a shape that a tensor may have. @throws RetortError out-of-memory for too many elements */
export function checkedSize(shape: readonly number[]): number {
  const size = sizeOf(shape);
  if (size >= 0 && size <= MOST_ELEMENTS) return size;
  throw refuse(
    'out-of-memory',
    `elements of a tensor of shape [${shape}]`,
    size,
    `one tensor holds at most ${MOST_ELEMENTS}; use a smaller batch, a shorter context or a smaller model`,
  );
}

/** Rows and columns of a tensor seen as a matrix: all dimensions but the last are rows. */
export function matrixShape(t: Tensor): [rows: number, columns: number] {
  const columns = t.shape[t.shape.length - 1];
  return [columns === 0 ? 0 : t.size / columns, columns];
}

/** The same memory under another shape, or a part of it: `start` elements in. Throws nothing: callers know the sizes. */
export function viewOf(t: Tensor, shape: readonly number[], start = 0): Tensor {
  return { shape, element: t.element, size: sizeOf(shape), byteOffset: t.byteOffset + 4 * start };
}
