// How keys and values lie in memory for attention: blocks of 16 positions, shared by training and generation.
//
// Keys are kept transposed, [blocks, kvHeads, headDim, 16], so that vectors run over positions; values as
// [blocks, kvHeads, 16, vStride], so that vectors run over the head's dimension. Position p of a sequence is in entry
// floor(p / 16) of its block table: blocks are aligned to absolute positions, so a row's result is the same alone, in
// a batch, or after a shared prefix.
//
// As bfloat16 an element has two numbers: of keys, dimensions 2 i and 2 i + 1; of values, a dimension and the one `lanes`
// further. So a position's numbers share elements with no other position's.
import { refuse } from '../../../errors.js';
import { bufferOf, type Dtype, narrow, perElement, suffixOf } from '../../kernel/bfloat16.js';
import { buildKernel, type I32 } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { prefetchAll, ROWS_AHEAD } from '../prefetch.js';

/** Positions in a block: a multiple of every target's lanes. */
export const BLOCK = 16;

export interface HeadShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** Elements of a row of joined queries, keys and values: [heads + 2 kvHeads, headDim]. */
export function rowWidth({ heads, kvHeads, headDim }: HeadShape): number {
  return (heads + 2 * kvHeads) * headDim;
}
/** Where a row's keys and values begin. */
export function keysAt({ heads, headDim }: HeadShape): number {
  return heads * headDim;
}
export function valuesAt({ heads, kvHeads, headDim }: HeadShape): number {
  return (heads + kvHeads) * headDim;
}

/** Elements between the values of neighbouring positions: headDim rounded up to whole vectors; of bfloat16 to pairs of them. */
export function valueStride(target: TargetInfo, headDim: number, dtype: Dtype = 'float32'): number {
  return Math.ceil(headDim / (perElement(dtype) * target.lanes)) * target.lanes;
}

/**
 * Elements of one block's transposed keys and of its values.
 * @throws RetortError bad-kernel for lanes that do not divide a block: a vector of scores would reach into the next one;
 * for an odd headDim as bfloat16
 */
export function blockSizes(
  target: TargetInfo,
  { kvHeads, headDim }: HeadShape,
  dtype: Dtype = 'float32',
): { keys: number; values: number } {
  if (BLOCK % target.lanes !== 0)
    throw refuse('bad-kernel', 'lanes for attention', target.lanes, `they must divide a block of ${BLOCK}`);
  if (headDim % perElement(dtype) !== 0)
    throw refuse('bad-kernel', `head dimension for ${dtype} keys`, headDim, 'it must be even');
  return {
    keys: (kvHeads * headDim * BLOCK) / perElement(dtype),
    values: kvHeads * valueStride(target, headDim, dtype) * BLOCK,
  };
}

export function shapeKey({ heads, kvHeads, headDim }: HeadShape): string {
  return `${heads}/${kvHeads}/${headDim}`;
}

/**
 * Writes the keys or values that begin at element `start` of each row of x[rows, rowWidth] transposed into blocks:
 * slot[row] = block * 16 + place. An item is a row.
 */
export function storeTransposedKernel(
  target: TargetInfo,
  shape: HeadShape,
  start: number,
  dtype: Dtype,
): Kernel {
  const { kvHeads, headDim } = shape;
  const fields = { x: 'f32*', slot: 'i32*', blocks: bufferOf(dtype) } as const;
  return buildKernel(`store-transposed${suffixOf(dtype)}`, target, fields, (b, p) => {
    const size = (kvHeads * headDim) / perElement(dtype);
    b.items((row) => {
      const slot = b.loadInt(p.slot, row);
      const block = b.div(slot, BLOCK);
      const to = b.add(b.mul(block, size * BLOCK), b.rem(slot, BLOCK));
      const from = b.add(b.mul(row, rowWidth(shape)), start);
      prefetchAll(b, p.x, b.add(from, ROWS_AHEAD * rowWidth(shape)), kvHeads * headDim);
      const put = (i: I32) => {
        const at = b.add(to, b.mul(i, BLOCK));
        if (p.blocks.element === 'f32') b.store(p.blocks, at, b.load(p.x, b.add(from, i)));
        else {
          const first = b.add(from, b.mul(i, 2));
          b.store(p.blocks, at, narrow(b, b.load(p.x, first), b.load(p.x, first, 1)));
        }
      };
      // Each element has a line of its own: those of the next row are asked for where they are others.
      const nextBlock = b.div(b.loadInt(p.slot, b.min(b.add(row, 1), b.sub(b.end, 1))), BLOCK);
      const next = b.mul(nextBlock, size * BLOCK);
      b.if(
        b.eq(block, nextBlock),
        () => b.loop(0, size, 1, put),
        () =>
          b.loop(0, size, 1, (i) => {
            b.prefetch(p.blocks, b.add(next, b.mul(i, BLOCK)));
            put(i);
          }),
      );
    });
  });
}

/** Writes the values of x[rows, rowWidth] into their blocks, the padding as 0. An item is a row. */
export function storeRowsKernel(target: TargetInfo, shape: HeadShape, dtype: Dtype): Kernel {
  const { kvHeads, headDim } = shape;
  const stride = valueStride(target, headDim, dtype);
  const fields = { x: 'f32*', slot: 'i32*', blocks: bufferOf(dtype) } as const;
  return buildKernel(`store-rows${suffixOf(dtype)}`, target, fields, (b, p) => {
    b.items((row) => {
      const slot = b.loadInt(p.slot, row);
      const place = b.rem(slot, BLOCK);
      const block = b.mul(b.div(slot, BLOCK), kvHeads * BLOCK);
      const next = b.add(b.mul(b.add(row, ROWS_AHEAD), rowWidth(shape)), valuesAt(shape));
      prefetchAll(b, p.x, next, kvHeads * headDim);
      for (let head = 0; head < kvHeads; head++) {
        const to = b.mul(b.add(b.add(block, head * BLOCK), place), stride);
        const from = b.add(b.mul(row, rowWidth(shape)), valuesAt(shape) + head * headDim);
        /** The head's numbers from the i-th on, past its end 0. */
        const vector = (i: number) => {
          if (i >= headDim) return b.zero();
          return b.loadVec(p.x, from, headDim - i < b.lanes ? b.int(headDim - i) : undefined, i);
        };
        for (let i = 0; i < stride; i += b.lanes) {
          if (p.blocks.element === 'f32') b.store(p.blocks, to, vector(i), undefined, i);
          else b.store(p.blocks, to, narrow(b, vector(2 * i), vector(2 * i + b.lanes)), undefined, i);
        }
      }
    });
  });
}

/** Copies whole blocks of `size` elements: block to[i] = block from[i]. An item is a block. */
export function copyBlocksKernel(target: TargetInfo, dtype: Dtype): Kernel {
  return buildKernel(
    `copy-blocks${suffixOf(dtype)}`,
    target,
    { blocks: bufferOf(dtype), from: 'i32*', to: 'i32*', size: 'i32' },
    (b, p) => {
      b.items((item) => {
        const from = b.mul(b.loadInt(p.from, item), p.size);
        const to = b.mul(b.loadInt(p.to, item), p.size);
        b.vectors(p.size, (i, count) => {
          const [read, written] = [b.add(from, i), b.add(to, i)];
          if (p.blocks.element === 'f32') b.store(p.blocks, written, b.loadVec(p.blocks, read, count), count);
          else b.store(p.blocks, written, b.loadIVec(p.blocks, read, count), count);
        });
      });
    },
  );
}
