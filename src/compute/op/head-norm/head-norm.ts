// RMSNorm over each head of a part of a row, in place: Qwen3's norm of queries and keys. Yang et al., "Qwen3 Technical
// Report" (2025), section 2; eq. 4 of Zhang and Sennrich (2019), see ../rmsnorm.
import { refuse } from '../../../errors.js';
import type { Context, Parameter } from '../../autograd.js';
import { type Bound, type Builder, buildKernel, type I32 } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { matrixShape, type Tensor } from '../../tensor.js';
import { COLUMN_CHUNK, columnSums } from '../columns.js';
import { inputGradient, reciprocalRoot } from '../rmsnorm/stretch.js';

const ROW_GRAIN = 32;

/** Which elements of a row: `heads` heads of n from `first` on, in rows of `width`. */
const part = { width: 'i32', first: 'i32', heads: 'i32', n: 'i32' } as const;

/** Calls body for each head of a row: where it starts, and its number among all heads. */
function eachHead(b: Builder, p: Bound<typeof part>, row: I32, body: (start: I32, index: I32) => void): void {
  const rowStart = b.add(b.mul(row, p.width), p.first);
  b.loop(0, p.heads, 1, (head) => body(b.add(rowStart, b.mul(head, p.n)), b.add(b.mul(row, p.heads), head)));
}

/** x = x / sqrt(mean(x^2) + eps) * w for each head; keeps the reciprocal root, and x itself where asked to. */
function headNormKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'head-norm',
    target,
    { x: 'f32*', w: 'f32*', kept: 'f32*', scale: 'f32*', ...part, eps: 'f32', keep: 'i32' },
    (b, p) => {
      b.items((row) => {
        eachHead(b, p, row, (start, index) => {
          const scale = reciprocalRoot(b, p.x, start, p.n, p.eps);
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
        eachHead(b, p, row, (start, index) => {
          const stretch = { ...p, x: p.kept, xStart: b.mul(index, p.n), dyStart: start };
          inputGradient(b, stretch, b.load(p.scale, index), (dx, i, count) =>
            b.store(p.dy, b.add(start, i), dx, count),
          );
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
      columnSums(b, p.n, p.dw, (add) => {
        b.loop(0, p.rows, 1, (row) => {
          eachHead(b, p, row, (start, index) => {
            const keptStart = b.mul(index, p.n);
            const scale = b.splat(b.load(p.scale, index));
            add(({ at, count }, sum) => {
              const x = b.mul(b.loadVec(p.kept, b.add(keptStart, at), count), scale);
              return b.mulAdd(x, b.loadVec(p.dy, b.add(start, at), count), sum);
            });
          });
        });
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
