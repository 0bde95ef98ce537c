// A bias added to every row, in place, and its gradient: the sum over the rows.
import { refuse } from '../../../errors.js';
import type { Context, Parameter } from '../../autograd.js';
import { buildKernel } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { matrixShape, type Tensor } from '../../tensor.js';
import { COLUMN_CHUNK, columnSums } from '../columns.js';

/** x[row] += bias. */
function addBiasKernel(target: TargetInfo): Kernel {
  return buildKernel('add-bias', target, { x: 'f32*', bias: 'f32*', n: 'i32' }, (b, p) => {
    b.items((row) => {
      const start = b.mul(row, p.n);
      b.vectors(p.n, (i, count) => {
        const at = b.add(start, i);
        b.store(p.x, at, b.add(b.loadVec(p.x, at, count), b.loadVec(p.bias, i, count)), count);
      });
    });
  });
}

/** db += sum over rows of dy, rows in order. An item is a chunk of columns. */
function biasGradientKernel(target: TargetInfo): Kernel {
  return buildKernel('bias-gradient', target, { dy: 'f32*', db: 'f32*', rows: 'i32', n: 'i32' }, (b, p) => {
    columnSums(b, p.n, p.db, (add) => {
      b.loop(0, p.rows, 1, (row) => {
        const start = b.mul(row, p.n);
        add(({ at, count }, sum) => b.add(sum, b.loadVec(p.dy, b.add(start, at), count)));
      });
    });
  });
}

const ROW_GRAIN = 64;

/** Adds bias[n] to every row of x[rows, n] in place. */
export function addBias({ device, tape }: Context, x: Tensor, bias: Parameter): void {
  const [rows, n] = matrixShape(x);
  if (bias.value.size !== n)
    throw refuse(
      'bad-kernel',
      `bias ${bias.name} of ${bias.value.size} elements`,
      x.shape,
      'shapes must fit',
    );
  device.launch(device.kernel('add-bias', addBiasKernel), rows, [x, bias.value], [n], ROW_GRAIN);
  tape?.record([], () => {
    const dy = tape.arrived(x);
    if (!dy || !bias.gradient) return;
    const kernel = device.kernel('bias-gradient', biasGradientKernel);
    device.launch(kernel, Math.ceil(n / COLUMN_CHUNK), [dy, bias.gradient], [rows, n]);
  });
}
