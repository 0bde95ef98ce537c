// GAE against its definitions, summed up term by term, and what is refused. PyTorch: test/golden-objective.test.ts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RetortError } from '../errors.js';
import { gae } from './gae.js';

const number = fc.double({ min: -5, max: 5, noNaN: true });
const share = fc.double({ min: 0, max: 1, noNaN: true });
const completions = fc.array(fc.tuple(number, number), { minLength: 1, maxLength: 12 });

function close(actual: ArrayLike<number>, expected: readonly number[], what: string): void {
  assert.equal(actual.length, expected.length);
  expected.forEach((x, t) => {
    assert.ok(Math.abs(actual[t] - x) < 1e-10, `${what} of token ${t}: ${actual[t]}, by definition ${x}`);
  });
}

/** Eq. 11 to 13: the advantage from k steps of rewards, then the value of the state reached. */
function kStepAdvantage(r: readonly number[], v: readonly number[], t: number, k: number, gamma: number) {
  let sum = -v[t];
  for (let l = 0; l < k; l++) sum += gamma ** l * (r[t + l] ?? 0);
  return sum + gamma ** k * (v[t + k] ?? 0);
}

test('eq. 16: the discounted sum of all temporal differences', () => {
  fc.assert(
    fc.property(completions, share, share, (tokens, gamma, lam) => {
      const [r, v] = [tokens.map(([x]) => x), tokens.map(([, x]) => x)];
      const expected = r.map((_, t) => {
        let sum = 0;
        for (let u = t; u < r.length; u++)
          sum += (gamma * lam) ** (u - t) * (r[u] + gamma * (v[u + 1] ?? 0) - v[u]);
        return sum;
      });
      const { advantages, returns } = gae(r, v, { gamma, lam });
      close(advantages, expected, 'advantage');
      close(
        returns,
        expected.map((x, t) => x + v[t]),
        'return',
      );
    }),
  );
});

test('the exponentially weighted average of the k-step advantages', () => {
  fc.assert(
    fc.property(completions, share, fc.double({ min: 0, max: 0.6, noNaN: true }), (tokens, gamma, lam) => {
      const [r, v] = [tokens.map(([x]) => x), tokens.map(([, x]) => x)];
      // 0.6^80 is below the rounding of doubles; past the end every k gives the same.
      const expected = r.map((_, t) => {
        let sum = 0;
        for (let k = 1; k <= 80; k++) sum += (1 - lam) * lam ** (k - 1) * kStepAdvantage(r, v, t, k, gamma);
        return sum;
      });
      close(gae(r, v, { gamma, lam }).advantages, expected, 'advantage');
    }),
  );
});

test('lam 1 is the return less the value, lam 0 the temporal difference', () => {
  const [r, v] = [
    [0.5, -1, 2],
    [1, 0.25, -0.5],
  ];
  close(gae(r, v, { gamma: 1, lam: 1 }).advantages, [0.5, 0.75, 2.5], 'advantage');
  close(gae(r, v, { gamma: 1, lam: 1 }).returns, [1.5, 1, 2], 'return');
  close(gae(r, v, { gamma: 0.5, lam: 0 }).advantages, [-0.375, -1.5, 2.5], 'advantage');
  assert.equal(gae([], [], { gamma: 1, lam: 1 }).advantages.length, 0);
});

test('refusals name the value', () => {
  const refused = (run: () => unknown, pattern: RegExp) =>
    assert.throws(run, (e) => e instanceof RetortError && e.code === 'bad-input' && pattern.test(e.message));
  refused(() => gae([1, 2], [1], { gamma: 1, lam: 1 }), /values of 2 tokens: got 1/);
  refused(() => gae([1], [1], { gamma: 1.01, lam: 1 }), /gamma: got 1.01/);
  refused(() => gae([1], [1], { gamma: 1, lam: Number.NaN }), /lam: got NaN/);
});
