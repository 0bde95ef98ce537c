// Sizes of attention blocks, and lanes that they cannot serve.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetortError } from '../../../errors.js';
import { blockSizes } from './layout.js';

const target = (lanes: number) =>
  ({ name: 'interpreter', lanes, fusedMulAdd: true, vectorRegisters: 16 }) as const;
const shape = { heads: 4, kvHeads: 2, headDim: 6 };

test('keys take headDim, values whole vectors, for 16 positions of each head', () => {
  assert.deepEqual(blockSizes(target(4), shape), { keys: 2 * 6 * 16, values: 2 * 8 * 16 });
  assert.deepEqual(blockSizes(target(16), shape), { keys: 2 * 6 * 16, values: 2 * 16 * 16 });
});

test('as bfloat16 keys take half, values half where whole vectors are', () => {
  const half = { ...shape, headDim: 32 };
  for (const lanes of [4, 8, 16]) {
    const { keys, values } = blockSizes(target(lanes), half);
    assert.deepEqual(blockSizes(target(lanes), half, 'bfloat16'), { keys: keys / 2, values: values / 2 });
  }
  assert.deepEqual(blockSizes(target(16), shape, 'bfloat16'), { keys: 2 * 3 * 16, values: 2 * 16 * 16 });
  assert.throws(
    () => blockSizes(target(8), { ...shape, headDim: 5 }, 'bfloat16'),
    /head dimension for bfloat16 keys: got 5; it must be even/,
  );
});

test('32 lanes are refused: they reached over a block and gave NaN', () => {
  assert.throws(
    () => blockSizes(target(32), shape),
    (e) => e instanceof RetortError && e.code === 'bad-kernel' && /attention: got 32;/.test(e.message),
  );
});
