// Root-mean-square normalisation. Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019), eq. 4.
import { refuse } from '../../../errors.js';
import type { Context, Parameter } from '../../autograd.js';
import { buildKernel } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { matrixShape, type Tensor } from '../../tensor.js';
import { COLUMN_CHUNK, columnSums } from '../columns.js';
import { inputGradient, reciprocalRoot } from './stretch.js';

const ROW_GRAIN = 32;

/** y = x / sqrt(mean(x^2) + eps) * w; keeps the reciprocal root of each row. */
function rmsnormKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'rmsnorm',
    target,
    { x: 'f32*', w: 'f32*', y: 'f32*', scale: 'f32*', n: 'i32', eps: 'f32' },
    (b, p) => {
      b.items((row) => {
        const start = b.mul(row, p.n);
        const scale = reciprocalRoot(b, p.x, start, p.n, p.eps);
        b.store(p.scale, row, scale);
        const wide = b.splat(scale);
        b.vectors(p.n, (i, count) => {
          const at = b.add(start, i);
          b.store(p.y, at, b.mul(b.mul(b.loadVec(p.x, at, count), wide), b.loadVec(p.w, i, count)), count);
        });
      });
    },
  );
}

/** dx (+)= scale (w dy - x scale^2 mean(x w dy)). */
function inputGradientKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'rmsnorm-dx',
    target,
    { x: 'f32*', w: 'f32*', scale: 'f32*', dy: 'f32*', dx: 'f32*', n: 'i32', accumulate: 'i32' },
    (b, p) => {
      b.items((row) => {
        const start = b.mul(row, p.n);
        const stretch = { ...p, xStart: start, dyStart: start };
        const scale = b.load(p.scale, row);
        const write = (add: boolean) =>
          inputGradient(b, stretch, scale, (d, i, count) => {
            const at = b.add(start, i);
            b.store(p.dx, at, add ? b.add(b.loadVec(p.dx, at, count), d) : d, count);
          });
        b.if(
          p.accumulate,
          () => write(true),
          () => write(false),
        );
      });
    },
  );
}

/** dw += sum over rows of dy x scale. An item is a chunk of columns, so every row adds in order. */
function weightGradientKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'rmsnorm-dw',
    target,
    { x: 'f32*', scale: 'f32*', dy: 'f32*', dw: 'f32*', rows: 'i32', n: 'i32' },
    (b, p) => {
      columnSums(b, p.n, p.dw, (add) => {
        b.loop(0, p.rows, 1, (row) => {
          const start = b.mul(row, p.n);
          const scale = b.splat(b.load(p.scale, row));
          add(({ at, count }, sum) => {
            const x = b.mul(b.loadVec(p.x, b.add(start, at), count), scale);
            return b.mulAdd(x, b.loadVec(p.dy, b.add(start, at), count), sum);
          });
        });
      });
    },
  );
}

/** x[rows, d] normalised row by row and multiplied by w[d]. */
export function rmsnorm({ device, tape }: Context, x: Tensor, w: Parameter, eps: number): Tensor {
  const [rows, n] = matrixShape(x);
  if (w.value.size !== n)
    throw refuse('bad-kernel', `rmsnorm ${w.name} of width ${w.value.size}`, x.shape, 'shapes must fit');
  const y = device.temporary(x.shape);
  const scale = device.temporary([rows]);
  device.launch(device.kernel('rmsnorm', rmsnormKernel), rows, [x, w.value, y, scale], [n, eps], ROW_GRAIN);
  tape?.record([y], () => {
    const dy = tape.arrived(y);
    if (!dy) return;
    const dx = tape.contribute(x);
    const kernel = device.kernel('rmsnorm-dx', inputGradientKernel);
    device.launch(kernel, rows, [x, w.value, scale, dy, dx.tensor], [n, dx.accumulate ? 1 : 0], ROW_GRAIN);
    if (!w.gradient) return;
    const items = Math.ceil(n / COLUMN_CHUNK);
    device.launch(
      device.kernel('rmsnorm-dw', weightGradientKernel),
      items,
      [x, scale, dy, w.gradient],
      [rows, n],
    );
  });
  return y;
}
