// Attention over a cache: the same bits as over a packed batch, whatever blocks hold it and in whatever pieces it came.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { bfloat16, noise, relativeError, testDevices } from '../../../../test/support/op.js';
import { beside } from '../../../../test/support/op-cases.js';
import type { Device } from '../../device/device.js';
import { type Dtype, dtypes, elementOf } from '../../kernel/bfloat16.js';
import { attend, attention, planAttention, planPacked, type Span, storeKeysValues } from './attention.js';
import { BLOCK, blockSizes, type HeadShape } from './layout.js';
import { attentionReference } from './reference.js';

const devices = testDevices();
after(() => Promise.all(devices.map(({ device }) => device.close())));

const SHAPES: readonly HeadShape[] = [
  { heads: 4, kvHeads: 2, headDim: 6 },
  { heads: 3, kvHeads: 1, headDim: 10 },
  { heads: 2, kvHeads: 1, headDim: 40 },
];

interface Rows {
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly v: Float64Array;
}

const joined = ({ heads, kvHeads, headDim }: HeadShape, { q, k, v }: Rows) =>
  beside([q, k, v], [heads * headDim, kvHeads * headDim, kvHeads * headDim]);

const makeRows = ({ heads, kvHeads, headDim }: HeadShape, rows: number, seed: number): Rows => ({
  q: noise(rows * heads * headDim, seed, 2),
  k: noise(rows * kvHeads * headDim, seed + 1, 2),
  v: noise(rows * kvHeads * headDim, seed + 2),
});

/** What a cache of bfloat16 has of them. */
const rounded = ({ q, k, v }: Rows): Rows => ({ q, k: bfloat16(k), v: bfloat16(v) });

/** Rows from..to of each of q, k and v. */
const slice = (
  { heads, kvHeads, headDim }: HeadShape,
  { q, k, v }: Rows,
  from: number,
  to: number,
): Rows => ({
  q: q.slice(from * heads * headDim, to * heads * headDim),
  k: k.slice(from * kvHeads * headDim, to * kvHeads * headDim),
  v: v.slice(from * kvHeads * headDim, to * kvHeads * headDim),
});

const join = (rows: readonly Rows[]): Rows => {
  const all = (key: keyof Rows) => Float64Array.from(rows.flatMap((r) => [...r[key]]));
  return { q: all('q'), k: all('k'), v: all('v') };
};

function packed(device: Device, shape: HeadShape, rows: Rows, lengths: readonly number[]): Float32Array {
  const mark = device.mark();
  const qkv = device.upload(joined(shape, rows), 'f32');
  const out = attention({ device, tape: null }, shape, qkv, planPacked(device, lengths));
  const got = device.floats(out).slice();
  device.rewind(mark);
  return got;
}

/** A cache of blocks that hold NaN until rows are fed to it. */
function createCache(device: Device, shape: HeadShape, blocks: number, dtype: Dtype = 'float32') {
  const sizes = blockSizes(device.target, shape, dtype);
  const kv = {
    keys: device.temporary([blocks, sizes.keys], elementOf(dtype)),
    values: device.temporary([blocks, sizes.values], elementOf(dtype)),
  };
  return {
    kv,
    feed(rows: Rows, spans: readonly Span[]): Float32Array {
      const mark = device.mark();
      const plan = planAttention(device, spans);
      const qkv = device.upload(joined(shape, rows), 'f32');
      storeKeysValues(device, shape, qkv, plan.slots, kv);
      const got = device.floats(attend(device, shape, qkv, kv, plan).out).slice();
      device.rewind(mark);
      return got;
    },
  };
}

for (const shape of SHAPES) {
  const name = `${shape.heads}/${shape.kvHeads} heads of ${shape.headDim}`;
  const width = shape.heads * shape.headDim;
  const lengths = [33, 5, 18];
  const sequences = lengths.map((n, i) => makeRows(shape, n, 30 + 10 * i));
  /** Scattered, and shared by no two sequences. */
  const tables = [[6, 1, 4], [2], [7, 0]];
  const expected = lengths.map((n, i) => {
    const { q, k, v } = sequences[i];
    return attentionReference(shape, q, k, v, [n]);
  });

  for (const { name: where, device } of devices) {
    const whole = packed(device, shape, join(sequences), lengths);
    const wanted = lengths.map((n, i) => {
      const first = lengths.slice(0, i).reduce((a, b) => a + b, 0);
      return whole.slice(first * width, (first + n) * width);
    });

    test(`${name} on ${where}: a sequence is the same alone and in a packed batch`, () => {
      lengths.forEach((n, i) => {
        assert.deepEqual(packed(device, shape, sequences[i], [n]), wanted[i]);
        assert.ok(relativeError(wanted[i], expected[i]) < 2e-6);
      });
    });

    const cached = (piece: number, dtype: Dtype, wanted: readonly Float32Array[]) => {
      const mark = device.mark();
      const cache = createCache(device, shape, 8, dtype);
      const got: number[][] = lengths.map(() => []);
      for (let position = 0; position < Math.max(...lengths); position += piece) {
        const moving = lengths.flatMap((n, i) => (position < n ? [i] : []));
        let firstRow = 0;
        const spans = moving.map((i): Span => {
          const rows = Math.min(piece, lengths[i] - position);
          firstRow += rows;
          return { firstRow: firstRow - rows, rows, position, table: tables[i] };
        });
        const rows = join(
          moving.map((i, s) => slice(shape, sequences[i], position, position + spans[s].rows)),
        );
        const out = cache.feed(rows, spans);
        moving.forEach((i, s) => {
          const from = spans[s].firstRow * width;
          got[i].push(...out.subarray(from, from + spans[s].rows * width));
        });
      }
      lengths.forEach((_, i) => {
        assert.deepEqual(Float32Array.from(got[i]), wanted[i], `pieces of ${piece}, sequence ${i}`);
      });
      device.rewind(mark);
    };

    test(`${name} on ${where}: the same bits from scattered blocks, in pieces of any size`, () => {
      for (const piece of [1, 3, 4, 5, 16, 40]) cached(piece, 'float32', wanted);
    });

    test(`${name} on ${where}: from a cache of bfloat16 the bits of rounded keys and values`, () => {
      const known = sequences.map((rows, i) => packed(device, shape, rounded(rows), [lengths[i]]));
      assert.ok(known.every((of, i) => relativeError(of, wanted[i]) > 1e-4));
      for (const piece of [1, 5, 40]) cached(piece, 'bfloat16', known);
    });
  }
}

test('two sequences that share the blocks of a prefix see it as their own', () => {
  const shape = SHAPES[0];
  const width = shape.heads * shape.headDim;
  for (const { name, device } of devices) {
    const mark = device.mark();
    const prefix = makeRows(shape, BLOCK, 1);
    const tails = [makeRows(shape, 3, 11), makeRows(shape, 3, 21)];
    const cache = createCache(device, shape, 3);
    cache.feed(prefix, [{ firstRow: 0, rows: BLOCK, position: 0, table: [1] }]);
    const out = cache.feed(join(tails), [
      { firstRow: 0, rows: 3, position: BLOCK, table: [1, 0] },
      { firstRow: 3, rows: 3, position: BLOCK, table: [1, 2] },
    ]);
    tails.forEach((tail, i) => {
      const alone = packed(device, shape, join([prefix, tail]), [BLOCK + 3]);
      assert.deepEqual(out.slice(3 * i * width, 3 * (i + 1) * width), alone.slice(BLOCK * width), name);
    });
    device.rewind(mark);
  }
});

// As decoding does: enough rows that each takes all its heads, whose groups leave a rest of those taken at once.
for (const shape of [
  { heads: 4, kvHeads: 4, headDim: 32 },
  { heads: 10, kvHeads: 2, headDim: 20 },
  { heads: 7, kvHeads: 1, headDim: 66 },
])
  for (const dtype of dtypes)
    test(`the last rows of many sequences at once, ${shape.heads}/${shape.kvHeads} heads of ${shape.headDim}, ${dtype}`, () => {
      const width = shape.heads * shape.headDim;
      for (const { name, device } of devices) {
        const mark = device.mark();
        const lengths = Array.from({ length: 4 * device.threads + 1 }, (_, i) => 1 + ((11 * i) % 37));
        const sequences = lengths.map((n, i) => makeRows(shape, n, 60 + 3 * i));
        const tables = lengths.map((_, i) => [3 * i + 2, 3 * i, 3 * i + 1]);
        const cache = createCache(device, shape, 3 * lengths.length, dtype);
        const before = lengths.flatMap((n, i) => (n > 1 ? [{ i, rows: n - 1 }] : []));
        let firstRow = 0;
        cache.feed(
          join(before.map(({ i, rows }) => slice(shape, sequences[i], 0, rows))),
          before.map(({ i, rows }) => {
            firstRow += rows;
            return { firstRow: firstRow - rows, rows, position: 0, table: tables[i] };
          }),
        );
        const last = cache.feed(
          join(lengths.map((n, i) => slice(shape, sequences[i], n - 1, n))),
          lengths.map((n, i) => ({ firstRow: i, rows: 1, position: n - 1, table: tables[i] })),
        );
        lengths.forEach((n, i) => {
          const rows = dtype === 'float32' ? sequences[i] : rounded(sequences[i]);
          const whole = packed(device, shape, rows, [n]);
          assert.deepEqual(
            last.slice(i * width, (i + 1) * width),
            whole.slice((n - 1) * width),
            `${name}, ${n} positions`,
          );
        });
        device.rewind(mark);
      }
    });

for (const dtype of dtypes)
  test(`far on in a sequence rows of several tiles together have the bits of single rows, ${dtype}`, () => {
    const shape = { heads: 2, kvHeads: 1, headDim: 10 };
    const width = shape.heads * shape.headDim;
    // Past a stretch of keys and the position from which on tiles go together; a rest of smaller tiles and single rows.
    const [before, rows] = [1030, 43];
    const blocks = Math.ceil((before + rows) / BLOCK);
    const table = Array.from({ length: blocks }, (_, i) => blocks - 1 - i);
    const all = makeRows(shape, before + rows, 50);
    for (const { name, device } of devices) {
      const mark = device.mark();
      const cache = createCache(device, shape, blocks, dtype);
      const earlier = slice(shape, all, 0, before);
      const { slots } = planAttention(device, [{ firstRow: 0, rows: before, position: 0, table }]);
      storeKeysValues(device, shape, device.upload(joined(shape, earlier), 'f32'), slots, cache.kv);
      const plan = planAttention(device, [{ firstRow: 0, rows, position: before, table }]);
      assert.ok(plan.tiles[0].shape.tiles > 1 && plan.tiles[0].which.size > 0, name);
      const piece = (from: number, count: number) =>
        cache.feed(slice(shape, all, before + from, before + from + count), [
          { firstRow: 0, rows: count, position: before + from, table },
        ]);
      const together = piece(0, rows);
      for (let row = 0; row < rows; row++)
        assert.deepEqual(
          piece(row, 1),
          together.slice(row * width, (row + 1) * width),
          `${name}, row ${row}`,
        );
      const { q, k, v } = dtype === 'float32' ? all : rounded(all);
      if (name === devices[0].name) {
        const expected = attentionReference(shape, q, k, v, [before + rows]).slice(before * width);
        assert.ok(relativeError(together, expected) < 2e-6);
      }
      device.rewind(mark);
    }
  });

test('a packed batch lists each sequence once, and stretches of the list hold long and short ones alike', () => {
  const { device } = devices[0];
  const starts = (lengths: readonly number[]) =>
    lengths.map((_, i) => lengths.slice(0, i).reduce((sum, n) => sum + n, 0));
  for (const count of [1, 2, 7, 8, 9, 16, 61]) {
    const mark = device.mark();
    // Sorted, as they come where a batch is: halves of it are far from alike.
    const lengths = Array.from({ length: count }, (_, i) => 200 - 3 * i);
    const listed = [...device.ints(planPacked(device, lengths).sequences)];
    const firstRows = listed.filter((_, i) => i % 3 === 0);
    const rows = listed.filter((_, i) => i % 3 === 1);
    assert.deepEqual(
      [...firstRows].sort((a, b) => a - b),
      starts(lengths),
    );
    firstRows.forEach((first, i) => {
      assert.equal(rows[i], lengths[starts(lengths).indexOf(first)]);
    });
    const work = (of: readonly number[]) => of.reduce((sum, n) => sum + n * n, 0);
    if (count >= 16) {
      const half = work(rows.slice(0, count / 2)) / work(rows);
      assert.ok(Math.abs(half - 0.5) < 0.03, `${count} sequences: ${half}`);
      assert.ok(work(lengths.slice(0, count / 2)) / work(lengths) > 0.56);
    }
    device.rewind(mark);
  }
});

test('scores far apart neither overflow nor make a NaN', () => {
  const shape = { heads: 1, kvHeads: 1, headDim: 2 };
  for (const { name, device } of devices) {
    // The second key has score 1e4 for every query but the first, which cannot see it.
    const q = Float64Array.of(100, 0, 100, 0, 100, 0, 100, 0, 100, 0);
    const k = Float64Array.of(-100, 0, 100 * Math.SQRT2, 0, 0, 0, -100, 0, 1, 0);
    const v = Float64Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
    assert.deepEqual([...packed(device, shape, { q, k, v }, [5])], [1, 2, 3, 4, 3, 4, 3, 4, 3, 4], name);
  }
});

test('a block table that is too short and queries that do not fit are refused', () => {
  const { device } = devices[0];
  const span = { firstRow: 0, rows: 2, position: 15, table: [0] };
  assert.throws(() => planAttention(device, [span]), /block table of a sequence: got 1; 2 blocks are needed/);
  const shape = SHAPES[0];
  const plan = planPacked(device, [2]);
  const kv = createCache(device, shape, 1).kv;
  assert.throws(() => attend(device, shape, device.temporary([3, 24]), kv, plan), /queries for 2 rows/);
});
