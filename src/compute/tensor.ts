// Tensors: a shape over a range of device memory. They hold no data of their own and are never moved.
import type { ElementType } from './kernel/ir.js';

export interface Tensor {
  readonly shape: readonly number[];
  readonly element: ElementType;
  /** Number of elements. */
  readonly size: number;
  /** Where it starts in device memory, in bytes. */
  readonly byteOffset: number;
}

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
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
