// Advantages: by hand, by property, and what is refused. The comparison with PyTorch is in test/golden-objective.test.ts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RetortError } from '../errors.js';
import { type AdvantageEstimator, computeAdvantages, type ScaleRewards } from './advantages.js';

test('a group by hand: mean 0.25, Bessel-corrected deviation 0.5', () => {
  const scores = [{ accuracy: 1 }, { accuracy: 0 }, { accuracy: 0 }, { accuracy: 0 }];
  const { advantages, flatGroups, metrics } = computeAdvantages(scores, {
    numGenerations: 4,
    scaleRewards: 'group',
  });
  assert.deepEqual([...advantages], [0.75 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001]);
  assert.deepEqual(flatGroups, [false]);
  assert.deepEqual(metrics, {
    reward: 0.25,
    reward_std: 0.5,
    frac_reward_zero_std: 0,
    'rewards/accuracy/mean': 0.25,
    'rewards/accuracy/std': 0.5,
  });
});

test('equal rewards give advantages of exactly 0, though their mean is not exact in binary', () => {
  const scores = Array.from({ length: 6 }, () => ({ a: 0.1, b: 0.2 }));
  for (const scaleRewards of ['group', 'batch', 'none'] as const) {
    const { advantages, flatGroups, metrics } = computeAdvantages(scores, {
      numGenerations: 3,
      scaleRewards,
    });
    assert.deepEqual([...advantages], [0, 0, 0, 0, 0, 0]);
    assert.deepEqual(flatGroups, [true, true]);
    assert.equal(metrics.frac_reward_zero_std, 1);
  }
});

test('advantages of a group sum to 0 and keep the order of the rewards', () => {
  const reward = fc.double({ min: -100, max: 100, noNaN: true });
  fc.assert(
    fc.property(
      fc.array(fc.array(reward, { minLength: 3, maxLength: 3 }), { minLength: 1, maxLength: 5 }),
      fc.constantFrom<ScaleRewards>('group', 'batch', 'none'),
      (groups, scaleRewards) => {
        const scores = groups.flat().map((accuracy) => ({ accuracy }));
        const { advantages } = computeAdvantages(scores, { numGenerations: 3, scaleRewards });
        for (let at = 0; at < advantages.length; at += 3) {
          const group = advantages.subarray(at, at + 3);
          // Up to 200 off the mean, divided by at least 1e-4, each rounded in the last of 53 bits.
          assert.ok(Math.abs(group[0] + group[1] + group[2]) < 1e-8);
          const order = (a: number, b: number) =>
            Math.sign(scores[at + a].accuracy - scores[at + b].accuracy);
          assert.ok(order(0, 1) * (group[0] - group[1]) >= 0 && order(1, 2) * (group[1] - group[2]) >= 0);
        }
      },
    ),
  );
});

test('rloo: each reward less the mean of the others, by definition', () => {
  const reward = fc.oneof(fc.double({ min: -10, max: 10, noNaN: true }), fc.constant(Number.NaN));
  fc.assert(
    fc.property(fc.array(reward, { minLength: 4, maxLength: 4 }), (rewards) => {
      const { advantages } = computeAdvantages(
        rewards.map((accuracy) => ({ accuracy })),
        { numGenerations: 4, scaleRewards: 'none', advantageEstimator: 'rloo' },
      );
      rewards.forEach((r, i) => {
        const others = rewards.filter((x, j) => j !== i && !Number.isNaN(x));
        const alone = Number.isNaN(r) || others.length === 0;
        const baseline = others.reduce((a, b) => a + b, 0) / others.length;
        assert.ok(Math.abs(advantages[i] - (alone ? 0 : r - baseline)) < 1e-12);
      });
    }),
  );
  const equal = Array.from({ length: 3 }, () => ({ a: 0.1, b: 0.2 }));
  const o = { numGenerations: 3, scaleRewards: 'none', advantageEstimator: 'rloo' } as const;
  assert.deepEqual([...computeAdvantages(equal, o).advantages], [0, 0, 0]);
});

test('a reward that is missing, NaN or infinite takes no part', () => {
  const { advantages, rewards, flatGroups } = computeAdvantages(
    [{ a: 1, b: Number.NaN }, { a: 0 }, { a: Number.POSITIVE_INFINITY }, {}],
    { numGenerations: 4, scaleRewards: 'none' },
  );
  assert.deepEqual([...rewards], [1, 0, Number.NaN, Number.NaN]);
  assert.deepEqual([...advantages], [0.5, -0.5, 0, 0]);
  assert.deepEqual(flatGroups, [false]);
});

test('refusals name the option and the value', () => {
  const refused = (run: () => unknown, pattern: RegExp) =>
    assert.throws(run, (e) => e instanceof RetortError && e.code === 'bad-input' && pattern.test(e.message));
  const four = [{ a: 1 }, { a: 0 }, { a: 1 }, { a: 0 }];
  refused(
    () => computeAdvantages(four, { numGenerations: 1, scaleRewards: 'group' }),
    /numGenerations: got 1;/,
  );
  refused(
    () => computeAdvantages(four, { numGenerations: 3, scaleRewards: 'group' }),
    /batch: got 4; .*\(3\)/,
  );
  refused(() => computeAdvantages([], { numGenerations: 2, scaleRewards: 'group' }), /batch: got 0;/);
  refused(
    () => computeAdvantages(four, { numGenerations: 2, scaleRewards: 'all' as ScaleRewards }),
    /scaleRewards: got "all"/,
  );
  refused(
    () => computeAdvantages(four, { numGenerations: 2, scaleRewards: 'batch', advantageEstimator: 'rloo' }),
    /scaleRewards with advantageEstimator rloo: got "batch"; leave it out/,
  );
  refused(
    () =>
      computeAdvantages(four, {
        numGenerations: 2,
        scaleRewards: 'none',
        advantageEstimator: 'gae' as AdvantageEstimator,
      }),
    /advantageEstimator: got "gae"/,
  );
  refused(
    () =>
      computeAdvantages(four, { numGenerations: 2, scaleRewards: 'none', rewardWeights: { a: Number.NaN } }),
    /rewardWeights\.a: got NaN/,
  );
});
