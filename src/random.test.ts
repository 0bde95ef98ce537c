// Philox against the vectors that its authors publish (Random123, kat_vectors), and what is built on it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { permutation, philox4x32, uniform } from './random.js';

test('philox 4x32-10 gives the published answers', () => {
  const vectors: [[number, number, number, number], [number, number], number[]][] = [
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ];
  for (const [counter, key, expected] of vectors) assert.deepEqual(philox4x32(counter, key), expected);
});

test('uniform numbers lie in [0, 1), are exact in float32 and differ by key', () => {
  const drawn = Array.from({ length: 4000 }, (_, i) => uniform(7, i, 1, 2));
  for (const x of drawn) {
    assert.ok(x >= 0 && x < 1);
    assert.equal(Math.fround(x), x);
  }
  const mean = drawn.reduce((a, b) => a + b, 0) / drawn.length;
  // The mean of 4000 uniform numbers has a standard deviation of 0.0046.
  assert.ok(Math.abs(mean - 0.5) < 0.023);
  assert.notEqual(uniform(7, 0, 0, 0), uniform(7 + 2 ** 32, 0, 0, 0));
});

test('a permutation holds every number once and depends on seed and stream', () => {
  for (const n of [0, 1, 2, 100]) {
    assert.deepEqual(
      [...permutation(n, 1, 0)].sort((a, b) => a - b),
      Array.from({ length: n }, (_, i) => i),
    );
  }
  assert.notDeepEqual(permutation(100, 1, 0), permutation(100, 1, 1));
  assert.notDeepEqual(permutation(100, 1, 0), permutation(100, 2, 0));
});

test('words are taken modulo 2^32, and every word of counter and key matters', () => {
  const base = philox4x32([1, 2, 3, 4], [5, 6]);
  assert.deepEqual(philox4x32([1 + 2 ** 32, 2 - 2 ** 32, 3, 4], [5 + 2 ** 32, 6]), base);
  assert.deepEqual(philox4x32([-1, 0, 0, 0], [0, 0]), philox4x32([0xffffffff, 0, 0, 0], [0, 0]));
  for (let word = 0; word < 6; word++) {
    const words = [1, 2, 3, 4, 5, 6].map((w, i) => (i === word ? w + 1 : w));
    const [a, b, c, d, k, l] = words;
    const other = philox4x32([a, b, c, d], [k, l]);
    assert.ok(
      other.every((x, i) => x !== base[i] && Number.isInteger(x) && x >= 0 && x < 2 ** 32),
      `word ${word}`,
    );
  }
});

test('every order of three numbers is drawn, about as often', () => {
  const counts = new Map<string, number>();
  for (let seed = 0; seed < 1200; seed++) {
    const order = permutation(3, seed, 0).join('');
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  assert.equal(counts.size, 6);
  // Each is drawn 200 times with a standard deviation of 13.
  for (const [order, count] of counts) assert.ok(Math.abs(count - 200) < 55, `${order}: ${count}`);
});
