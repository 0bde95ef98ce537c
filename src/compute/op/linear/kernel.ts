// Kernels of the matrix product: packing into panels, and a register-tiled product over packed panels.
//
// B is packed into panels of `panelWidth` columns: [panels, k, panelWidth], zero-padded on the right. Every path
// accumulates over k in rising order into one accumulator an element, so a row's result depends neither on the rows
// beside it nor on how the work was cut.
import {
  type Buffer,
  type Builder,
  buildKernel,
  type I32,
  type Variable,
  type Vec,
} from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { LINE } from '../prefetch.js';

/** Vectors across a tile. */
const TILE_VECTORS = 2;
/** Steps of k that a panel is asked for before it is read. */
const AHEAD = 64;
/** Rows of a tile: accumulators, the panel's vectors and one broadcast fill the vector registers. */
export function tileRows(target: TargetInfo): number {
  return Math.floor((target.vectorRegisters - TILE_VECTORS - 1) / TILE_VECTORS);
}
export function panelWidth(target: TargetInfo): number {
  return TILE_VECTORS * target.lanes;
}
/** Steps of k between reloads of the accumulators: a panel's part, at most 32 KiB, stays in the first-level cache. */
function kBlock(target: TargetInfo): number {
  return Math.min(512, 8192 / panelWidth(target));
}

/**
 * How A lies in memory: `rows` is [m, k] with `lda` elements from row to row; `tiles` is [tiles, k, tileRows] with `lda`
 * elements from tile to tile.
 */
export type Layout = 'rows' | 'tiles';

/** Rows that share a panel: their part of A, with a block of k, stays in the second-level cache. */
function rowBlock(target: TargetInfo): number {
  const rows = tileRows(target);
  return rows * Math.round(96 / rows);
}

/**
 * C[m, n] = A B, or C = D + A B, where D may be C. An item is a panel where `byPanels`, else a row of layout `rows` and a
 * tile of layout `tiles`.
 */
export function matmulKernel(target: TargetInfo, layout: Layout): Kernel {
  return buildKernel(
    `matmul-${layout}`,
    target,
    {
      a: 'f32*',
      b: 'f32*',
      c: 'f32*',
      d: 'f32*',
      m: 'i32',
      n: 'i32',
      k: 'i32',
      lda: 'i32',
      /** Elements from row to row of D. */
      ldd: 'i32',
      /** Whether D is there. */
      add: 'i32',
      /**
       * Whether each panel is done with all of k before the next: so few rows read B in order. Else all panels are done
       * with a block of k before the next, and the rows' part of A stays near.
       */
      wholeK: 'i32',
      byPanels: 'i32',
    },
    (b, p) => {
      const width = panelWidth(target);
      const rows = tileRows(target);
      const unit = layout === 'rows' ? 1 : rows;
      const firstRow = b.select(p.byPanels, b.int(0), b.mul(b.begin, unit));
      const lastRow = b.select(p.byPanels, p.m, b.min(p.m, b.mul(b.end, unit)));
      const firstPanel = b.select(p.byPanels, b.begin, b.int(0));
      const lastPanel = b.select(p.byPanels, b.end, b.div(b.add(p.n, width - 1), width));
      const kChunk = b.select(p.wholeK, p.k, b.int(kBlock(target)));
      const kChunks = b.div(b.add(p.k, b.sub(kChunk, 1)), kChunk);
      b.loop(firstRow, lastRow, rowBlock(target), (blockStart) => {
        const blockEnd = b.min(lastRow, b.add(blockStart, rowBlock(target)));
        const whole = b.sub(blockEnd, b.rem(b.sub(blockEnd, blockStart), rows));
        b.loop(0, kChunks, 1, (chunk) => {
          const chunkStart = b.mul(chunk, kChunk);
          const chunkEnd = b.min(p.k, b.add(chunkStart, kChunk));
          b.loop(firstPanel, lastPanel, 1, (panel) => {
            const column = b.mul(panel, width);
            const columns = b.sub(p.n, column);
            const panelStart = b.mul(b.mul(panel, p.k), width);
            b.loop(chunkStart, chunkEnd, kBlock(target), (k0) => {
              const k1 = b.min(p.k, b.add(k0, kBlock(target)));
              const tile = (count: number, row: I32) =>
                matmulTile(b, {
                  ...p,
                  ldc: p.n,
                  layout,
                  width,
                  tileRows: rows,
                  count,
                  row,
                  k0,
                  k1,
                  column,
                  columns,
                  panelStart,
                });
              b.loop(blockStart, whole, rows, (row) => tile(rows, row));
              let row = whole;
              for (const count of [8, 4, 2, 1]) {
                if (count >= rows) continue;
                const start = row;
                const some = b.le(count, b.sub(blockEnd, start));
                b.if(some, () => tile(count, start));
                row = b.add(start, b.mul(some, count));
              }
            });
          });
        });
      });
    },
    { keepsVectors: true },
  );
}

interface Tile {
  a: Buffer<'f32'>;
  b: Buffer<'f32'>;
  c: Buffer<'f32'>;
  d: Buffer<'f32'>;
  lda: I32;
  ldc: I32;
  ldd: I32;
  add: I32;
  layout: Layout;
  width: number;
  /** Rows of a whole tile, and of this one. */
  tileRows: number;
  count: number;
  row: I32;
  k0: I32;
  k1: I32;
  column: I32;
  /** Columns from `column` to the end of C. */
  columns: I32;
  panelStart: I32;
}

function matmulTile(b: Builder, t: Tile): void {
  const { lanes } = b;
  const rows = t.tileRows;
  const cAt = Array.from({ length: t.count }, (_, r) => b.add(b.mul(b.add(t.row, r), t.ldc), t.column));
  const acc: Variable<'vec'>[][] = cAt.map(() =>
    Array.from({ length: TILE_VECTORS }, () => b.variable<'vec'>(b.zero())),
  );
  const inside = b.le(t.width, t.columns);
  /** Calls body with a lane count where the tile hangs over the right edge. */
  const atEdge = (body: (count: (v: number) => I32 | undefined) => void) =>
    b.if(
      inside,
      () => body(() => undefined),
      () => body((v) => b.sub(t.columns, v * lanes)),
    );
  const each = (body: (r: number, v: number) => void) => {
    for (let r = 0; r < t.count; r++) for (let v = 0; v < TILE_VECTORS; v++) body(r, v);
  };
  const start = (from: Buffer<'f32'>, at: readonly I32[]) =>
    atEdge((count) => each((r, v) => acc[r][v].set(b.loadVec(from, at[r], count(v), v * lanes))));
  b.if(
    b.lt(0, t.k0),
    () => start(t.c, cAt),
    () =>
      b.if(t.add, () => {
        const dAt = cAt.map((_, r) => b.add(b.mul(b.add(t.row, r), t.ldd), t.column));
        start(t.d, dAt);
        // The next tile's.
        const below = b.mul(t.ldd, rows);
        for (const at of dAt)
          for (let line = 0; line < t.width; line += LINE) b.prefetch(t.d, b.add(at, below), line);
      }),
  );
  const rowStart = cAt.map((_, r) => b.mul(b.add(t.row, r), t.lda));
  // One step of k at a time and the last row first, on purpose: V8 before 13 (Node 20 and 22) otherwise moves every load
  // before the sums, which then do not fit the registers (half the speed). Later versions do as well either way.
  const tileStart = t.layout === 'tiles' ? b.add(b.mul(b.div(t.row, rows), t.lda), b.rem(t.row, rows)) : null;
  const step = (k: I32) => {
    const panelAt = b.add(t.panelStart, b.mul(k, t.width));
    for (let line = 0; line < t.width; line += LINE) b.prefetch(t.b, panelAt, AHEAD * t.width + line);
    const vectors: Vec[] = [];
    for (let v = 0; v < TILE_VECTORS; v++) vectors.push(b.loadVec(t.b, panelAt, undefined, v * lanes));
    const columnAt = tileStart && b.add(tileStart, b.mul(k, rows));
    for (let r = t.count - 1; r >= 0; r--) {
      const a = columnAt ? b.load(t.a, columnAt, r) : b.load(t.a, b.add(rowStart[r], k));
      const broadcast = b.splat(a);
      for (let v = 0; v < TILE_VECTORS; v++) acc[r][v].set(b.mulAdd(broadcast, vectors[v], acc[r][v].get()));
    }
  };
  b.loop(t.k0, t.k1, 1, step);
  atEdge((count) => each((r, v) => b.store(t.c, cAt[r], acc[r][v].get(), count(v), v * lanes)));
}

/**
 * Packs A[k, m] (row distance lda) into tiles of its columns; what a tile has past the last column is unspecified. An item
 * is a tile. Whole vectors are written, of which the next step's overwrite what is too much; at the tile's end they are cut.
 */
export function packTilesKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'pack-tiles',
    target,
    { source: 'f32*', packed: 'f32*', m: 'i32', k: 'i32', lda: 'i32' },
    (b, p) => {
      const rows = tileRows(target);
      const vectors = Array.from({ length: Math.ceil(rows / b.lanes) }, (_, v) => v * b.lanes);
      // Whole vectors of these would reach past the tile's end.
      const cutSteps = Math.ceil((vectors.length * b.lanes - rows) / rows);
      b.items((tile) => {
        const row = b.mul(tile, rows);
        const start = b.mul(b.mul(tile, p.k), rows);
        const last = b.max(0, b.sub(p.k, cutSteps));
        const columns = b.sub(p.m, row);
        const copy = (count: (lane: number) => I32 | undefined) => {
          const move = (k: I32, cut: boolean) => {
            const from = b.add(row, b.mul(k, p.lda));
            const to = b.add(start, b.mul(k, rows));
            for (const lane of vectors) {
              const size = cut && rows - lane < b.lanes ? b.int(rows - lane) : undefined;
              b.store(p.packed, to, b.loadVec(p.source, from, count(lane), lane), size, lane);
            }
          };
          b.loop(0, last, 1, (k) => move(k, false));
          b.loop(last, p.k, 1, (k) => move(k, true));
        };
        b.if(
          b.le(b.lanes * vectors.length, columns),
          () => copy(() => undefined),
          () => copy((lane) => b.sub(columns, lane)),
        );
      });
    },
  );
}

/** Packs B[k, n] (row distance ldb) into panels. An item is a panel. */
export function packKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'pack',
    target,
    { source: 'f32*', packed: 'f32*', n: 'i32', k: 'i32', ldb: 'i32' },
    (b, p) => {
      const width = panelWidth(target);
      b.items((panel) => {
        const column = b.mul(panel, width);
        const columns = b.sub(p.n, column);
        const start = b.mul(b.mul(panel, p.k), width);
        const copy = (count: (v: number) => I32 | undefined) =>
          b.loop(0, p.k, 1, (k) => {
            const from = b.add(b.mul(k, p.ldb), column);
            const to = b.add(start, b.mul(k, width));
            for (let v = 0; v < TILE_VECTORS; v++) {
              b.store(p.packed, to, b.loadVec(p.source, from, count(v), v * b.lanes), undefined, v * b.lanes);
            }
          });
        b.if(
          b.le(width, columns),
          () => copy(() => undefined),
          () => copy((v) => b.sub(columns, v * b.lanes)),
        );
      });
    },
  );
}

/** Packs the transpose of W[n, k] (row distance ldw) into panels of [k, n]. An item is a panel. */
export function packTransposedKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'pack-transposed',
    target,
    { source: 'f32*', packed: 'f32*', n: 'i32', k: 'i32', ldw: 'i32' },
    (b, p) => {
      const width = panelWidth(target);
      b.items((panel) => {
        const start = b.mul(b.mul(panel, p.k), width);
        for (let j = 0; j < width; j++) {
          const row = b.add(b.mul(panel, width), j);
          const from = b.mul(row, p.ldw);
          b.if(
            b.lt(row, p.n),
            () =>
              b.loop(0, p.k, 1, (k) =>
                b.store(
                  p.packed,
                  b.add(start, b.mul(k, width)),
                  b.load(p.source, b.add(from, k)),
                  undefined,
                  j,
                ),
              ),
            () =>
              b.loop(0, p.k, 1, (k) =>
                b.store(p.packed, b.add(start, b.mul(k, width)), b.float(0), undefined, j),
              ),
          );
        }
      });
    },
  );
}
