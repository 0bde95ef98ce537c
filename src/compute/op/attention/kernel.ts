// Attention kernels, forward and backward, over blocks of keys and values. Vaswani et al. (2017), eq. 1, causal.
//
// A tile is `rows` neighbouring queries of one sequence and one head; what a row computes does not depend on its tile.
import {
  bufferOf,
  type Dtype,
  loadNumbers,
  type Numbers,
  perElement,
  suffixOf,
} from '../../kernel/bfloat16.js';
import {
  type Buffer,
  type Builder,
  buildKernel,
  type F32,
  type I32,
  type Int,
  type Variable,
  type Vec,
} from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { exp, log } from '../../kernel/math.js';
import { LINE, prefetchNear, ROWS_AHEAD } from '../prefetch.js';
import { BLOCK, type HeadShape, keysAt, rowWidth, valueStride, valuesAt } from './layout.js';

/** Queries in a tile, largest first: with twice the registers there is one of twice the rows. */
export function tileSizes(target: TargetInfo): readonly number[] {
  return target.vectorRegisters >= 32 ? [8, 4, 1] : [4, 1];
}
/** Tiles that an item takes together. */
export interface TileShape {
  /** Of one tile. */
  readonly rows: number;
  readonly tiles: number;
  /** Position of the first row from which on it pays. */
  readonly from: number;
}
/**
 * Shapes of items, to be tried in this order: from some position on several tiles share what is read of keys and values,
 * which outgrow the second-level cache.
 */
export function tileShapes(target: TargetInfo): readonly TileShape[] {
  const sizes = tileSizes(target);
  return [{ rows: sizes[0], tiles: 4, from: 1024 }, ...sizes.map((rows) => ({ rows, tiles: 1, from: 0 }))];
}
/** Blocks that several tiles go through before the next ones. */
const STRETCH = 16;
/** Numbers that describe a tile, or some together: first row, start of the block table, position of the first row. */
export const TILE_WORDS = 3;
/** Numbers that describe a sequence to attentionBackwardKernel: first row, rows, first block. */
export const SEQUENCE_WORDS = 3;

/**
 * Vectors of a tile beside its rows: few rows leave registers for more vectors, which share a row's broadcast. What an
 * element is summed from, and in which order, does not depend on it.
 */
function tileVectors(rows: number): number {
  return rows === 1 ? 4 : 2;
}

/** The same of the backward pass, whatever the rows. */
const BACKWARD_VECTORS = 2;

/** Heads of a single row whose softmax is taken at once. */
const HEADS_AT_ONCE = 4;
/** Of a single row's heads that share keys and values, as many are taken at once as leave registers for their sums. */
function headsSharing({ vectorRegisters }: TargetInfo): number {
  return vectorRegisters >= 32 ? 4 : 2;
}
/** Elements of a head's values in the first block that are asked for before the softmax: nothing has read near them yet. */
const FIRST_ASKED = 8 * LINE;

/** Keys that the backward pass takes all tiles through before the next: what it holds of them stays in a core's own cache. */
function nearKeys(headDim: number): number {
  return Math.max(4 * BLOCK, Math.floor(12288 / headDim / BLOCK) * BLOCK);
}

/**
 * Accumulates rows x vectors products over steps in [from, to): acc[r][v] += a(step)(r)[i] * columns(step)[i][v], for one
 * or several i in turn.
 */
function product(
  b: Builder,
  acc: readonly (readonly Variable<'vec'>[])[],
  from: I32 | number,
  to: I32 | number,
  a: (step: I32) => (r: number) => readonly F32[],
  columns: (step: I32) => readonly (readonly Vec[])[],
): void {
  b.loop(from, to, 1, (step) => {
    const all = columns(step);
    const elementsOf = a(step);
    for (let r = 0; r < acc.length; r++) {
      const elements = elementsOf(r);
      for (const [i, columns] of all.entries()) {
        const broadcast = b.splat(elements[i]);
        for (const [v, sum] of acc[r].entries()) sum.set(b.mulAdd(broadcast, columns[v], sum.get()));
      }
    }
  });
}

function accumulators(b: Builder, rows: number, vectors: number): Variable<'vec'>[][] {
  return Array.from({ length: rows }, () =>
    Array.from({ length: vectors }, () => b.variable<'vec'>(b.zero())),
  );
}

/** Groups of at most `most` vectors that cover n elements; the last vector may need a lane count. */
function groups(lanes: number, n: number, most: number): { start: number; vectors: number }[] {
  const total = Math.ceil(n / lanes);
  const out: { start: number; vectors: number }[] = [];
  for (let v = 0; v < total; v += most) out.push({ start: v * lanes, vectors: Math.min(most, total - v) });
  return out;
}

/** The lane count of the vector that starts at `start` of n elements; undefined where it is whole. */
function tailCount(b: Builder, n: number, start: number): I32 | undefined {
  return n - start < b.lanes ? b.int(n - start) : undefined;
}

/** Sums of a tile's rows from elements `start` on of headDim, which lie from `at` of each row on. */
function loadSums(
  b: Builder,
  acc: readonly (readonly Variable<'vec'>[])[],
  from: Buffer<'f32'>,
  at: readonly I32[],
  headDim: number,
  start: number,
): void {
  for (const [r, row] of acc.entries())
    for (const [v, sum] of row.entries()) {
      const lane = start + v * b.lanes;
      sum.set(b.loadVec(from, at[r], tailCount(b, headDim, lane), lane));
    }
}

/** The same the other way. */
function storeSums(
  b: Builder,
  acc: readonly (readonly Variable<'vec'>[])[],
  to: Buffer<'f32'>,
  at: readonly I32[],
  headDim: number,
  start: number,
): void {
  for (const [r, row] of acc.entries())
    for (const [v, sum] of row.entries()) {
      const lane = start + v * b.lanes;
      b.store(to, at[r], sum.get(), tailCount(b, headDim, lane), lane);
    }
}

/** Calls body for blocks from first to last: as many neighbouring ones at once as make so many vectors, then one by one. */
function eachBlocks(
  b: Builder,
  first: I32,
  last: I32,
  vectors: number,
  body: (block: I32, many: number) => void,
): void {
  const many = Math.max(1, (vectors * b.lanes) / BLOCK);
  const whole = b.sub(last, b.rem(b.sub(last, first), many));
  b.loop(first, whole, many, (block) => body(block, many));
  if (many > 1) b.loop(whole, last, 1, (block) => body(block, 1));
}

interface Scores {
  readonly headDim: number;
  /** Most vectors of a block at once. */
  readonly vectors: number;
  /** Where each row of the tile begins. */
  readonly rows: Buffer<'f32'>;
  readonly rowAt: readonly I32[];
  /** Neighbouring blocks, transposed, and where each begins. */
  readonly columns: Numbers;
  readonly blocks: readonly I32[];
  /** Position of the first key of the first block, and of each row. */
  readonly firstKey: I32;
  readonly positions: readonly I32[];
  /** Where what is read next begins; it is asked for meanwhile. Undefined where nothing is asked for. */
  readonly next?: I32;
  /** Where each row's numbers begin. */
  readonly scratch: Buffer<'f32'>;
  readonly to: readonly I32[];
  /** What is stored for keys past a row's own position. */
  readonly hidden: number;
}

/** Stores for each row of a tile and each key of some blocks what is `made` of the product of the two. */
function scoreBlocks(b: Builder, t: Scores, made: (product: Vec, r: number, lane: number) => Vec): void {
  const many = t.blocks.length;
  const deep = perElement(t.columns.element);
  const each = Array.from({ length: deep }, (_, i) => i);
  for (const { start, vectors } of groups(b.lanes, BLOCK, t.vectors)) {
    const laneOf = (v: number) => start + (v % vectors) * b.lanes;
    const acc = accumulators(b, t.rowAt.length, many * vectors);
    product(
      b,
      acc,
      0,
      t.headDim / deep,
      (step) => {
        const element = deep === 1 ? step : b.mul(step, deep);
        return (r) => {
          const at = b.add(t.rowAt[r], element);
          return each.map((i) => b.load(t.rows, at, i));
        };
      },
      (step) => {
        if (t.next) prefetchNear(b, t.columns, b.add(t.next, b.mul(step, BLOCK)), vectors * b.lanes);
        const columns = acc[0].map((_, v) => {
          const at = b.add(t.blocks[Math.floor(v / vectors)], b.mul(step, BLOCK));
          return loadNumbers(b, t.columns, at, laneOf(v));
        });
        return each.map((i) => columns.map((numbers) => numbers[i]));
      },
    );
    const put = (masked: boolean) => {
      for (let v = 0; v < many * vectors; v++) {
        const lane = BLOCK * Math.floor(v / vectors) + laneOf(v);
        const key = b.add(b.splatInt(b.add(t.firstKey, lane)), b.iota());
        for (let r = 0; r < acc.length; r++) {
          const seen = masked && b.le(key, b.splatInt(t.positions[r]));
          const value = made(acc[r][v].get(), r, lane);
          const stored = seen ? b.select(seen, value, t.hidden) : value;
          b.store(t.scratch, b.add(t.to[r], t.firstKey), stored, undefined, lane);
        }
      }
    };
    b.if(
      b.lt(t.positions[0], b.add(t.firstKey, many * BLOCK - 1)),
      () => put(true),
      () => put(false),
    );
  }
}

/** What an item of attendKernel is: tiles of one head, or one row and `span` neighbouring heads: 1 or all. */
export interface AttendShape extends Pick<TileShape, 'rows' | 'tiles'> {
  readonly span: number;
}

/**
 * out[row, head] = softmax(q k^T scale) v over positions up to the row's own; lse = log of the softmax's denominator.
 *
 * An item is one tile and `span` neighbouring heads, or several neighbouring tiles and one head. One row reads a block for
 * all of an item's heads before the next block, because it holds them side by side: a long cache is then read in long
 * stretches, at twice the speed. Several rows make more of what they read, and several tiles go through some blocks one
 * after another before the next ones.
 */
export function attendKernel(
  target: TargetInfo,
  shape: HeadShape,
  { rows, tiles, span }: AttendShape,
  dtype: Dtype,
): Kernel {
  const { heads, kvHeads, headDim } = shape;
  const perGroup = heads / kvHeads;
  const stride = valueStride(target, headDim, dtype);
  /** Elements of a head's keys in a block, and of its values. */
  const [keysOfHead, valuesOfHead] = [(headDim * BLOCK) / perElement(dtype), stride * BLOCK];
  return buildKernel(
    `attend-${rows}${suffixOf(dtype)}`,
    target,
    {
      /** Rows of joined queries, keys and values, of which only the queries are read. */
      qkv: 'f32*',
      keys: bufferOf(dtype),
      values: bufferOf(dtype),
      tiles: 'i32*',
      tables: 'i32*',
      out: 'f32*',
      lse: 'f32*',
      scratch: 'f32*',
      /** Scratch elements for a row and head: at least the keys, rounded up to whole blocks. */
      scratchStride: 'i32',
      scale: 'f32',
    },
    (b, p) => {
      b.items((item) => {
        const firstHead = b.rem(b.mul(item, span), heads);
        const tileAt = b.mul(b.div(b.mul(item, span), heads), TILE_WORDS);
        const firstRow = b.loadInt(p.tiles, tileAt);
        const table = b.loadInt(p.tiles, tileAt, 1);
        const position = b.loadInt(p.tiles, tileAt, 2);
        const keys = b.add(position, rows * tiles);
        const blocks = b.div(b.add(keys, BLOCK - 1), BLOCK);
        const blockAt = (i: I32) => b.mul(b.loadInt(p.tables, b.add(table, i)), kvHeads);
        const headIn = (block: I32, kvHead: I32, size: number) =>
          b.add(b.mul(block, size), b.mul(kvHead, size));
        const scale = b.splat(p.scale);
        /** A row and head of the item. */
        interface Member {
          readonly kvHead: I32;
          readonly position: I32;
          /** Its place in lse, in qkv and in out, and its scores'. */
          readonly at: I32;
          readonly queryAt: I32;
          readonly outAt: I32;
          readonly scoreAt: I32;
        }
        /** What is taken at once: a tile's rows, or heads of the one row. */
        type Members = readonly Member[];
        const memberOf = (h: I32, before: I32): Member => {
          const head = b.add(firstHead, h);
          const row = b.add(firstRow, before);
          const at = b.add(b.mul(row, heads), head);
          const scores = b.add(b.mul(b.add(b.mul(b.part, span), h), rows * tiles), before);
          return {
            kvHead: b.div(head, perGroup),
            position: b.add(position, before),
            at,
            queryAt: b.add(b.mul(row, rowWidth(shape)), b.mul(head, headDim)),
            outAt: b.mul(at, headDim),
            scoreAt: b.mul(scores, p.scratchStride),
          };
        };

        /**
         * Stores the scores of `many` neighbouring blocks, those past a row's own position as -Infinity. Members have the
         * same keys and values, here and in mix.
         */
        const score = (block: I32, many: number, members: Members, next?: I32) => {
          const { kvHead } = members[0];
          const scores: Scores = {
            headDim,
            vectors: tileVectors(rows),
            rows: p.qkv,
            rowAt: members.map(({ queryAt }) => queryAt),
            columns: p.keys,
            blocks: Array.from({ length: many }, (_, i) =>
              headIn(blockAt(b.add(block, i)), kvHead, keysOfHead),
            ),
            firstKey: b.mul(block, BLOCK),
            positions: members.map(({ position }) => position),
            next,
            scratch: p.scratch,
            to: members.map(({ scoreAt }) => scoreAt),
            hidden: Number.NEGATIVE_INFINITY,
          };
          scoreBlocks(b, scores, (product) => b.mul(product, scale));
        };

        /** All members at once, so that none waits for another's last operation. */
        const softmax = (members: Members) => {
          const eachScore = (body: (scores: readonly Vec[], at: readonly I32[]) => void) =>
            b.loop(0, b.mul(blocks, BLOCK), b.lanes, (i) => {
              const scoresOf = members.map(({ scoreAt }) => b.add(scoreAt, i));
              body(
                scoresOf.map((of) => b.loadVec(p.scratch, of)),
                scoresOf,
              );
            });
          const peaks = members.map(() => b.variable<'vec'>(b.splat(Number.NEGATIVE_INFINITY)));
          eachScore((scores) => {
            for (const [r, score] of scores.entries()) peaks[r].set(b.max(peaks[r].get(), score));
          });
          const highest = peaks.map((peak) => b.hmax(peak.get()));
          const wide = highest.map((h) => b.splat(h));
          const sums = members.map(() => b.variable<'vec'>(b.zero()));
          eachScore((scores, of) => {
            for (const [r, score] of scores.entries()) {
              const e = exp(b, b.sub(score, wide[r]));
              b.store(p.scratch, of[r], e);
              sums[r].set(b.add(sums[r].get(), e));
            }
          });
          const totals = sums.map((sum) => b.hsum(sum.get()));
          for (const [r, total] of totals.entries())
            b.store(p.lse, members[r].at, b.add(highest[r], log(b, total)));
          const inverses = totals.map((total) => b.splat(b.div(1, total)));
          eachScore((es, of) => {
            for (const [r, e] of es.entries()) b.store(p.scratch, of[r], b.mul(e, inverses[r]));
          });
        };

        /** Elements of the head that a tile goes through the values for at once. */
        const parts = groups(b.lanes, headDim, tileVectors(rows));
        /** Adds the probabilities of the blocks in [from, to) times part of their values; out holds the sums of the blocks before. */
        const mix = (
          from: I32,
          to: I32,
          members: Members,
          { start, vectors }: (typeof parts)[number],
          next?: I32,
        ) => {
          const { kvHead } = members[0];
          const outAt = members.map((member) => member.outAt);
          const acc = accumulators(b, members.length, vectors);
          if (rows === 1 || tiles > 1)
            b.if(b.lt(0, from), () => loadSums(b, acc, p.out, outAt, headDim, start));
          b.loop(from, to, 1, (block) => {
            const first = b.mul(block, BLOCK);
            const valuesOf = headIn(blockAt(block), kvHead, valuesOfHead);
            product(
              b,
              acc,
              0,
              b.min(BLOCK, b.sub(keys, first)),
              (j) => (r) => [b.load(p.scratch, b.add(b.add(members[r].scoreAt, first), j))],
              (j) => {
                const row = b.mul(j, stride);
                const lane = start / perElement(dtype);
                const width = (vectors * b.lanes) / perElement(dtype);
                if (next) prefetchNear(b, p.values, b.add(b.add(next, lane), row), width);
                const at = b.add(valuesOf, row);
                const columns: Vec[] = [];
                for (let i = 0; i < width; i += b.lanes)
                  columns.push(...loadNumbers(b, p.values, at, lane + i));
                return [columns];
              },
            );
          });
          storeSums(b, acc, p.out, outAt, headDim, start);
        };

        if (rows > 1) {
          const tileOf = (tile: I32): Members =>
            Array.from({ length: rows }, (_, r) => memberOf(b.int(0), b.add(b.mul(tile, rows), r)));
          const eachTile = (body: (members: Members) => void) =>
            tiles > 1 ? b.loop(0, tiles, 1, (tile) => body(tileOf(tile))) : body(tileOf(b.int(0)));
          const eachStretch = (body: (from: I32, to: I32) => void) =>
            tiles > 1
              ? b.loop(0, blocks, STRETCH, (from) => body(from, b.min(blocks, b.add(from, STRETCH))))
              : body(b.int(0), blocks);
          eachStretch((from, to) =>
            eachTile((members) =>
              eachBlocks(b, from, to, tileVectors(rows), (block, many) => score(block, many, members)),
            ),
          );
          eachTile(softmax);
          for (const part of parts)
            eachStretch((from, to) => eachTile((members) => mix(from, to, members, part)));
          return;
        }

        /** Of `count` heads from `first` on, `most` at a time. */
        const eachHeads = (first: I32, count: number, most: number, body: (members: Members) => void) => {
          const membersOf = (from: I32, size: number) =>
            body(Array.from({ length: size }, (_, i) => memberOf(b.add(b.add(first, from), i), b.int(0))));
          const rest = count % most;
          if (count >= most) b.loop(0, count - rest, most, (from) => membersOf(from, most));
          if (rest > 0) membersOf(b.int(count - rest), rest);
        };
        const groupSize = Math.min(span, perGroup);
        /** Heads that share keys and values, some at a time. */
        const eachSharing = (body: (members: Members) => void) =>
          b.loop(0, span, groupSize, (first) => eachHeads(first, groupSize, headsSharing(target), body));
        /** Where what is read next begins: the next head's part of a block, or, of one head, that of the next block. */
        const nextOf = (block: I32, { kvHead }: Member, size: number): I32 | undefined => {
          if (!target.prefetches) return undefined;
          const following = span === 1 ? kvHead : b.rem(b.add(kvHead, 1), kvHeads);
          const turn = span === 1 ? b.int(1) : b.div(b.add(kvHead, 1), kvHeads);
          return headIn(blockAt(b.min(b.add(block, turn), b.sub(blocks, 1))), following, size);
        };
        b.loop(0, blocks, 1, (block) =>
          eachSharing((members) => score(block, 1, members, nextOf(block, members[0], keysOfHead))),
        );
        eachHeads(b.int(0), span, HEADS_AT_ONCE, (members) => {
          if (target.prefetches)
            for (const { kvHead } of members)
              prefetchNear(b, p.values, headIn(blockAt(b.int(0)), kvHead, valuesOfHead), FIRST_ASKED);
          softmax(members);
        });
        b.loop(0, blocks, 1, (block) =>
          eachSharing((members) => {
            const next = nextOf(block, members[0], valuesOfHead);
            for (const part of parts) mix(block, b.add(block, 1), members, part, next);
          }),
        );
      });
    },
  );
}

/**
 * Scratch elements for a key: a tile's rows of probabilities and as many of score gradients, then rows of keys and of the
 * gradients of keys and values.
 */
export function backwardScratch(target: TargetInfo, headDim: number): number {
  return 2 * tileSizes(target)[0] + 3 * valueStride(target, headDim);
}

/**
 * Gradients of attention from those of its output, probabilities made anew from lse. An item is one sequence and one
 * key/value head: it owns dk and dv of that head and dq of the query heads that share it. dqkv is overwritten.
 */
export function attentionBackwardKernel(target: TargetInfo, shape: HeadShape): Kernel {
  const { heads, kvHeads, headDim } = shape;
  const perGroup = heads / kvHeads;
  const sizes = tileSizes(target);
  const largest = sizes[0];
  return buildKernel(
    'attention-backward',
    target,
    {
      qkv: 'f32*',
      /** Keys and values, both transposed, in blocks. */
      keys: 'f32*',
      values: 'f32*',
      out: 'f32*',
      lse: 'f32*',
      dout: 'f32*',
      sequences: 'i32*',
      dqkv: 'f32*',
      /** Per part `backwardScratch` x scratchStride elements. */
      scratch: 'f32*',
      /** At least the keys, rounded up to whole blocks. */
      scratchStride: 'i32',
      scale: 'f32',
    },
    (b, p) => {
      const width = rowWidth(shape);
      const stride = valueStride(target, headDim);
      const near = nearKeys(headDim);
      const part = b.mul(b.mul(b.part, backwardScratch(target, headDim)), p.scratchStride);
      const scratchAt = (rows: Int) => b.add(part, b.mul(rows, p.scratchStride));
      // Side by side: in qkv and dqkv rows are so far apart that they push each other out of the first-level cache.
      const [keyRows, keySums, valueSums] = [0, 1, 2].map((i) => scratchAt(2 * largest + i * stride));
      b.items((item) => {
        const kvHead = b.rem(item, kvHeads);
        const at = b.mul(b.div(item, kvHeads), SEQUENCE_WORDS);
        const firstRow = b.loadInt(p.sequences, at);
        const length = b.loadInt(p.sequences, at, 1);
        const firstBlock = b.loadInt(p.sequences, at, 2);
        const firstAt = b.mul(firstRow, width);
        const keyStart = b.add(b.add(firstAt, keysAt(shape)), b.mul(kvHead, headDim));
        const valueStart = b.add(b.add(firstAt, valuesAt(shape)), b.mul(kvHead, headDim));
        const scale = b.splat(p.scale);
        /** Calls body for the vectors of each of the sequence's rows, which may need a lane count in qkv and dqkv. */
        const eachVector = (body: (row: I32, inside: I32, lane: number, count: I32 | undefined) => void) =>
          b.loop(0, length, 1, (i) => {
            for (let lane = 0; lane < headDim; lane += b.lanes)
              body(b.mul(i, width), b.mul(i, stride), lane, tailCount(b, headDim, lane));
          });

        const ahead = ROWS_AHEAD * width;
        eachVector((row, inside, lane, count) => {
          if (lane === 0) prefetchNear(b, p.qkv, b.add(b.add(keyStart, row), ahead), headDim);
          const key = b.loadVec(p.qkv, b.add(keyStart, row), count, lane);
          b.store(p.scratch, b.add(keyRows, inside), key, undefined, lane);
          b.store(p.scratch, b.add(keySums, inside), b.zero(), undefined, lane);
          b.store(p.scratch, b.add(valueSums, inside), b.zero(), undefined, lane);
        });

        /** A tile's share of the gradients for a stretch of keys from `firstKey` on, of which it sees some. */
        const tile = (rows: number, head: I32, first: I32, firstKey: I32) => {
          const keys = b.min(b.add(first, rows), b.add(firstKey, near));
          const blocks = b.div(b.add(keys, BLOCK - 1), BLOCK);
          const index = Array.from({ length: rows }, (_, r) =>
            b.add(b.mul(b.add(b.add(firstRow, first), r), heads), head),
          );
          const rowAt = index.map((i) => b.mul(i, headDim));
          const queryAt = index.map((_, r) =>
            b.add(b.mul(b.add(b.add(firstRow, first), r), width), b.mul(head, headDim)),
          );
          const probabilityAt = index.map((_, r) => scratchAt(r));
          const gradientAt = index.map((_, r) => scratchAt(largest + r));
          const lse = index.map((i) => b.splat(b.load(p.lse, i)));
          const delta = rowAt.map((row) => {
            const sum = b.variable<'vec'>(b.zero());
            b.vectors(headDim, (d, count) => {
              const o = b.loadVec(p.out, b.add(row, d), count);
              sum.set(b.mulAdd(o, b.loadVec(p.dout, b.add(row, d), count), sum.get()));
            });
            return b.splat(b.hsum(sum.get()));
          });

          /** Stores probabilities of `many` neighbouring blocks and their scores' gradients; those of later keys are 0. */
          const differentiate = (block: I32, many: number) => {
            const blockAt = Array.from({ length: many }, (_, i) =>
              b.mul(b.add(b.mul(b.add(b.add(firstBlock, block), i), kvHeads), kvHead), headDim * BLOCK),
            );
            const before = b.mul(block, BLOCK);
            const queries: Scores = {
              headDim,
              vectors: BACKWARD_VECTORS,
              rows: p.qkv,
              rowAt: queryAt,
              columns: p.keys,
              blocks: blockAt,
              firstKey: before,
              positions: index.map((_, r) => b.add(first, r)),
              scratch: p.scratch,
              to: probabilityAt,
              hidden: 0,
            };
            scoreBlocks(b, queries, (score, r) => exp(b, b.sub(b.mul(score, scale), lse[r])));
            const gradients: Scores = {
              ...queries,
              rows: p.dout,
              rowAt,
              columns: p.values,
              to: gradientAt,
            };
            scoreBlocks(b, gradients, (slope, r, lane) => {
              const e = b.loadVec(p.scratch, b.add(probabilityAt[r], before), undefined, lane);
              return b.mul(b.mul(e, b.sub(slope, delta[r])), scale);
            });
          };
          /** Asks for rows of the tile or, `further` on, of the next: one buffer at a time, not to hold up what is read. */
          const ask = (buffer: Buffer<'f32'>, at: readonly I32[], further: number) => {
            for (const start of at) prefetchNear(b, buffer, b.add(start, further), headDim);
          };
          ask(p.dqkv, queryAt, 0);
          ask(p.qkv, queryAt, rows * width);
          eachBlocks(b, b.div(firstKey, BLOCK), blocks, BACKWARD_VECTORS, differentiate);

          ask(p.out, rowAt, rows * heads * headDim);
          for (const { start, vectors } of groups(b.lanes, headDim, BACKWARD_VECTORS)) {
            const count = (v: number) => tailCount(b, headDim, start + v * b.lanes);
            const acc = accumulators(b, rows, vectors);
            b.if(b.lt(0, firstKey), () => loadSums(b, acc, p.dqkv, queryAt, headDim, start));
            product(
              b,
              acc,
              firstKey,
              keys,
              (j) => (r) => [b.load(p.scratch, b.add(gradientAt[r], j))],
              (j) => {
                const at = b.add(keyRows, b.mul(j, stride));
                return [acc[0].map((_, v) => b.loadVec(p.scratch, at, undefined, start + v * b.lanes))];
              },
            );
            storeSums(b, acc, p.dqkv, queryAt, headDim, start);
            /** sums[j] += sum over the tile's rows of weight[r][j] * source[r]. */
            const spread = (
              source: Buffer<'f32'>,
              sourceAt: readonly I32[],
              weightAt: readonly I32[],
              sumsAt: I32,
            ) => {
              const held = sourceAt.map((row) =>
                Array.from({ length: vectors }, (_, v) =>
                  b.loadVec(source, row, count(v), start + v * b.lanes),
                ),
              );
              b.loop(firstKey, keys, 1, (j) => {
                const at = b.add(sumsAt, b.mul(j, stride));
                const sums = Array.from({ length: vectors }, (_, v) =>
                  b.loadVec(p.scratch, at, undefined, start + v * b.lanes),
                );
                for (let r = 0; r < rows; r++) {
                  const weight = b.splat(b.load(p.scratch, b.add(weightAt[r], j)));
                  for (let v = 0; v < vectors; v++) sums[v] = b.mulAdd(weight, held[r][v], sums[v]);
                }
                for (let v = 0; v < vectors; v++)
                  b.store(p.scratch, at, sums[v], undefined, start + v * b.lanes);
              });
            };
            if (start === 0) ask(p.dout, rowAt, rows * heads * headDim);
            spread(p.qkv, queryAt, gradientAt, keySums);
            spread(p.dout, rowAt, probabilityAt, valueSums);
          }
        };

        b.loop(0, length, near, (firstKey) =>
          b.loop(0, perGroup, 1, (inGroup) => {
            const head = b.add(b.mul(kvHead, perGroup), inGroup);
            let from: I32 = b.int(0);
            for (const rows of sizes) {
              const to = b.sub(length, b.rem(length, rows));
              b.loop(b.max(from, firstKey), to, rows, (first) => tile(rows, head, first, firstKey));
              from = to;
            }
          }),
        );

        eachVector((row, inside, lane, count) => {
          if (lane === 0)
            for (const to of [keyStart, valueStart])
              prefetchNear(b, p.dqkv, b.add(b.add(to, row), ahead), headDim);
          for (const [from, to] of [
            [keySums, keyStart],
            [valueSums, valueStart],
          ]) {
            const sum = b.loadVec(p.scratch, b.add(from, inside), undefined, lane);
            b.store(p.dqkv, b.add(to, row), sum, count, lane);
          }
        });
      });
    },
  );
}
