// The peak kernel computes what it says, so that no target can skip its work.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wasmRunner } from '../../../test/support/wasm-runner.js';
import { interpret } from '../kernel/interpreter.js';
import { peakFlops, peakKernel } from './peak.js';
import { wasmTarget } from './wasm-detect.js';

test('every sum of the peak kernel is worked out', () => {
  const target = wasmTarget();
  const kernel = peakKernel(target);
  const scalars = [0, 2, 0, 3, 0.5, 1];
  const [wanted, got] = [new Float32Array(2), new Float32Array(2)];
  interpret(kernel, target, [wanted], scalars);
  wasmRunner(kernel, target)([got], scalars);
  assert.deepEqual(got, wanted);
  // x/2 + 1 goes to 2 in every lane of every sum.
  const lanes = peakFlops(target, 1) / 2 / 8;
  assert.ok(Math.abs(got[0] - 2 * lanes) < 1e-3, `${got[0]}`);
});
