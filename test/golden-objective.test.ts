// Advantages, loss weights and GAE against golden files from PyTorch; the engine is not needed.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { computeAdvantages } from '../src/objective/advantages.js';
import { gae } from '../src/objective/gae.js';
import { countItems, lossWeights, perToken } from '../src/objective/loss-weights.js';
import { tokenLossReference } from '../src/objective/reference.js';
import { softOverlong } from '../src/reward/shared.js';
import {
  advantagesOf,
  assertClose,
  type GoldenGrpoCase,
  readIndex,
  readTensors,
  tensor,
} from './golden-files.js';

const index = readIndex();

for (const { name, numGenerations, weights, rewards, scaled } of index.advantages)
  for (const expected of scaled)
    test(`advantages: ${name}, ${expected.advantageEstimator}, scaleRewards ${expected.scaleRewards}`, () => {
      const scores = rewards.map((row) =>
        Object.fromEntries(row.map((value, k) => [`r${k}`, value ?? Number.NaN])),
      );
      const rewardWeights = Object.fromEntries(weights.map((weight, k) => [`r${k}`, weight]));
      const actual = computeAdvantages(scores, {
        numGenerations,
        scaleRewards: expected.scaleRewards,
        advantageEstimator: expected.advantageEstimator,
        rewardWeights,
      });
      assertClose(actual.advantages, expected.advantages, 'advantages', 1e-10);
      const there = (values: ArrayLike<number | null>) =>
        Array.from(values).filter((v): v is number => v !== null && !Number.isNaN(v));
      assertClose(there(actual.rewards), there(expected.sums), 'sums', 1e-14);
      assert.deepEqual(
        Array.from(actual.rewards, Number.isNaN),
        expected.sums.map((v) => v === null),
      );
      const metrics: Record<string, number> = {
        reward: expected.reward,
        reward_std: expected.reward_std,
        frac_reward_zero_std: expected.frac_reward_zero_std,
      };
      expected.rewards.forEach(({ mean, std }, k) => {
        metrics[`rewards/r${k}/mean`] = mean;
        metrics[`rewards/r${k}/std`] = std;
      });
      assert.deepEqual(Object.keys(actual.metrics), Object.keys(metrics));
      for (const [metric, value] of Object.entries(metrics))
        assert.ok(Math.abs(actual.metrics[metric] - value) <= 1e-12, `${metric}: ${actual.metrics[metric]}`);
    });

for (const { gamma, lam, rewards, values, advantages, returns } of index.gae)
  test(`gae: ${rewards.length} tokens, gamma ${gamma}, lam ${lam}`, () => {
    const actual = gae(rewards, values, { gamma, lam });
    assertClose(actual.advantages, advantages, 'advantages', 1e-12);
    assertClose(actual.returns, returns, 'returns', 1e-12);
  });

const grpo = index.grpo;
const tensors = readTensors('grpo.safetensors');

// The per-token loss in float64 from PyTorch's log-probabilities, so that only the weights are under test.
function tokenLosses(golden: GoldenGrpoCase): Float64Array {
  const [logprob, old, reference] = ['logps', 'oldLogps', 'refLogps'].map((n) => tensor(tensors, n).data);
  const advantage = perToken(
    tensor(tensors, advantagesOf(golden)).data,
    grpo.rollouts.map(({ completion, truncated }) => ({ length: completion.length, truncated })),
  );
  return tokenLossReference(
    {
      logprob,
      old,
      reference,
      advantage,
      weight: [],
      lengths:
        golden.importanceSamplingLevel === 'sequence'
          ? grpo.rollouts.map(({ completion }) => completion.length)
          : null,
    },
    {
      surrogate: golden.lossType === 'cispo' ? 'cispo' : 'clip',
      epsilon: golden.epsilon,
      epsilonHigh: golden.epsilonHigh,
      delta: golden.delta ?? Number.POSITIVE_INFINITY,
      beta: golden.beta,
    },
  );
}

for (const golden of grpo.cases)
  test(`loss weights: ${golden.name}`, () => {
    const completions = grpo.rollouts.map(({ completion, truncated }) => ({
      length: completion.length,
      truncated,
    }));
    assert.equal(countItems(completions, golden.maskTruncatedCompletions), golden.numItemsInBatch);
    const losses = tokenLosses(golden);
    const entropies = tensor(tensors, 'entropies').data;
    const size = completions.length / golden.gradientAccumulationSteps;
    golden.microBatchLosses.forEach((expected, part) => {
      const before = completions.slice(0, part * size);
      const micro = completions.slice(part * size, (part + 1) * size);
      const { perCompletion } = lossWeights(micro, {
        lossType: golden.lossType,
        maxCompletionLength: grpo.options.maxCompletionLength,
        maskTruncatedCompletions: golden.maskTruncatedCompletions,
        gradientAccumulationSteps: golden.gradientAccumulationSteps,
        numItemsInBatch: golden.numItemsInBatch,
      });
      const weights = perToken(perCompletion, micro);
      const first = countItems(before);
      const policy = weights.reduce((sum, weight, i) => sum + weight * losses[first + i], 0);
      const counted = weights.reduce((sum, weight, i) => sum + (weight === 0 ? 0 : entropies[first + i]), 0);
      const loss = policy - (golden.entropyCoef * counted) / golden.numItemsInBatch;
      // Log-probabilities and weights come from float32.
      assert.ok(Math.abs(loss - expected) <= 1e-6, `micro-batch ${part}: ${loss} against ${expected}`);
    });
  });

for (const golden of grpo.cases) {
  const { rewarded, name } = golden;
  if (!rewarded) continue;
  test(`from rewards to advantages: ${name}`, () => {
    const overlong = rewarded.overlong && softOverlong(rewarded.overlong);
    const scores = grpo.rollouts.map(({ completion }, i) => ({
      answer: rewarded.scores[i],
      ...(overlong && { overlong: Number(overlong.score({}, '', { tokenCount: completion.length })) }),
    }));
    const { advantages } = computeAdvantages(scores, rewarded);
    assertClose(advantages, tensor(tensors, advantagesOf(golden)).data, 'advantages', 1e-6);
    if (overlong) assert.ok(scores.some((s) => 'overlong' in s && s.overlong === -1));
  });
}
