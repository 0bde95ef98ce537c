// SwiGLU's activation: silu(gate) * up. Shazeer, "GLU Variants Improve Transformer" (2020), eq. 6.
import { refuse } from '../../../errors.js';
import type { Context } from '../../autograd.js';
import { buildKernel } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { sigmoid } from '../../kernel/math.js';
import { matrixShape, type Tensor } from '../../tensor.js';
import { prefetchVector, ROWS_AHEAD } from '../prefetch.js';

/** Rows worth a thread of their own. */
const ROW_GRAIN = 8;

function swigluKernel(target: TargetInfo): Kernel {
  return buildKernel('swiglu', target, { x: 'f32*', y: 'f32*', n: 'i32' }, (b, p) => {
    const ahead = b.mul(p.n, 2 * ROWS_AHEAD);
    b.items((row) => {
      const to = b.mul(row, p.n);
      const from = b.mul(to, 2);
      b.vectors(p.n, (i, count) => {
        const at = b.add(from, i);
        prefetchVector(b, p.x, b.add(at, ahead));
        prefetchVector(b, p.x, b.add(b.add(at, p.n), ahead));
        const gate = b.loadVec(p.x, at, count);
        const up = b.loadVec(p.x, b.add(at, p.n), count);
        b.store(p.y, b.add(to, i), b.mul(b.mul(gate, sigmoid(b, gate)), up), count);
      });
    });
  });
}

/** x becomes its own gradient. */
function swigluBackwardKernel(target: TargetInfo): Kernel {
  return buildKernel('swiglu-backward', target, { x: 'f32*', dy: 'f32*', n: 'i32' }, (b, p) => {
    const ahead = b.mul(p.n, ROWS_AHEAD);
    b.items((row) => {
      const from = b.mul(row, p.n);
      const to = b.mul(from, 2);
      b.vectors(p.n, (i, count) => {
        const at = b.add(to, i);
        prefetchVector(b, p.x, b.add(at, b.mul(ahead, 2)));
        prefetchVector(b, p.x, b.add(b.add(at, p.n), b.mul(ahead, 2)));
        prefetchVector(b, p.dy, b.add(b.add(from, i), ahead));
        const gate = b.loadVec(p.x, at, count);
        const up = b.loadVec(p.x, b.add(at, p.n), count);
        const dy = b.loadVec(p.dy, b.add(from, i), count);
        const s = sigmoid(b, gate);
        const silu = b.mul(gate, s);
        // silu' = s + silu (1 - s)
        const slope = b.mulAdd(silu, b.sub(1, s), s);
        b.store(p.x, at, b.mul(b.mul(dy, up), slope), count);
        b.store(p.x, b.add(at, p.n), b.mul(dy, silu), count);
      });
    });
  });
}

/**
 * silu(gate) * up [rows, n] of x[rows, 2 n], whose rows hold gate and then up. x must have no other use; in backward its
 * gradient takes its memory.
 */
export function swiglu({ device, tape }: Context, x: Tensor): Tensor {
  const [rows, width] = matrixShape(x);
  if (width % 2 !== 0) throw refuse('bad-kernel', 'columns of swiglu', width, 'gate and up are as wide');
  const n = width / 2;
  const y = device.temporary([rows, n]);
  device.launch(device.kernel('swiglu', swigluKernel), rows, [x, y], [n], ROW_GRAIN);
  tape?.record([y], () => {
    const dy = tape.arrived(y);
    if (!dy) return;
    // Nobody reads x any more, and new memory for so large a gradient would be fetched before it is written.
    if (!tape.replace(x)) throw refuse('bad-kernel', 'swiglu input', 'used twice', 'use it once');
    const kernel = device.kernel('swiglu-backward', swigluBackwardKernel);
    device.launch(kernel, rows, [x, dy], [n], ROW_GRAIN);
  });
  return y;
}
