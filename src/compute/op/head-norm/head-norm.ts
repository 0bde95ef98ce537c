// RMSNorm over each head of a part of a row, in place: Qwen3's norm of queries and keys. Yang et al., "Qwen3 Technical
// Report" (2025), section 2; eq. 4 of Zhang and Sennrich (2019), see ../rmsnorm.
import { refuse } from '../../../errors.js';
import type { Context, Parameter } from '../../autograd.js';
import { buildKernel } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { matrixShape, type Tensor } from '../../tensor.js';
import { COLUMN_CHUNK, columnChunks } from '../columns.js';

const ROW_GRAIN = 32;

/** Which elements of a row: `heads` heads of n from `first` on, in rows of `width`. */
const part = { width: 'i32', first: 'i32', heads: 'i32', n: 'i32' } as const;

/** x = x / sqrt(mean(x^2) + eps) * w for each head; keeps the reciprocal root, and x itself where asked to. */
function headNormKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'head-norm',
    target,
    { x: 'f32*', w: 'f32*', kept: 'f32*', scale: 'f32*', ...part, eps: 'f32', keep: 'i32' },
    (b, p) => {
      b.items((row) => {
        const rowStart = b.add(b.mul(row, p.width), p.first);
        b.loop(0, p.heads, 1, (head) => {
          const start = b.add(rowStart, b.mul(head, p.n));
          const index = b.add(b.mul(row, p.heads), head);
          const sum = b.variable(b.zero());
          b.vectors(p.n, (i, count) => {
            const x = b.loadVec(p.x, b.add(start, i), count);
            sum.set(b.mulAdd(x, x, sum.get()));
          });
          const mean = b.div(b.hsum(sum.get()), b.toFloat(p.n));
          const scale = b.div(1, b.sqrt(b.add(mean, p.eps)));
          b.store(p.scale, index, scale);
          const wide = b.splat(scale);
          const write = (keep: boolean) =>
            b.vectors(p.n, (i, count) => {
              const x = b.loadVec(p.x, b.add(start, i), count);
              if (keep) b.store(p.kept, b.add(b.mul(index, p.n), i), x, count);
              b.store(p.x, b.add(start, i), b.mul(b.mul(x, wide), b.loadVec(p.w, i, count)), count);
            });
          b.if(
            p.keep,
            () => write(true),
            () => write(false),
          );
        });
      });
    },
  );
}

/** dy becomes dx = scale (w dy - x scale^2 mean(x w dy)) for each head. */
function inputGradientKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'head-norm-dx',
    target,
    { kept: 'f32*', w: 'f32*', scale: 'f32*', dy: 'f32*', ...part },
    (b, p) => {
      b.items((row) => {
        const rowStart = b.add(b.mul(row, p.width), p.first);
        b.loop(0, p.heads, 1, (head) => {
          const start = b.add(rowStart, b.mul(head, p.n));
          const index = b.add(b.mul(row, p.heads), head);
          const from = b.mul(index, p.n);
          const dot = b.variable(b.zero());
          b.vectors(p.n, (i, count) => {
            const wdy = b.mul(b.loadVec(p.w, i, count), b.loadVec(p.dy, b.add(start, i), count));
            dot.set(b.mulAdd(wdy, b.loadVec(p.kept, b.add(from, i), count), dot.get()));
          });
          const scale = b.load(p.scale, index);
          const mean = b.div(b.hsum(dot.get()), b.toFloat(p.n));
          const pull = b.splat(b.mul(b.mul(scale, scale), mean));
          const wide = b.splat(scale);
          b.vectors(p.n, (i, count) => {
            const at = b.add(start, i);
            const wdy = b.mul(b.loadVec(p.w, i, count), b.loadVec(p.dy, at, count));
            const x = b.loadVec(p.kept, b.add(from, i), count);
            b.store(p.dy, at, b.mul(wide, b.sub(wdy, b.mul(x, pull))), count);
          });
        });
      });
    },
  );
}

/** dw += sum over rows and heads of dy x scale. An item is a chunk of columns, so every head adds in order. */
function weightGradientKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'head-norm-dw',
    target,
    { kept: 'f32*', scale: 'f32*', dy: 'f32*', dw: 'f32*', rows: 'i32', ...part },
    (b, p) => {
      columnChunks(b, p.n, (column, count) => {
        const sum = b.variable(b.loadVec(p.dw, column, count));
        b.loop(0, p.rows, 1, (row) => {
          const rowStart = b.add(b.mul(row, p.width), p.first);
          b.loop(0, p.heads, 1, (head) => {
            const index = b.add(b.mul(row, p.heads), head);
            const kept = b.loadVec(p.kept, b.add(b.mul(index, p.n), column), count);
            const x = b.mul(kept, b.splat(b.load(p.scale, index)));
            const dy = b.loadVec(p.dy, b.add(b.add(rowStart, b.mul(head, p.n)), column), count);
            sum.set(b.mulAdd(x, dy, sum.get()));
          });
        });
        b.store(p.dw, column, sum.get(), count);
      });
    },
  );
}

/**
 * Normalises `heads` heads of w's width, from element `first` of each row of x[rows, width] on, in place; in the
 * backward pass their gradient is changed in place.
 */
export function headNorm(
  { device, tape }: Context,
  x: Tensor,
  first: number,
  heads: number,
  w: Parameter,
  eps: number,
): void {
  const [rows, width] = matrixShape(x);
  const n = w.value.size;
  if (first + heads * n > width)
    throw refuse('bad-kernel', `${heads} heads of ${n} from ${first} on in rows`, x.shape, 'shapes must fit');
  const where = [width, first, heads, n];
  const scale = device.temporary([rows, heads]);
  const kept = tape ? device.temporary([rows, heads, n]) : x;
  const kernel = device.kernel('head-norm', headNormKernel);
  device.launch(kernel, rows, [x, w.value, kept, scale], [...where, eps, tape ? 1 : 0], ROW_GRAIN);
  tape?.record([], () => {
    const dy = tape.arrived(x);
    if (!dy) return;
    if (w.gradient) {
      const dw = device.kernel('head-norm-dw', weightGradientKernel);
      device.launch(dw, Math.ceil(n / COLUMN_CHUNK), [kept, scale, dy, w.gradient], [rows, ...where]);
    }
    const dx = device.kernel('head-norm-dx', inputGradientKernel);
    device.launch(dx, rows, [kept, w.value, scale, dy], where, ROW_GRAIN);
  });
}
