// Rotary position embedding, rotate-half convention. Su et al., "RoFormer" (2021), eq. 34.
import { refuse } from '../../../errors.js';
import type { Context } from '../../autograd.js';
import type { Device } from '../../device/device.js';
import { buildKernel } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { matrixShape, type Tensor } from '../../tensor.js';
import { prefetchVector, ROWS_AHEAD } from '../prefetch.js';

/** Cosines and sines for every position: [positions, headDim / 2] each. */
export interface RopeTables {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/**
 * The tables of a rotary embedding with frequencies theta^(-2i / headDim).
 * @param factors what each frequency is divided by, headDim / 2 of them; null leaves them as they are
 */
export function ropeTables(
  device: Device,
  positions: number,
  headDim: number,
  theta: number,
  factors: readonly number[] | null = null,
): RopeTables {
  const half = headDim / 2;
  const angles = Float64Array.from({ length: positions * half }, (_, i) => {
    const position = Math.floor(i / half);
    return (position * theta ** (-(2 * (i % half)) / headDim)) / (factors?.[i % half] ?? 1);
  });
  const table = (f: (x: number) => number) => {
    const t = device.tensor('other', [positions, half]);
    device.floats(t).set(angles.map(f));
    return t;
  };
  return { cos: table(Math.cos), sin: table(Math.sin) };
}

/** Rotates every head of a row by its position's angle; direction -1 turns back. */
function ropeKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'rope',
    target,
    {
      x: 'f32*',
      position: 'i32*',
      cos: 'f32*',
      sin: 'f32*',
      /** Elements from row to row. */
      width: 'i32',
      heads: 'i32',
      half: 'i32',
      direction: 'f32',
    },
    (b, p) => {
      const ahead = b.mul(p.width, ROWS_AHEAD);
      b.items((row) => {
        const angle = b.mul(b.loadInt(p.position, row), p.half);
        const rowStart = b.mul(row, p.width);
        b.loop(0, p.heads, 1, (head) => {
          const low = b.add(rowStart, b.mul(b.mul(head, p.half), 2));
          const high = b.add(low, p.half);
          b.vectors(p.half, (i, count) => {
            for (const start of [low, high]) prefetchVector(b, p.x, b.add(b.add(start, i), ahead));
            const cos = b.loadVec(p.cos, b.add(angle, i), count);
            const sin = b.mul(b.loadVec(p.sin, b.add(angle, i), count), b.splat(p.direction));
            const x = b.loadVec(p.x, b.add(low, i), count);
            const y = b.loadVec(p.x, b.add(high, i), count);
            b.store(p.x, b.add(low, i), b.mulAdd(x, cos, b.neg(b.mul(y, sin))), count);
            b.store(p.x, b.add(high, i), b.mulAdd(y, cos, b.mul(x, sin)), count);
          });
        });
      });
    },
  );
}

/**
 * Rotates the first `heads` heads of each row of x[rows, width] in place by position[rows]; in the backward pass its
 * gradient is turned back in place. The positions lie inside the tables: whoever makes a batch checks them.
 */
export function rope(
  { device, tape }: Context,
  x: Tensor,
  heads: number,
  positions: Tensor,
  tables: RopeTables,
): void {
  const half = tables.cos.shape[1];
  const [, width] = matrixShape(x);
  if (2 * half * heads > width)
    throw refuse('bad-kernel', `${heads} heads of ${2 * half} in rows`, x.shape, 'shapes must fit');
  const turn = (t: Tensor, direction: number) =>
    device.launch(
      device.kernel('rope', ropeKernel),
      positions.size,
      [t, positions, tables.cos, tables.sin],
      [width, heads, half, direction],
      32,
    );
  turn(x, 1);
  tape?.record([], () => {
    const dx = tape.arrived(x);
    if (dx) turn(dx, -1);
  });
}
