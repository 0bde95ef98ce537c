// Costs against counts made by hand.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildKernel } from './builder.js';
import { costOf } from './cost.js';
import type { TargetInfo } from './ir.js';

const target: TargetInfo = { name: 'interpreter', lanes: 4, vectorRegisters: 16, fusedMulAdd: true };
const none = () => {
  throw new Error('nothing is read');
};

test('a matrix product: loops are multiplied', () => {
  const kernel = buildKernel('product', target, { a: 'f32*', c: 'f32*', k: 'i32' }, (b, p) =>
    b.items((item) => {
      const sum = b.variable(b.zero());
      b.loop(0, p.k, 1, (k) => sum.set(b.mulAdd(b.splat(b.load(p.a, k)), b.loadVec(p.a, k), sum.get())));
      b.store(p.c, b.mul(item, 4), sum.get());
    }),
  );
  const [items, k] = [1e6, 1e6];
  assert.deepEqual(costOf(kernel, [0, items, 0, k], none), {
    flops: items * k * 2 * 4,
    loaded: items * k * (4 + 16),
    stored: items * 16,
    exact: true,
  });
});

test('loops that depend on the counter, on a table, on a variable', () => {
  const kernel = buildKernel('triangle', target, { n: 'i32*', x: 'f32*' }, (b, p) => {
    const length = b.variable(b.int(0));
    b.items((item) => {
      length.set(b.add(length.get(), b.loadInt(p.n, item)));
      b.loop(0, length.get(), 1, (i) => {
        b.if(b.lt(i, item), () => b.store(p.x, i, b.add(b.load(p.x, i), 1)));
      });
    });
  });
  const table = [3, 0, 5];
  // Lengths 3, 3, 8, of which 0, 1, 2 turns store.
  assert.deepEqual(
    costOf(kernel, [0, 3, 0], (_, i) => table[i]),
    { flops: 3, loaded: 3 * 4 + 3 * 4, stored: 3 * 4, exact: true },
  );
});

test('chunks with a tail, and a loop whose length grows to a bound: as many as they are', () => {
  const kernel = buildKernel('chunks', target, { x: 'f32*', n: 'i32' }, (b, p) =>
    b.items((item) => {
      const start = b.mul(item, 100);
      b.loop(0, b.min(b.sub(p.n, start), 100), 1, () => b.store(p.x, item, b.float(1)));
      b.loop(0, b.min(item, 7), 1, () => b.store(p.x, item, b.mul(b.load(p.x, item), 2)));
      b.if(b.lt(item, 3), () => b.store(p.x, item, b.float(0)));
    }),
  );
  const count = (begin: number, end: number, n: number) => costOf(kernel, [begin, end, 0, n], none);
  for (const [begin, end, n] of [
    [0, 20, 1950],
    [0, 1, 5],
    [2, 9, 833],
    [5, 40, 4000],
    [0, 1_000_000, 1e8 - 30],
  ]) {
    const items = end - begin;
    // Of the first items 0, 1, ... 6 turns, of the others 7.
    let doubled = 7 * items;
    for (let i = begin; i < Math.min(7, end); i++) doubled -= 7 - i;
    const stores = Math.min(n, 100 * end) - 100 * begin + Math.max(0, Math.min(3, end) - begin);
    assert.deepEqual(count(begin, end, n), {
      flops: doubled,
      loaded: 4 * doubled,
      stored: 4 * (stores + doubled),
      exact: true,
    });
  }
});

test('a condition on floats: the dearer side counts, and the count says so', () => {
  const kernel = buildKernel('choose', target, { x: 'f32*' }, (b, p) =>
    b.items((item) => {
      b.if(b.lt(b.load(p.x, item), 0), () => b.store(p.x, item, b.mul(b.load(p.x, item), 2)));
    }),
  );
  assert.deepEqual(costOf(kernel, [0, 2, 0], none), { flops: 2, loaded: 16, stored: 8, exact: false });
});
