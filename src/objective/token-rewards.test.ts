// Rewards of tokens and whitening: by hand and by property. PyTorch: test/golden-ppo.test.ts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RetortError } from '../errors.js';
import { tokenRewards } from './token-rewards.js';
import { whiten } from './whiten.js';

const number = fc.double({ min: -5, max: 5, noNaN: true });
const sum = (values: ArrayLike<number>) => Array.from(values).reduce((a, b) => a + b, 0);

test('each token pays for its KL, the last one earns the score', () => {
  const { rewards, kl } = tokenRewards(1, [-1, -2, -3], [-1, -1.5, -3.5], { klCoef: 0.1, klEstimator: 'k1' });
  assert.deepEqual(
    [...rewards].map((x) => +x.toFixed(12)),
    [0, 0.05, 0.95],
  );
  assert.equal(kl, 0);
  const k3 = tokenRewards(0, [-2], [-1], { klCoef: 2, klEstimator: 'k3' });
  assert.ok(Math.abs(k3.rewards[0] + 2 * (Math.E - 2)) < 1e-12);
  assert.deepEqual(tokenRewards(3, [], [], { klCoef: 1, klEstimator: 'k3' }), {
    rewards: new Float64Array(0),
    kl: 0,
  });
  assert.throws(
    () => tokenRewards(0, [1, 2], [1], { klCoef: 1, klEstimator: 'k1' }),
    (e) => e instanceof RetortError && /log-probabilities of 2 tokens: got 1/.test(e.message),
  );
});

test('k3 is never negative; rewards add up to the score less klCoef times the KL', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(number, number), { minLength: 1, maxLength: 8 }),
      number,
      fc.constantFrom('k1', 'k3'),
      (tokens, score, klEstimator) => {
        const [logprobs, reference] = [tokens.map(([x]) => x), tokens.map(([, x]) => x)];
        const { rewards, kl } = tokenRewards(score, logprobs, reference, { klCoef: 0.3, klEstimator });
        if (klEstimator === 'k3') assert.ok(kl >= 0);
        assert.ok(Math.abs(sum(rewards) - (score - 0.3 * kl)) < 1e-9 * (1 + Math.abs(kl)));
      },
    ),
  );
});

test('whitened values have mean 0 and deviation 1, or keep their mean', () => {
  fc.assert(
    fc.property(fc.array(fc.array(number, { maxLength: 6 }), { minLength: 2, maxLength: 6 }), (lists) => {
      const flat = lists.flat();
      const mean = sum(flat) / Math.max(1, flat.length);
      const variance = sum(flat.map((x) => (x - mean) ** 2)) / (flat.length - 1);
      fc.pre(flat.length >= 2 && variance > 1e-3);
      for (const shiftMean of [true, false]) {
        const out = whiten(lists, shiftMean);
        assert.deepEqual(
          out.map((x) => x.length),
          lists.map((x) => x.length),
        );
        const values = out.flatMap((x) => [...x]);
        const after = sum(values) / values.length;
        assert.ok(Math.abs(after - (shiftMean ? 0 : mean)) < 1e-9);
        const spread = sum(values.map((x) => (x - after) ** 2)) / (values.length - 1);
        assert.ok(Math.abs(spread - 1) < 1e-4, `${spread}`);
      }
    }),
  );
});

test('equal values become exactly 0, one alone too, none at all give none', () => {
  assert.deepEqual(whiten([[0.1, 0.1], [0.1]]), [new Float64Array(2), new Float64Array(1)]);
  assert.deepEqual(whiten([[3]]), [new Float64Array(1)]);
  assert.deepEqual(whiten([[3]], false), [Float64Array.of(3)]);
  assert.deepEqual(whiten([[], []]), [new Float64Array(0), new Float64Array(0)]);
});
