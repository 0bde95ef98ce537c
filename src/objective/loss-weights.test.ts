// Loss weights: by hand, by property, and what is refused. The comparison with PyTorch is in test/golden-objective.test.ts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RetortError } from '../errors.js';
import { countItems, type LossType, lossTypes, lossWeights, perToken } from './loss-weights.js';

const three = [
  { length: 4, truncated: false },
  { length: 1, truncated: false },
  { length: 5, truncated: true },
];

const weights = (lossType: LossType, maskTruncatedCompletions: boolean) => [
  ...lossWeights(three, { lossType, maxCompletionLength: 5, maskTruncatedCompletions }).perCompletion,
];

test('three completions by hand, the last one truncated', () => {
  assert.deepEqual(weights('grpo', false), [1 / 12, 1 / 3, 1 / 15]);
  assert.deepEqual(weights('bnpo', false), [1 / 10, 1 / 10, 1 / 10]);
  assert.deepEqual(weights('dr_grpo', false), [1 / 15, 1 / 15, 1 / 15]);
  assert.deepEqual(weights('dapo', false), [1 / 10, 1 / 10, 1 / 10]);
  assert.deepEqual(weights('cispo', false), [1 / 10, 1 / 10, 1 / 10]);
});

test('masked: its tokens leave the token counts, the completion still counts as one', () => {
  assert.deepEqual(weights('grpo', true), [1 / 12, 1 / 3, 0]);
  assert.deepEqual(weights('bnpo', true), [1 / 5, 1 / 5, 0]);
  assert.deepEqual(weights('dr_grpo', true), [1 / 15, 1 / 15, 0]);
  assert.deepEqual(weights('dapo', true), [1 / 5, 1 / 5, 0]);
  assert.equal(countItems(three, true), 5);
});

test('all masked: weights of 0, no division by zero', () => {
  for (const lossType of lossTypes) {
    const { perCompletion, countedTokens } = lossWeights([{ length: 5, truncated: true }], {
      lossType,
      maxCompletionLength: 5,
      maskTruncatedCompletions: true,
    });
    assert.deepEqual([...perCompletion, countedTokens], [0, 0]);
  }
});

const batches = fc.array(fc.record({ length: fc.integer({ min: 1, max: 9 }), truncated: fc.boolean() }), {
  minLength: 1,
  maxLength: 8,
});

test('grpo, bnpo and dapo weights of all tokens sum to 1; dr_grpo to the filled share of the budget', () => {
  fc.assert(
    fc.property(batches, fc.constantFrom(...lossTypes), (completions, lossType) => {
      const { perCompletion } = lossWeights(completions, { lossType, maxCompletionLength: 9 });
      const sum = completions.reduce((total, { length }, i) => total + length * perCompletion[i], 0);
      const expected = lossType === 'dr_grpo' ? countItems(completions) / (9 * completions.length) : 1;
      assert.ok(Math.abs(sum - expected) < 1e-12);
    }),
  );
});

test('two equal micro-batches have the weights of the whole batch, bnpo apart', () => {
  fc.assert(
    fc.property(
      batches,
      batches,
      fc.constantFrom<LossType>('grpo', 'dr_grpo', 'dapo', 'cispo'),
      (one, two, lossType) => {
        const size = Math.min(one.length, two.length);
        const parts = [one.slice(0, size), two.slice(0, size)];
        const whole = parts.flat();
        const numItemsInBatch = countItems(whole);
        const options = { lossType, maxCompletionLength: 9, numItemsInBatch };
        const split = parts.flatMap((part) => [
          ...lossWeights(part, { ...options, gradientAccumulationSteps: 2 }).perCompletion,
        ]);
        const together = lossWeights(whole, options).perCompletion;
        split.forEach((weight, i) => {
          assert.ok(Math.abs(weight - together[i]) <= 1e-15);
        });
      },
    ),
  );
});

test('perToken repeats each value over its completion, empty ones included', () => {
  const completions = [2, 0, 1].map((length) => ({ length, truncated: false }));
  assert.deepEqual([...perToken([0.5, 9, 0.25], completions)], [0.5, 0.5, 0.25]);
});

test('refusals name the option and the value', () => {
  const refused = (run: () => unknown, pattern: RegExp) =>
    assert.throws(run, (e) => e instanceof RetortError && e.code === 'bad-input' && pattern.test(e.message));
  const options = { lossType: 'grpo', maxCompletionLength: 5 } as const;
  refused(() => lossWeights(three, { ...options, lossType: 'ppo' as LossType }), /lossType: got "ppo"/);
  refused(() => lossWeights(three, { ...options, maxCompletionLength: 4 }), /completion: got 5; .* 0 to 4/);
  refused(() => lossWeights(three, { ...options, maxCompletionLength: 0 }), /maxCompletionLength: got 0;/);
  refused(() => lossWeights(three, { ...options, gradientAccumulationSteps: 0.5 }), /Steps: got 0.5;/);
  refused(() => lossWeights(three, { ...options, numItemsInBatch: 9 }), /numItemsInBatch: got 9; .* 10/);
  refused(
    () => lossWeights(three, { ...options, lossType: 'dapo', gradientAccumulationSteps: 2 }),
    /numItemsInBatch: got undefined; dapo/,
  );
});
