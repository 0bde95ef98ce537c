// Sums of columns over all rows, by a fixed tree of row chunks, so that the result does not depend on the threads.
import type { Device } from '../../device/device.js';
import { buildKernel } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { matrixShape, type Tensor } from '../../tensor.js';

const ROWS = 256;

/** y[item, column] = sum over the item's ROWS rows of x[row, column]. */
function columnSumsKernel(target: TargetInfo): Kernel {
  return buildKernel('column-sums', target, { x: 'f32*', y: 'f32*', rows: 'i32', n: 'i32' }, (b, p) => {
    b.items((item) => {
      const first = b.mul(item, ROWS);
      const last = b.min(p.rows, b.add(first, ROWS));
      b.vectors(p.n, (i, count) => {
        const sum = b.variable(b.zero());
        b.loop(first, last, 1, (row) => {
          sum.set(b.add(sum.get(), b.loadVec(p.x, b.add(b.mul(row, p.n), i), count)));
        });
        b.store(p.y, b.add(b.mul(item, p.n), i), sum.get(), count);
      });
    });
  });
}

/** The sum of each column of x[rows, n], as numbers. */
export function columnSums(device: Device, x: Tensor): number[] {
  const [allRows, n] = matrixShape(x);
  const mark = device.mark();
  let from = x;
  let rows = allRows;
  while (rows > 1) {
    const items = Math.ceil(rows / ROWS);
    const to = device.temporary([items, n]);
    device.launch(device.kernel('column-sums', columnSumsKernel), items, [from, to], [rows, n], 4);
    from = to;
    rows = items;
  }
  const sums = allRows === 0 ? new Array<number>(n).fill(0) : Array.from(device.floats(from).subarray(0, n));
  device.rewind(mark);
  return sums;
}
