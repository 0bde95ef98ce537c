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

test('32 lanes are refused: they reached over a block and gave NaN', () => {
  assert.throws(
    () => blockSizes(target(32), shape),
    (e) => e instanceof RetortError && e.code === 'bad-kernel' && /attention: got 32;/.test(e.message),
  );
});
