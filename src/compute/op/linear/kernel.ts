// Kernels of the matrix product: packing into panels, and a register-tiled product over packed panels.
//
// B is packed into panels of `panelWidth` columns: [panels, k, panelWidth], zero-padded on the right; as bfloat16, an
// element has a column of the panel's left half and one of its right. Every path accumulates over k in rising order into
// one accumulator an element, so a row's result depends neither on the rows beside it nor on how the work was cut.
import {
  bufferOf,
  type Dtype,
  loadNumbers,
  type Numbers,
  narrow,
  perElement,
  suffixOf,
} from '../../kernel/bfloat16.js';
import {
  type Buffer,
  type Builder,
  buildKernel,
  type F32,
  type I32,
  type Variable,
  type Vec,
} from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { LINE, prefetchNear } from '../prefetch.js';

/** Vectors across a panel. */
const PANEL_VECTORS = 2;
/** Steps of k that a panel is asked for before it is read, where the processor does not do so by itself. */
const AHEAD = 64;
/** Steps of k that are packed of all columns of a transposed matrix before the next. */
const PACKED_STRETCH = 64;
/** Elements asked for at once of what is packed next. */
const ASKED = 128;
/**
 * Most rows of C that the product by columns takes through all steps of k: some 260 columns of them stay in a second-level
 * cache of 1 MiB, and B is packed but once for so many rows.
 */
const SUMMED_ROWS = 960;

/** Whether tiles are as wide as two panels: with twice the registers, twice the vectors make use of each broadcast. */
function isWide(target: TargetInfo): boolean {
  return target.vectorRegisters >= 32;
}
/** Panels side by side in a tile. */
function tilePanels(target: TargetInfo): number {
  return isWide(target) ? 2 : 1;
}
/** Rows of a tile: accumulators, the panels' vectors and one broadcast fill the vector registers. */
export function tileRows(target: TargetInfo): number {
  const vectors = PANEL_VECTORS * tilePanels(target);
  return Math.floor((target.vectorRegisters - vectors - 1) / vectors);
}
export function panelWidth(target: TargetInfo): number {
  return PANEL_VECTORS * target.lanes;
}
/**
 * Most steps of k between reloads of the accumulators: a tile's part of B is at most as large as a first-level cache, or,
 * that of a wide tile, 176 KiB, which the second-level cache is fast enough for.
 */
function kBlock(target: TargetInfo): number {
  return isWide(target) ? 704 : 512;
}
/** Steps of k that are packed at once: a strip's panels, at most 16 KiB, and a group of rows fit the first-level cache. */
function packedSteps(target: TargetInfo): number {
  return 1024 / target.lanes;
}
/** Rows of A packed side by side: tiles that are whole vectors together. */
function groupRows(target: TargetInfo): number {
  let rows = tileRows(target);
  while (rows % target.lanes) rows += tileRows(target);
  return rows;
}
/** Rows that share a panel: their part of A, with a block of k, stays in the second-level cache. */
export function rowBlock(target: TargetInfo): number {
  const rows = tileRows(target);
  return rows * Math.round((isWide(target) ? 192 : 96) / rows);
}

/**
 * Rows of a tile for which is asked at once: all before its steps of k, or, where a row has four times the lines, some
 * between them. One by one costs more stretches of steps.
 */
function rowsAsked(target: TargetInfo): number {
  return isWide(target) ? 2 : tileRows(target);
}

/** C[m, n] = A B, or C = D + A B, where D may be C; A is [m, k]. An item is a panel where `byPanels`, else a row. */
export function matmulKernel(target: TargetInfo, dtype: Dtype): Kernel {
  return buildKernel(
    `matmul${suffixOf(dtype)}`,
    target,
    {
      a: 'f32*',
      b: bufferOf(dtype),
      c: 'f32*',
      d: 'f32*',
      m: 'i32',
      n: 'i32',
      k: 'i32',
      /** Elements from row to row of A. */
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
      const firstRow = b.select(p.byPanels, b.int(0), b.begin);
      const lastRow = b.select(p.byPanels, p.m, b.min(p.m, b.end));
      const firstPanel = b.select(p.byPanels, b.begin, b.int(0));
      const lastPanel = b.select(p.byPanels, b.end, b.div(b.add(p.n, width - 1), width));
      // Blocks of one size, so that none is short. At least 1, which only proves that no index below is negative.
      const kBlocks = b.max(1, b.div(b.add(p.k, kBlock(target) - 1), kBlock(target)));
      const steps = b.div(b.add(p.k, b.sub(kBlocks, 1)), kBlocks);
      const stretch = askingStretch(b, target, steps);
      const kChunk = b.max(1, b.select(p.wholeK, p.k, steps));
      const kChunks = b.div(b.add(p.k, b.sub(kChunk, 1)), kChunk);
      const across = width / perElement(dtype);
      const panelSize = b.mul(p.k, across);
      /** Asks for what the tile writes for the first time, and for what the one beneath begins with. */
      const askAround = (row: I32, panel: I32, panels: number, continues: I32) => {
        const column = b.mul(panel, width);
        const below = b.add(row, tileRows(target));
        const ask = (buffer: Buffer<'f32'>, of: I32, distance: I32) =>
          prefetchNear(b, buffer, b.add(b.mul(of, distance), column), panels * width);
        const first = () => {
          ask(p.c, row, p.n);
          b.if(p.add, () => ask(p.d, below, p.ldd));
        };
        b.if(continues, () => ask(p.c, below, p.n), first);
      };
      /** Lines of B that a step of a strip reads. */
      const linesOfStep = (panels: number) => panels * Math.ceil(across / LINE);
      /**
       * Where a line of the next strip begins, for each step of k, that the i-th tile of a block asks for, so that the
       * strip's first tile need not wait for it. As many tiles ask as a step has lines.
       */
      const lineOfNext = (i: I32, panel: I32, panels: number): I32 => {
        const linesOfPanel = linesOfStep(1);
        const next = b.add(b.add(panel, panels), b.div(i, linesOfPanel));
        const line = b.add(b.mul(next, panelSize), b.mul(b.rem(i, linesOfPanel), LINE));
        // After the last strip nothing is asked for: what is read already stands in for it.
        return b.select(b.lt(next, lastPanel), line, b.mul(panel, panelSize));
      };
      /** Tiles that are told apart: the first, and those that ask for the next strip. */
      const turns = (panels: number) => (target.streams ? [1, linesOfStep(panels)] : [1]);
      b.loop(firstRow, lastRow, rowBlock(target), (blockStart) => {
        const blockEnd = b.min(lastRow, b.add(blockStart, rowBlock(target)));
        b.loop(0, kChunks, 1, (chunk) => {
          const chunkStart = b.mul(chunk, kChunk);
          const chunkEnd = b.min(p.k, b.add(chunkStart, kChunk));
          strips(b, target, firstPanel, lastPanel, (panel, panels) => {
            const panelStarts = rowsFrom(b, b.mul(panel, panelSize), panelSize, panels);
            const ahead = b.select(p.wholeK, b.int(AHEAD * across), b.mul(panelSize, panels));
            b.loop(chunkStart, chunkEnd, kBlock(target), (k0) =>
              tiles(b, target, blockStart, blockEnd, turns(panels), (row, count, turn) => {
                const first = turn === 0;
                const asking = () => b.sub(b.div(b.sub(row, blockStart), tileRows(target)), 1);
                const rowStart = rowsFrom(b, b.mul(row, p.lda), p.lda, count);
                const continues = b.lt(0, k0);
                matmulTile(b, target, {
                  ...p,
                  row,
                  count,
                  column: b.mul(panel, width),
                  panels: p.b,
                  panelStarts,
                  begin: k0,
                  end: b.min(chunkEnd, b.add(k0, kBlock(target))),
                  continues,
                  elements: (k) => (r) => b.load(p.a, b.add(rowStart[r], k)),
                  ahead: first && !target.streams ? ahead : undefined,
                  later: target.streams && turn === 1 ? lineOfNext(asking(), panel, panels) : undefined,
                  meanwhile:
                    first || !isWide(target)
                      ? undefined
                      : { stretch, ask: (r) => askAround(r, panel, panels, continues) },
                });
              }),
            );
          });
        });
      });
    },
    { keepsVectors: true },
  );
}

/**
 * C[m, n] = A^T B, or C + A^T B, with A[k, m] and B[k, n] as they lie in memory. Steps of k are packed and multiplied in
 * turns, so that what is packed is read from the cache. An item is a panel where `byPanels`, else a tile of rows.
 */
export function matmulColumnsKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'matmul-columns',
    target,
    {
      a: 'f32*',
      b: 'f32*',
      c: 'f32*',
      /** Scratch memory for packed A and packed B, and elements of each for a part. */
      packedA: 'f32*',
      packedB: 'f32*',
      sizeA: 'i32',
      sizeB: 'i32',
      m: 'i32',
      n: 'i32',
      k: 'i32',
      lda: 'i32',
      /** Whether C is added to. */
      add: 'i32',
      byPanels: 'i32',
    },
    (b, p) => {
      const width = panelWidth(target);
      const rows = tileRows(target);
      const group = groupRows(target);
      const most = packedSteps(target);
      const firstRow = b.select(p.byPanels, b.int(0), b.mul(b.begin, rows));
      const lastRow = b.select(p.byPanels, p.m, b.min(p.m, b.mul(b.end, rows)));
      const firstPanel = b.select(p.byPanels, b.begin, b.int(0));
      const lastPanel = b.select(p.byPanels, b.end, b.div(b.add(p.n, width - 1), width));
      const firstColumn = b.mul(firstPanel, width);
      const columns = b.sub(b.min(p.n, b.mul(lastPanel, width)), firstColumn);
      const atA = b.mul(b.part, p.sizeA);
      const atB = b.mul(b.part, p.sizeB);
      b.loop(firstRow, lastRow, SUMMED_ROWS, (blockStart) => {
        const blockEnd = b.min(lastRow, b.add(blockStart, SUMMED_ROWS));
        b.loop(0, p.k, most, (k0) => {
          const steps = b.min(most, b.sub(p.k, k0));
          const fromA = b.add(b.mul(k0, p.lda), blockStart);
          const fromB = b.add(b.mul(k0, p.n), firstColumn);
          const rowsOfA = { source: p.a, from: fromA, distance: p.lda, columns: b.sub(blockEnd, blockStart) };
          const partOfB = { source: p.b, from: fromB, distance: p.n, columns };
          packSteps(b, partOfB, { packed: p.packedB, at: atB, width, k: most }, steps);
          const askNext = () => {
            const nextSteps = b.min(most, b.sub(p.k, b.add(k0, most)));
            const askA = asker(b, { ...rowsOfA, from: b.add(fromA, b.mul(p.lda, most)) }, nextSteps);
            const askB = asker(b, { ...partOfB, from: b.add(fromB, b.mul(p.n, most)) }, nextSteps);
            return () => askA(askB);
          };
          const next = target.prefetches ? askNext() : undefined;
          const ask = next
            ? (row: I32, i: number, panel: I32, panels: number) => {
                const beneath = b.mul(b.add(row, rows), p.n);
                prefetchNear(b, p.c, b.add(beneath, b.mul(panel, width)), panels * width);
                if (i === 0) next();
              }
            : undefined;
          const stretch = askingStretch(b, target, b.int(most));
          b.loop(blockStart, blockEnd, group, (groupRow) => {
            const groupEnd = b.min(blockEnd, b.add(groupRow, group));
            // Packed right before they are multiplied with all panels: so they are in the first-level cache.
            const from = b.add(fromA, b.sub(groupRow, blockStart));
            const rowsOfGroup = { ...rowsOfA, from, columns: b.sub(groupEnd, groupRow) };
            packSteps(b, rowsOfGroup, { packed: p.packedA, at: atA, width: group, k: most }, steps);
            strips(b, target, firstPanel, lastPanel, (panel, panels) => {
              const panelSize = most * width;
              const panelStart = b.add(atB, b.mul(b.sub(panel, firstPanel), panelSize));
              tiles(b, target, groupRow, groupEnd, [], (row, count) => {
                const tileStart = b.add(atA, b.sub(row, groupRow));
                matmulTile(b, target, {
                  ...p,
                  row,
                  count,
                  column: b.mul(panel, width),
                  panels: p.packedB,
                  panelStarts: rowsFrom(b, panelStart, b.int(panelSize), panels),
                  begin: b.int(0),
                  end: steps,
                  meanwhile:
                    ask && count === rows ? { stretch, ask: (r, i) => ask(r, i, panel, panels) } : undefined,
                  continues: b.or(p.add, b.lt(0, k0)),
                  elements: (k) => {
                    const from = b.add(tileStart, b.mul(k, group));
                    return (r) => b.load(p.packedA, from, r);
                  },
                });
              });
            });
          });
        });
      });
    },
    { keepsVectors: true },
  );
}

/** Elements of a page, which lie between the scratch memory of parts: a core reads ahead, and would read another's. */
const PART_GAP = 1024;

/** Elements of scratch memory that a part of the product by columns takes: a group of rows, and so many panels. */
export function packedSizes(target: TargetInfo, panels: number): { a: number; b: number } {
  const steps = packedSteps(target);
  return { a: steps * groupRows(target) + PART_GAP, b: steps * panels * panelWidth(target) + PART_GAP };
}

/** Calls body for panels from first to last, as many at once as a tile is wide, then one by one. */
function strips(
  b: Builder,
  target: TargetInfo,
  first: I32,
  last: I32,
  body: (panel: I32, panels: number) => void,
): void {
  const side = tilePanels(target);
  if (side === 1) {
    b.loop(first, last, 1, (panel) => body(panel, 1));
    return;
  }
  const whole = b.sub(last, b.rem(b.sub(last, first), side));
  b.loop(first, whole, side, (panel) => body(panel, side));
  b.loop(whole, last, 1, (panel) => body(panel, 1));
}

/** Where each of several neighbours starts. */
function rowsFrom(b: Builder, first: I32, distance: I32, count: number): I32[] {
  const starts = [first];
  while (starts.length < count) starts.push(b.add(starts[starts.length - 1], distance));
  return starts;
}

/**
 * Calls body for the rows from start to end: whole tiles, then smaller ones. The first whole ones are told apart, as many as
 * `turns` says for turn 0, for turn 1 and so on; the smaller ones, of which one may be the first, are of turn 0.
 */
function tiles(
  b: Builder,
  target: TargetInfo,
  start: I32,
  end: I32,
  turns: readonly number[],
  body: (row: I32, count: number, turn: number) => void,
): void {
  const rows = tileRows(target);
  const whole = b.sub(end, b.rem(b.sub(end, start), rows));
  let first = start;
  for (const [turn, count] of turns.entries()) {
    const next = b.min(whole, b.add(first, count * rows));
    b.loop(first, next, rows, (row) => body(row, rows, turn));
    first = next;
  }
  b.loop(first, whole, rows, (row) => body(row, rows, turns.length));
  b.if(b.lt(whole, end), () => {
    let row = whole;
    for (const count of [4, 2, 1]) {
      const from = row;
      const some = b.le(count, b.sub(end, from));
      b.if(some, () => body(from, count, 0));
      row = b.add(from, b.mul(some, count));
    }
  });
}

interface Tile {
  c: Buffer<'f32'>;
  /** What the product is added to, where `add` holds, and its distance from row to row. */
  d?: Buffer<'f32'>;
  ldd?: I32;
  add: I32;
  n: I32;
  row: I32;
  count: number;
  /** First column of C. */
  column: I32;
  panels: Numbers;
  panelStarts: readonly I32[];
  /** Steps of k, as the panels and A's elements count them. */
  begin: I32;
  end: I32;
  /** Whether C holds the sum so far. */
  continues: I32;
  /** A's elements at a step of k, by row of the tile. */
  elements: (k: I32) => (r: number) => F32;
  /** Elements from what is read of B to what is asked for meanwhile, by the first tile for all that share the panels. */
  ahead?: I32;
  /** Where a line begins, for each step of k, that is asked for meanwhile: it is needed after this tile. */
  later?: I32;
  /**
   * Asks for what is needed later; called before every stretch of steps of k, for each of some rows of the tile: the i-th of
   * those asked for at once.
   */
  meanwhile?: { readonly stretch: I32; readonly ask: (row: I32, i: number) => void };
}

/** Steps of k between asks, where all rows of a tile are asked for in so many steps. */
function askingStretch(b: Builder, target: TargetInfo, steps: I32): I32 {
  const unrolled = 4 * Math.ceil(tileRows(target) / rowsAsked(target));
  return b.mul(4, b.div(b.add(steps, unrolled - 1), unrolled));
}

function matmulTile(b: Builder, target: TargetInfo, t: Tile): void {
  const { lanes } = b;
  const across = panelWidth(target) / perElement(t.panels.element);
  const tileVectors = PANEL_VECTORS * t.panelStarts.length;
  const cAt = rowsFrom(b, b.add(b.mul(t.row, t.n), t.column), t.n, t.count);
  const acc: Variable<'vec'>[][] = cAt.map(() =>
    Array.from({ length: tileVectors }, () => b.variable<'vec'>(b.zero())),
  );
  const columns = b.sub(t.n, t.column);
  const inside = b.le(tileVectors * lanes, columns);
  /** Calls body with a lane count where the tile hangs over the right edge. */
  const atEdge = (body: (count: (v: number) => I32 | undefined) => void) =>
    b.if(
      inside,
      () => body(() => undefined),
      () => body((v) => b.sub(columns, v * lanes)),
    );
  const each = (body: (r: number, v: number) => void) => {
    for (let r = 0; r < t.count; r++) for (let v = 0; v < tileVectors; v++) body(r, v);
  };
  const start = (from: Buffer<'f32'>, at: readonly I32[]) =>
    atEdge((count) => each((r, v) => acc[r][v].set(b.loadVec(from, at[r], count(v), v * lanes))));
  /** The same, and asks for what the tile beneath starts with. */
  const startAsking = (from: Buffer<'f32'>, at: readonly I32[], distance: I32) => {
    start(from, at);
    const below = b.mul(distance, tileRows(target));
    if (!t.meanwhile) for (const row of at) prefetchNear(b, from, b.add(row, below), tileVectors * lanes);
  };
  const { d, ldd } = t;
  if (d && ldd) {
    const plus = () =>
      b.if(t.add, () => startAsking(d, rowsFrom(b, b.add(b.mul(t.row, ldd), t.column), ldd, t.count), ldd));
    b.if(t.continues, () => startAsking(t.c, cAt, t.n), plus);
  } else b.if(t.continues, () => start(t.c, cAt));
  // One step of k at a time and the last row first, on purpose: V8 before 13 (Node 20 and 22) otherwise moves every load
  // before the sums, which then do not fit the registers (half the speed). Later versions do as well either way.
  const step = (k: I32) => {
    const deep = b.mul(k, across);
    const vectors: Vec[] = [];
    for (const start of t.panelStarts) {
      const panelAt = b.add(start, deep);
      if (t.ahead !== undefined) prefetchNear(b, t.panels, b.add(panelAt, t.ahead), across);
      for (let lane = 0; lane < across; lane += lanes)
        vectors.push(...loadNumbers(b, t.panels, panelAt, lane));
    }
    if (t.later) b.prefetch(t.panels, b.add(t.later, deep), 0, { later: true });
    const element = t.elements(k);
    for (let r = t.count - 1; r >= 0; r--) {
      const broadcast = b.splat(element(r));
      for (let v = 0; v < tileVectors; v++) acc[r][v].set(b.mulAdd(broadcast, vectors[v], acc[r][v].get()));
    }
  };
  const { meanwhile } = t;
  if (meanwhile) {
    const { stretch, ask } = meanwhile;
    const asked = rowsAsked(target);
    const stretches = Math.ceil(t.count / asked);
    const askRows = (row: I32) => {
      for (let r = 0; r < asked; r++) ask(b.add(row, r), r);
    };
    if (stretches === 1) {
      askRows(t.row);
      b.loop(t.begin, t.end, 1, step);
    } else
      b.loop(0, stretches, 1, (i) => {
        askRows(b.add(t.row, b.mul(i, asked)));
        const from = b.add(t.begin, b.mul(i, stretch));
        const until = b.select(b.lt(i, stretches - 1), b.min(t.end, b.add(from, stretch)), t.end);
        b.loop(from, until, 1, step);
      });
  } else b.loop(t.begin, t.end, 1, step);
  atEdge((count) => each((r, v) => b.store(t.c, cAt[r], acc[r][v].get(), count(v), v * lanes)));
}

/** Packs B[k, n] (row distance ldb) into panels. An item is a step of k. */
export function packKernel(target: TargetInfo): Kernel {
  const fields = { source: 'f32*', packed: 'f32*', n: 'i32', k: 'i32', ldb: 'i32' } as const;
  return buildKernel('pack', target, fields, (b, p) => {
    const width = panelWidth(target);
    const most = packedSteps(target);
    // By blocks of steps, so that panel by panel the same few pages are read.
    b.loop(b.begin, b.end, most, (k0) => {
      const columns = { source: p.source, from: b.mul(k0, p.ldb), distance: p.ldb, columns: p.n };
      const into = { packed: p.packed, at: b.mul(k0, width), width, k: p.k };
      packSteps(b, columns, into, b.min(most, b.sub(b.end, k0)));
    });
  });
}

interface Columns {
  readonly source: Buffer<'f32'>;
  /** Where the first element stands. */
  readonly from: I32;
  /** Elements from step to step. */
  readonly distance: I32;
  readonly columns: I32;
}

/** [columns / width, k, width] from `at` on. */
interface PackedColumns {
  readonly packed: Buffer<'f32'>;
  readonly at: I32;
  readonly width: number;
  readonly k: I32 | number;
}

/**
 * What asks for some steps of all columns, a few elements at each call, in the order in which they lie in memory, and does
 * `otherwise` when all are asked for.
 */
function asker(b: Builder, columns: Columns, steps: I32): (otherwise?: () => void) => void {
  // Rows without gaps are one long row.
  const whole = b.eq(columns.columns, columns.distance);
  const length = b.select(whole, b.mul(columns.columns, steps), columns.columns);
  const left = b.variable<'i32'>(b.select(whole, b.min(steps, 1), steps));
  const row = b.variable<'i32'>(columns.from);
  const column = b.variable<'i32'>(b.int(0));
  const some = () => {
    prefetchNear(b, columns.source, b.add(row.get(), column.get()), ASKED);
    const next = b.add(column.get(), ASKED);
    const through = b.le(length, next);
    column.set(b.select(through, b.int(0), next));
    row.set(b.add(row.get(), b.mul(through, columns.distance)));
    left.set(b.sub(left.get(), through));
  };
  return (otherwise) => b.if(b.lt(0, left.get()), some, otherwise);
}

/** Copies some steps of all columns; the last of them are followed by zeros up to the width. */
function packSteps(
  b: Builder,
  { source, from, distance, columns }: Columns,
  { packed, at, width, k }: PackedColumns,
  steps: I32,
): void {
  const vectors = Array.from({ length: width / b.lanes }, (_, v) => v * b.lanes);
  const copy = (column: I32, count: (lane: number) => I32 | undefined) => {
    const start = b.add(from, column);
    const into = b.add(at, b.mul(column, k));
    b.loop(0, steps, 1, (step) => {
      const read = b.add(start, b.mul(step, distance));
      const written = b.add(into, b.mul(step, width));
      for (const lane of vectors)
        b.store(packed, written, b.loadVec(source, read, count(lane), lane), undefined, lane);
    });
  };
  const whole = b.sub(columns, b.rem(columns, width));
  b.loop(0, whole, width, (column) => copy(column, () => undefined));
  b.if(b.lt(whole, columns), () => copy(whole, (lane) => b.sub(b.sub(columns, whole), lane)));
}

/**
 * Packs the transpose of W[n, k] (row distance ldw) into panels of [k, n]; as bfloat16, an element has a column of the
 * panel's left half and one of its right. An item is a panel.
 */
export function packTransposedKernel(target: TargetInfo, dtype: Dtype): Kernel {
  return buildKernel(
    `pack-transposed${suffixOf(dtype)}`,
    target,
    { source: 'f32*', packed: bufferOf(dtype), n: 'i32', k: 'i32', ldw: 'i32' },
    (b, p) => {
      const width = panelWidth(target);
      const across = width / perElement(dtype);
      b.items((panel) => {
        const start = b.mul(b.mul(panel, p.k), across);
        const column = (j: number) => {
          const row = b.add(b.mul(panel, width), j);
          return { inside: b.lt(row, p.n), from: b.mul(row, p.ldw) };
        };
        // By stretches of steps, so that what is written of a panel stays in the first-level cache until it is whole.
        b.loop(0, p.k, PACKED_STRETCH, (k0) => {
          const end = b.min(p.k, b.add(k0, PACKED_STRETCH));
          for (let j = 0; j < across; j++) {
            const eachStep = (number: (k: I32, i: number) => F32) =>
              b.loop(k0, end, 1, (k) => {
                const to = b.add(start, b.mul(k, across));
                if (p.packed.element === 'f32') b.store(p.packed, to, number(k, 0), undefined, j);
                else b.store(p.packed, to, narrow(b, number(k, 0), number(k, 1)), undefined, j);
              });
            const columns = Array.from({ length: perElement(dtype) }, (_, i) => column(j + i * across));
            // Columns past the matrix are at its end: of two, the second is past it where the first is.
            const put = (count: number) => {
              const number = (k: I32, i: number) =>
                i < count ? b.load(p.source, b.add(columns[i].from, k)) : b.float(0);
              const all = () => eachStep(number);
              if (count === 0) return all();
              b.if(columns[count - 1].inside, all, () => put(count - 1));
            };
            put(columns.length);
          }
        });
      });
    },
  );
}
