// Token embedding: rows of a table by id, and the scatter of its gradient.
import type { Context, Parameter } from '../../autograd.js';
import { buildKernel } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { matrixShape, type Tensor } from '../../tensor.js';
import { COLUMN_CHUNK, columnChunks } from '../columns.js';

/** y[row] = table[index[row]]. */
export function gatherKernel(target: TargetInfo): Kernel {
  return buildKernel('gather', target, { table: 'f32*', index: 'i32*', y: 'f32*', d: 'i32' }, (b, p) => {
    b.items((row) => {
      const from = b.mul(b.loadInt(p.index, row), p.d);
      const to = b.mul(row, p.d);
      b.vectors(p.d, (i, count) =>
        b.store(p.y, b.add(to, i), b.loadVec(p.table, b.add(from, i), count), count),
      );
    });
  });
}

/** table[index[row]] += dy[row], rows in order. An item is a chunk of columns. */
export function scatterAddKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'scatter-add',
    target,
    { dy: 'f32*', index: 'i32*', table: 'f32*', rows: 'i32', d: 'i32' },
    (b, p) => {
      columnChunks(b, p.d, (columns) => {
        b.loop(0, p.rows, 1, (row) => {
          const entry = b.mul(b.loadInt(p.index, row), p.d);
          const start = b.mul(row, p.d);
          for (const { at, count } of columns) {
            const to = b.add(entry, at);
            const dy = b.loadVec(p.dy, b.add(start, at), count);
            b.store(p.table, to, b.add(b.loadVec(p.table, to, count), dy), count);
          }
        });
      });
    },
  );
}

const ROW_GRAIN = 64;

/** y[rows, d] = table[ids]. The ids lie inside the table: whoever makes a batch checks them. */
export function embedding({ device, tape }: Context, table: Parameter, ids: Tensor): Tensor {
  const [, d] = matrixShape(table.value);
  const rows = ids.size;
  const y = device.temporary([rows, d]);
  device.launch(device.kernel('gather', gatherKernel), rows, [table.value, ids, y], [d], ROW_GRAIN);
  tape?.record([y], () => {
    const dy = tape.arrived(y);
    if (!dy || !table.gradient) return;
    const kernel = device.kernel('scatter-add', scatterAddKernel);
    device.launch(kernel, Math.ceil(d / COLUMN_CHUNK), [dy, ids, table.gradient], [rows, d]);
  });
  return y;
}
