// Token log-probabilities at the ends of the range: impossible tokens, huge logits, certain tokens.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { noise, relativeError, testDevices } from '../../../../test/support/op.js';
import type { Device } from '../../device/device.js';
import { tokenLogprobGradientReference, tokenLogprobReference } from './reference.js';
import { tokenLogprob, tokenLogprobGradient } from './token-logprob.js';

const devices = testDevices();
const wasm = devices[0].device;
after(() => Promise.all(devices.map(({ device }) => device.close())));

interface Result {
  readonly logprob: number[];
  readonly entropy: number[];
  readonly gradient: Float32Array;
}

/** Both gradients are 1 but for those left out. */
function run(
  device: Device,
  logits: ArrayLike<number>,
  tokens: readonly number[],
  { temperature = 1, seeds = ['logprob', 'entropy'] as readonly ('logprob' | 'entropy')[] } = {},
): Result {
  const mark = device.mark();
  const rows = tokens.length;
  const held = device.upload(logits, 'f32', [rows, logits.length / rows]);
  const ids = device.upload(tokens, 'i32');
  const [logprob, entropy, peak, logSum] = [0, 1, 2, 3].map(() => device.temporary([rows]));
  const known = { logprob, entropy, peak, logSum };
  tokenLogprob(device, held, ids, temperature, known);
  const seed = (which: 'logprob' | 'entropy') =>
    device.upload(new Float32Array(rows).fill(seeds.includes(which) ? 1 : 0), 'f32');
  tokenLogprobGradient(device, held, ids, temperature, known, {
    logprob: seed('logprob'),
    entropy: seed('entropy'),
  });
  const result = {
    logprob: [...device.floats(logprob)],
    entropy: [...device.floats(entropy)],
    gradient: device.floats(held).slice(),
  };
  device.rewind(mark);
  return result;
}

test('tokens of logit -Infinity weigh nothing, forward and backward', () => {
  const n = 9;
  const logits = noise(2 * n, 4, 3).map((x, i) => (i % 4 === 1 ? Number.NEGATIVE_INFINITY : x));
  const tokens = [2, 1];
  for (const temperature of [1, 0.6]) {
    const expected = tokenLogprobReference(logits, tokens, n, temperature);
    const slope = tokenLogprobGradientReference(logits, tokens, n, temperature, new Float64Array(4).fill(1));
    for (const { name, device } of devices) {
      const { logprob, entropy, gradient } = run(device, logits, tokens, { temperature });
      assert.ok(relativeError([...logprob, ...entropy], expected) < 1e-6, name);
      assert.ok(relativeError(gradient, slope) < 1e-6, name);
      gradient.forEach((g, i) => {
        if (i % 4 === 1) assert.ok(g === 0, `${name}: ${g} at ${i}`);
      });
    }
  }
});

test('logits far from 0 lose nothing but their own rounding', () => {
  const near = noise(35, 6, 4).map((x) => Math.round(x * 8) / 8);
  const tokens = [0, 3, 6, 2, 5];
  for (const { name, device } of devices) {
    const at = run(device, near, tokens);
    for (const shift of [-100_000, 100_000]) {
      const far = run(
        device,
        near.map((x) => x + shift),
        tokens,
      );
      assert.deepEqual(far, at, `${name}: shifted by ${shift}`);
    }
  }
});

test('a certain token has log-probability 0, no entropy and no gradient', () => {
  for (const { name, device } of devices) {
    const { logprob, entropy, gradient } = run(device, [500, -500, -500, 0, -500], [0]);
    assert.deepEqual([logprob[0], Math.abs(entropy[0])], [0, 0], name);
    assert.ok(gradient.every((g) => g === 0));
  }
});

test('either output alone can carry the gradient', () => {
  const logits = noise(14, 8, 3);
  for (const [which, seed] of (['logprob', 'entropy'] as const).entries()) {
    const dout = Float64Array.of(0, 0, 0, 0).fill(1, 2 * which, 2 * which + 2);
    const slope = tokenLogprobGradientReference(logits, [1, 5], 7, 1, dout);
    const { gradient } = run(wasm, logits, [1, 5], { seeds: [seed] });
    assert.ok(relativeError(gradient, slope) < 1e-6, seed);
  }
});

test('the gradient of a row sums to 0, and a NaN logit makes the row NaN and no other', () => {
  const logits = noise(33, 9, 3);
  const { gradient } = run(wasm, logits, [1, 5, 10]);
  for (let r = 0; r < 3; r++) {
    const sum = gradient.subarray(11 * r, 11 * r + 11).reduce((a, b) => a + b, 0);
    assert.ok(Math.abs(sum) < 1e-6);
  }
  logits[15] = Number.NaN;
  assert.deepEqual(run(wasm, logits, [1, 5, 10]).logprob.map(Number.isNaN), [false, true, false]);
});
