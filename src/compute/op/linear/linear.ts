// The linear layer y = x W^T and its gradients, on packed matrix products.
import { refuse } from '../../../errors.js';
import type { Context, Gradient, Parameter } from '../../autograd.js';
import type { Device } from '../../device/device.js';
import { type Dtype, dtypeOf, elementOf, perElement } from '../../kernel/bfloat16.js';
import { matrixShape, type Tensor } from '../../tensor.js';
import {
  matmulColumnsKernel,
  matmulKernel,
  packedSizes,
  packKernel,
  packTransposedKernel,
  panelWidth,
  tileRows,
} from './kernel.js';

/** Rows for each thread from which on they are shared out; with fewer, panels are. */
const ROWS_EACH = 24;
/** Rows whose A stays in the second-level cache with all of k, so that B is read in order. */
const FEW_ROWS = 128;
/** Floating-point operations under which waking a second thread does not pay. */
const SERIAL_FLOPS = 200_000;
/** Elements packed under which it does not. */
const PACKED_EACH = 8_000;

/** A matrix packed for the right side of a product: k rows, n columns. */
export interface Packed {
  /** [panels, k, a panel's elements]. */
  readonly tensor: Tensor;
  readonly k: number;
  readonly n: number;
}

export interface MatmulOptions {
  /** [m, k], with `lda` elements from row to row. */
  readonly a: Tensor;
  readonly b: Packed;
  readonly c: Tensor;
  readonly m: number;
  readonly lda: number;
  /** What the product is added to: C itself, or another [m, n]. */
  readonly add?: Tensor;
}

/** C[m, n] = A B or C = D + A B. @throws RetortError bad-kernel when the shapes do not fit */
export function matmul(device: Device, { a, b, c, m, lda, add }: MatmulOptions): void {
  const { k, n } = b;
  if (m > 0 && ((m - 1) * lda + k > a.size || m * n > c.size || (add && m * n > add.size) || k < 1))
    refuseShapes({ m, k, n }, a, c);
  const dtype = dtypeOf(b.tensor);
  const byPanels = !device.isRecording && m < ROWS_EACH * device.threads;
  const items = byPanels ? Math.ceil(n / panelWidth(device.target)) : m;
  device.launch(
    device.kernel(`matmul ${dtype}`, (t) => matmulKernel(t, dtype)),
    items,
    [a, b.tensor, c, add ?? c],
    [m, n, k, lda, n, add ? 1 : 0, m <= FEW_ROWS ? 1 : 0, byPanels ? 1 : 0],
    Math.ceil((SERIAL_FLOPS * items) / (2 * m * n * k)),
  );
}

export interface ColumnsOptions {
  /** [k, m], with `lda` elements from row to row. */
  readonly a: Tensor;
  /** [k, n]. */
  readonly b: Tensor;
  readonly c: Tensor;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly lda: number;
  /** Whether C is added to. */
  readonly add: boolean;
}

/** C[m, n] = A^T B or C + A^T B. @throws RetortError bad-kernel when the shapes do not fit */
export function matmulColumns(device: Device, { a, b, c, m, n, k, lda, add }: ColumnsOptions): void {
  if (m > 0 && ((k - 1) * lda + m > a.size || k * n > b.size || m * n > c.size || k < 1))
    refuseShapes({ m, k, n }, a, c);
  const { target, threads } = device;
  const panels = Math.ceil(n / panelWidth(target));
  const tiles = Math.ceil(m / tileRows(target));
  // Each thread packs its own part of one side and all of the other, which had better be the smaller.
  const byPanels = m < n;
  // A product too small for several threads is one part's: each has room for all panels.
  const sizes = packedSizes(target, panels);
  const mark = device.mark();
  const packedA = device.temporary([threads, sizes.a]);
  const packedB = device.temporary([threads, sizes.b]);
  const items = byPanels ? panels : tiles;
  device.launch(
    device.kernel('matmul-columns', matmulColumnsKernel),
    items,
    [a, b, c, packedA, packedB],
    [sizes.a, sizes.b, m, n, k, lda, add ? 1 : 0, byPanels ? 1 : 0],
    Math.ceil((SERIAL_FLOPS * items) / (2 * m * n * k)),
  );
  device.rewind(mark);
}

function refuseShapes({ m, k, n }: { m: number; k: number; n: number }, a: Tensor, c: Tensor): never {
  throw refuse(
    'bad-kernel',
    `matrix product [${m}, ${k}] x [${k}, ${n}]`,
    [a.shape, c.shape],
    'shapes must fit',
  );
}

/** The shape of a matrix once packed. */
function packedShape(device: Device, k: number, n: number, dtype: Dtype): number[] {
  const width = panelWidth(device.target);
  return [Math.ceil(n / width), k, width / perElement(dtype)];
}

/** Packs source[k, n] into a temporary or, where told, into another tensor. */
export function pack(device: Device, source: Tensor, k: number, n: number, into?: Tensor): Packed {
  const tensor = into ?? device.temporary(packedShape(device, k, n, 'float32'));
  const grain = Math.ceil(PACKED_EACH / n);
  device.launch(device.kernel('pack', packKernel), k, [source, tensor], [n, k, n], grain);
  return { tensor, k, n };
}

/** The same of the transpose of source[n, k]. */
export function packTransposed(
  device: Device,
  source: Tensor,
  k: number,
  n: number,
  dtype: Dtype = 'float32',
  into?: Tensor,
): Packed {
  const tensor = into ?? device.temporary(packedShape(device, k, n, dtype), elementOf(dtype));
  const kernel = device.kernel(`pack-transposed ${dtype}`, (t) => packTransposedKernel(t, dtype));
  const panels = tensor.shape[0];
  device.launch(kernel, panels, [source, tensor], [n, k, k], Math.ceil((PACKED_EACH * panels) / (k * n)));
  return { tensor, k, n };
}

/** The parameter's packed copy, made anew only after its value changed; `transposed` is the one of the forward pass. */
export function packedWeight(device: Device, w: Parameter, transposed: boolean): Packed {
  const [rows, columns] = matrixShape(w.value);
  const k = transposed ? columns : rows;
  const n = transposed ? rows : columns;
  const dtype = (transposed && w.dtype) || 'float32';
  const key = transposed ? 'transposed' : 'straight';
  let held = w.packed.get(key);
  if (!held) {
    const tensor = device.tensor('packed', packedShape(device, k, n, dtype), elementOf(dtype));
    held = { tensor, version: -1 };
    w.packed.set(key, held);
  }
  const { tensor } = held;
  if (held.version !== w.version) {
    if (transposed) packTransposed(device, w.value, k, n, dtype, tensor);
    else pack(device, w.value, k, n, tensor);
    held.version = w.version;
  }
  return { tensor, k, n };
}

/** y[rows, out] = x[rows, in] W^T with W[out, in], or residual + x W^T; the shapes fit. */
export function linearInto(device: Device, x: Tensor, w: Parameter, y: Tensor, residual?: Tensor): void {
  const [rows, inputs] = matrixShape(x);
  if (rows === 0) return;
  const b = packedWeight(device, w, true);
  matmul(device, { a: x, b, c: y, m: rows, lda: inputs, add: residual });
}

/** The gradients of `linearInto` from dy: dx (+)= dy W and, where W is trained, dW += dy^T x. */
export function linearGradients(device: Device, x: Tensor, w: Parameter, dy: Tensor, dx: Gradient): void {
  const [rows, inputs] = matrixShape(x);
  const [outputs] = matrixShape(w.value);
  if (rows === 0) return;
  const add = dx.accumulate ? dx.tensor : undefined;
  const b = packedWeight(device, w, false);
  matmul(device, { a: dy, b, c: dx.tensor, m: rows, lda: outputs, add });
  if (!w.gradient) return;
  matmulColumns(device, {
    a: dy,
    b: x,
    c: w.gradient,
    m: outputs,
    n: inputs,
    k: rows,
    lda: outputs,
    add: true,
  });
}

/**
 * y[rows, out] = x[rows, in] W^T with W[out, in]; with a residual, y = residual + x W^T.
 * @param residual [rows, out]; x was computed from it, and every other use of it comes before, so that both it and y
 * share one gradient
 * @param into where y goes; default: a temporary
 * @throws RetortError bad-kernel when x's columns are not W's, or the residual has another shape than y
 */
export function linear(
  { device, tape }: Context,
  x: Tensor,
  w: Parameter,
  residual?: Tensor,
  into?: Tensor | null,
): Tensor {
  const [rows, inputs] = matrixShape(x);
  const [outputs, columns] = matrixShape(w.value);
  if (inputs !== columns)
    throw refuse('bad-kernel', `linear ${w.name} with W [${w.value.shape}]`, x.shape, 'shapes must fit');
  if (residual && residual.size !== rows * outputs)
    throw refuse('bad-kernel', `residual of [${rows}, ${outputs}]`, residual.shape, 'shapes must fit');
  const y = into ?? device.temporary([rows, outputs]);
  linearInto(device, x, w, y, residual);
  tape?.record([y], () => {
    const dy = tape.arrived(y);
    if (!dy || rows === 0) return;
    linearGradients(device, x, w, dy, tape.contribute(x));
    if (residual && !tape.share(residual, dy))
      throw refuse('bad-kernel', 'residual', 'used after the sum', 'use it before');
  });
  return y;
}
