// Causal grouped-query attention: over the blocks of a cache when generating, over a packed batch when training.
import { refuse } from '../../../errors.js';
import type { Context } from '../../autograd.js';
import type { Device } from '../../device/device.js';
import { dtypeOf } from '../../kernel/bfloat16.js';
import { type Tensor, viewOf } from '../../tensor.js';
import {
  attendKernel,
  attentionBackwardKernel,
  backwardScratch,
  SEQUENCE_WORDS,
  TILE_WORDS,
  type TileShape,
  tileShapes,
} from './kernel.js';
import {
  BLOCK,
  blockSizes,
  type HeadShape,
  keysAt,
  rowWidth,
  shapeKey,
  storeRowsKernel,
  storeTransposedKernel,
  valuesAt,
} from './layout.js';

/** Scores of one row and all heads at most for which an item takes them all: 128 KiB stay in a core's own cache. */
const SCORES_NEAR = 2 ** 15;

/** Blocks of keys (transposed) and values of one layer. */
export interface KvBlocks {
  readonly keys: Tensor;
  readonly values: Tensor;
}

/** Which rows attend to what; made once for a batch and used by every layer. All of it is checked by its maker. */
export interface AttentionPlan {
  /** Where each row's key and value go: block * 16 + place. i32[rows]. */
  readonly slots: Tensor;
  /** Block tables of all sequences, one after another. i32. */
  readonly tables: Tensor;
  /** Tiles, or those taken together, by their shapes: i32[n, TILE_WORDS] each. */
  readonly tiles: readonly { readonly shape: TileShape; readonly which: Tensor }[];
  /** Scratch elements a row needs: the longest sequence in whole blocks. */
  readonly scratchStride: number;
}

/** A plan for a packed batch of whole sequences, with what the backward pass needs. */
export interface PackedPlan extends AttentionPlan {
  readonly blocks: number;
  /** i32[sequences, SEQUENCE_WORDS], dealt for threads to take stretches of. */
  readonly sequences: Tensor;
}

/** One stretch of neighbouring rows of a sequence. */
export interface Span {
  readonly firstRow: number;
  readonly rows: number;
  /** Position of the first row in its sequence. */
  readonly position: number;
  /** The sequence's blocks, in order; they cover position + rows. */
  readonly table: readonly number[];
}

/** Lays out the rows of a batch; temporaries of the step arena. */
export function planAttention(device: Device, spans: readonly Span[]): AttentionPlan {
  const slots = new Int32Array(spans.reduce((sum, { rows }) => sum + rows, 0));
  const tables: number[] = [];
  const tiles = tileShapes(device.target).map((shape) => ({ shape, which: [] as number[] }));
  let longest = 0;
  for (const { firstRow, rows, position, table } of spans) {
    const end = position + rows;
    if (table.length * BLOCK < end) {
      throw refuse(
        'bad-kernel',
        'block table of a sequence',
        table.length,
        `${Math.ceil(end / BLOCK)} blocks are needed`,
      );
    }
    longest = Math.max(longest, end);
    for (let i = 0; i < rows; i++) {
      const at = position + i;
      slots[firstRow + i] = table[Math.floor(at / BLOCK)] * BLOCK + (at % BLOCK);
    }
    let i = 0;
    while (i < rows) {
      const { shape, which } = tiles.find((t) => fits(t.shape, rows - i, position + i))!;
      which.push(firstRow + i, tables.length, position + i);
      i += shape.rows * shape.tiles;
    }
    for (let t = 0; t * BLOCK < end; t++) tables.push(table[t]);
  }
  return {
    slots: device.upload(slots, 'i32'),
    tables: device.upload(tables, 'i32'),
    tiles: tiles.map(({ shape, which }) => ({
      shape,
      which: device.upload(which, 'i32', [which.length / TILE_WORDS, TILE_WORDS]),
    })),
    scratchStride: Math.ceil(longest / BLOCK) * BLOCK,
  };
}

/** Whether so many rows from a position on are enough for a shape of tiles, and far enough on. A single row always is. */
function fits({ rows, tiles, from }: TileShape, left: number, position: number): boolean {
  return rows * tiles <= left && from <= position;
}

/** A plan for so many single rows of sequences of at most `longest` positions, to be filled by `fillRows` again and again. */
export function planRows(device: Device, rows: number, longest: number): AttentionPlan {
  const blocks = Math.ceil(longest / BLOCK);
  return {
    slots: device.temporary([rows], 'i32'),
    tables: device.temporary([rows, blocks], 'i32'),
    tiles: [{ shape: tileShapes(device.target).at(-1)!, which: device.temporary([rows, TILE_WORDS], 'i32') }],
    scratchStride: blocks * BLOCK,
  };
}

/** Fills a plan that `planRows` made: where each row stands, and the blocks of its sequence in order. */
export function fillRows(
  device: Device,
  plan: AttentionPlan,
  rows: readonly Pick<Span, 'position' | 'table'>[],
): void {
  const [count, blocks] = plan.tables.shape;
  const [slots, tables, tiles] = [plan.slots, plan.tables, plan.tiles[0].which].map((t) => device.ints(t));
  if (rows.length !== count)
    throw refuse('bad-kernel', `sequences for ${count} rows`, rows.length, 'give one a row');
  for (let row = 0; row < count; row++) {
    const { position, table } = rows[row];
    const used = Math.floor(position / BLOCK);
    if (used >= table.length || used >= blocks)
      throw refuse(
        'bad-kernel',
        'position of a row',
        position,
        `${table.length} and ${blocks} blocks hold less`,
      );
    slots[row] = table[used] * BLOCK + (position % BLOCK);
    tiles[TILE_WORDS * row] = row;
    tiles[TILE_WORDS * row + 1] = row * blocks;
    tiles[TILE_WORDS * row + 2] = position;
    for (let i = 0; i <= used; i++) tables[row * blocks + i] = table[i];
  }
}

/**
 * The numbers of the sequences in an order of which neighbouring stretches, a thread's each, hold long and short ones
 * alike: attention's time grows with the square of the length. From the longest to the shortest they go to the stretches
 * in turn, by the bits of their rank from the last to the first.
 */
function dealt(lengths: readonly number[]): number[] {
  const bits = 32 - Math.clz32(lengths.length);
  const reversed = (rank: number) => {
    let place = 0;
    for (let bit = 0; bit < bits; bit++) place |= ((rank >> bit) & 1) << (bits - 1 - bit);
    return place;
  };
  return lengths
    .map((_, i) => i)
    .sort((a, b) => lengths[b] - lengths[a])
    .map((sequence, rank) => ({ sequence, place: reversed(rank) }))
    .sort((a, b) => a.place - b.place)
    .map(({ sequence }) => sequence);
}

/** A plan for whole sequences of these lengths, at least 1, packed one after another. */
export function planPacked(device: Device, lengths: readonly number[]): PackedPlan {
  const spans: Span[] = [];
  let firstRow = 0;
  let blocks = 0;
  for (const rows of lengths) {
    const count = Math.ceil(rows / BLOCK);
    spans.push({ firstRow, rows, position: 0, table: Array.from({ length: count }, (_, i) => blocks + i) });
    firstRow += rows;
    blocks += count;
  }
  const inTurn = dealt(lengths).map((i) => spans[i]);
  const sequences = inTurn.flatMap(({ firstRow, rows, table }) => [firstRow, rows, table[0]]);
  return {
    ...planAttention(device, inTurn),
    blocks,
    sequences: device.upload(sequences, 'i32', [lengths.length, SEQUENCE_WORDS]),
  };
}

/** Writes the keys and values of rows qkv[rows, rowWidth] into their blocks. */
export function storeKeysValues(
  device: Device,
  shape: HeadShape,
  qkv: Tensor,
  slots: Tensor,
  into: KvBlocks,
): void {
  storeTransposed(device, shape, qkv, keysAt(shape), slots, into.keys);
  const dtype = dtypeOf(into.values);
  const rows = device.kernel(`store-rows ${dtype} ${shapeKey(shape)}`, (t) =>
    storeRowsKernel(t, shape, dtype),
  );
  device.launch(rows, slots.size, [qkv, slots, into.values], [], 64);
}

function storeTransposed(
  device: Device,
  shape: HeadShape,
  qkv: Tensor,
  start: number,
  slots: Tensor,
  blocks: Tensor,
): void {
  const dtype = dtypeOf(blocks);
  const key = `store-transposed ${dtype} ${shapeKey(shape)} from ${start}`;
  const kernel = device.kernel(key, (t) => storeTransposedKernel(t, shape, start, dtype));
  device.launch(kernel, slots.size, [qkv, slots, blocks], [], 64);
}

/**
 * out[rows, heads * headDim] and lse[rows, heads] for the queries of qkv[rows, rowWidth] over blocks that already hold
 * their keys and values.
 */
export function attend(
  device: Device,
  shape: HeadShape,
  qkv: Tensor,
  { keys, values }: KvBlocks,
  plan: AttentionPlan,
): { out: Tensor; lse: Tensor } {
  const { heads, headDim } = shape;
  const dtype = dtypeOf(keys);
  const rows = plan.slots.size;
  if (qkv.size !== rows * rowWidth(shape))
    throw refuse('bad-kernel', `queries for ${rows} rows`, qkv.shape, 'shapes must fit');
  const out = device.temporary([rows, heads * headDim]);
  const lse = device.temporary([rows, heads]);
  for (const { shape: tile, which } of plan.tiles) {
    const count = which.shape[0];
    if (count === 0) continue;
    const tileRows = tile.rows * tile.tiles;
    // Rows of a recording are dealt out to the threads whole; elsewhere few rows are by their heads, so that each has
    // some.
    const many = device.isRecording || count >= 4 * device.threads;
    const whole = tileRows === 1 && many && heads * plan.scratchStride <= SCORES_NEAR;
    const span = whole ? heads : 1;
    const key = `attend ${tileRows} ${span} ${dtype} ${shapeKey(shape)}`;
    const kernel = device.kernel(key, (t) => attendKernel(t, shape, { ...tile, span }, dtype));
    const mark = device.mark();
    const items = (count * heads) / span;
    const grain = Math.ceil(4 / (span * tile.tiles));
    const scratch = device.temporary([device.parts(items, grain), span, tileRows, plan.scratchStride]);
    const buffers = [qkv, keys, values, which, plan.tables, out, lse, scratch];
    const scalars = [plan.scratchStride, 1 / Math.sqrt(headDim)];
    device.launch(kernel, items, buffers, scalars, grain);
    device.rewind(mark);
  }
  return { out, lse };
}

/**
 * Causal attention of a packed batch: out[rows, heads * headDim] of qkv[rows, rowWidth]. qkv must have no other use.
 */
export function attention(
  { device, tape }: Context,
  shape: HeadShape,
  qkv: Tensor,
  plan: PackedPlan,
): Tensor {
  const sizes = blockSizes(device.target, shape);
  const kv = {
    keys: device.temporary([plan.blocks, sizes.keys]),
    values: device.temporary([plan.blocks, sizes.values]),
  };
  storeKeysValues(device, shape, qkv, plan.slots, kv);
  const { out, lse } = attend(device, shape, qkv, kv, plan);
  tape?.record([out], () => {
    const dout = tape.arrived(out);
    if (!dout) return;
    const dqkv = tape.contribute(qkv);
    if (dqkv.accumulate) throw refuse('bad-kernel', 'attention input', 'used twice', 'use it once');
    const mark = device.mark();
    // The values are needed transposed now; their own blocks are free for it, and never smaller.
    const transposed = viewOf(kv.values, [plan.blocks, sizes.keys]);
    storeTransposed(device, shape, qkv, valuesAt(shape), plan.slots, transposed);
    const items = plan.sequences.shape[0] * shape.kvHeads;
    const rows = backwardScratch(device.target, shape.headDim);
    const scratch = device.temporary([device.parts(items), rows, plan.scratchStride]);
    device.launch(
      device.kernel(`attention-backward ${shapeKey(shape)}`, (t) => attentionBackwardKernel(t, shape)),
      items,
      [qkv, kv.keys, transposed, out, lse, dout, plan.sequences, dqkv.tensor, scratch],
      [plan.scratchStride, 1 / Math.sqrt(shape.headDim)],
    );
    device.rewind(mark);
  });
  return out;
}
