// PPO against a golden file from PyTorch: rewards, advantages, returns, losses, every gradient of policy and critic, and
// where both are after some optimizer steps.
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { createCritic, freeCritic, SCORE, shareTrunk } from '../src/model/critic.js';
import { freeLlama, readWeights } from '../src/model/llama.js';
import { gae } from '../src/objective/gae.js';
import { tokenRewards } from '../src/objective/token-rewards.js';
import { whiten } from '../src/objective/whiten.js';
import { accumulateLosses, type LearnedSample } from '../src/train/ppo-update.js';
import { completionValues } from '../src/train/value-gradient.js';
import { assertGradients, assertMoves, goldenLlama, goldenOptimizer, targets } from './golden-engine.js';
import { assertClose, type GoldenPpoCase, readIndex, readTensors, tensor } from './golden-files.js';

const { ppo: golden, a } = readIndex();
const policyFile = readTensors('a.safetensors');
const file = readTensors('ppo.safetensors');

/** A packed golden tensor as one list a completion. */
function perCompletion(name: string): Float64Array[] {
  let start = 0;
  return golden.rollouts.map(({ completion }) => {
    const end = start + completion.length;
    const part = Float64Array.from(tensor(file, name).data.subarray(start, end));
    start = end;
    return part;
  });
}

const flat = (lists: readonly ArrayLike<number>[]) => lists.flatMap((list) => Array.from(list));
const oldValuesOf = ({ sharedTrunk }: GoldenPpoCase) =>
  perCompletion(sharedTrunk ? 'oldSharedValues' : 'oldValues');

for (const k of golden.cases)
  test(`${k.name}: rewards of tokens, advantages and returns`, () => {
    const [old, reference, values] = [perCompletion('oldLogps'), perCompletion('refLogps'), oldValuesOf(k)];
    const rewarded = golden.rollouts.map(({ truncated }, i) => {
      const score = golden.scores[i] - (truncated ? k.missingEosPenalty : 0);
      return tokenRewards(score, old[i], reference[i], k);
    });
    const kl = rewarded.reduce((sum, r) => sum + r.kl, 0) / rewarded.length;
    assertClose([kl], [k.kl], 'kl', 1e-6);
    const raw = rewarded.map((r) => r.rewards);
    const rewards = k.whitenRewards ? whiten(raw, false) : raw;
    const estimated = rewards.map((r, i) => gae(r, values[i], k));
    const plain = estimated.map((e) => e.advantages);
    const advantages = k.whitenAdvantages ? whiten(plain) : plain;
    // What the file holds is float32.
    assertClose(flat(rewards), tensor(file, `${k.name}:rewards`).data, 'rewards', 1e-6);
    assertClose(flat(advantages), tensor(file, `${k.name}:advantages`).data, 'advantages', 1e-6);
    const returns = flat(estimated.map((e) => e.returns));
    assertClose(returns, tensor(file, `${k.name}:returns`).data, 'returns', 1e-6);
  });

function samplesOf(k: GoldenPpoCase): LearnedSample[] {
  const oldLogprobs = perCompletion('oldLogps');
  const advantages = perCompletion(`${k.name}:advantages`);
  const returns = perCompletion(`${k.name}:returns`);
  const values = oldValuesOf(k);
  return golden.rollouts.map(({ prompt, completion, truncated }, i) => ({
    promptIds: prompt,
    completionIds: completion,
    oldLogprobs: oldLogprobs[i],
    advantage: advantages[i],
    values: values[i],
    returns: returns[i],
    truncated,
  }));
}

const source = { read: (name: string, into: Float32Array) => into.set(tensor(file, `critic:${name}`).data) };

for (const target of targets)
  describe(target.name, () => {
    const device = target.open();
    after(() => device.close());

    /** Policy and critic as the golden ones begin. */
    function models(sharedTrunk: boolean) {
      const llama = goldenLlama(device, a.config, policyFile);
      const critic = sharedTrunk ? shareTrunk(llama) : createCritic(device, golden.criticConfig);
      readWeights(critic, source);
      const policy = { llama, tokenizer: {} as never };
      const free = () => {
        freeCritic(critic);
        freeLlama(llama);
      };
      return { policy, critic, free };
    }

    for (const shared of [false, true])
      test(`values of a critic, trunk ${shared ? 'shared' : 'its own'}`, async () => {
        const { critic, free } = models(shared);
        const values = await completionValues(critic, samplesOf(golden.cases[0]), 20);
        assertClose(flat(values), tensor(file, shared ? 'sharedValues' : 'values').data, 'values');
        free();
      });

    for (const k of golden.cases)
      for (const [microBatchTokens, gradientCheckpointing] of [
        [1000, false],
        [20, true],
      ] as const)
        test(`${k.name}: losses, gradients, steps; passes of ${microBatchTokens} tokens`, async () => {
          const { cliprange, ...options } = golden.options;
          const objective = {
            ...options,
            lossType: 'dapo',
            importanceSamplingLevel: 'token',
            epsilon: cliprange,
            epsilonHigh: cliprange,
            delta: Number.POSITIVE_INFINITY,
            beta: 0,
            entropyCoef: k.entropyCoef,
            maskTruncatedCompletions: false,
            microBatchTokens,
            gradientCheckpointing,
          } as const;
          const { policy, critic, free } = models(k.sharedTrunk);
          const optimizer = goldenOptimizer(policy.llama, golden.optimizer);
          const criticOptimizer = goldenOptimizer(critic, golden.optimizer);
          for (const [update, expected] of k.metrics.entries()) {
            const losses = await accumulateLosses({ policy, critic }, samplesOf(k), objective, true);
            assert.ok(losses.policy);
            const { policy: p, value } = losses;
            const actual: Record<string, number> = {
              'loss/policy_avg': p.policyLoss,
              'loss/value_avg': value.loss,
              'policy/approxkl_avg': p.squaredDifference / 2 / p.tokens,
              'policy/clipfrac_avg': (p.clippedLow + p.clippedHigh) / p.tokens,
              'val/clipfrac_avg': value.clipped / value.tokens,
              'policy/entropy_avg': p.entropy / p.tokens,
              'val/ratio': p.ratio / p.tokens,
              loss: p.loss + golden.options.vfCoef * value.loss,
            };
            for (const [name, number] of Object.entries(expected))
              assertClose([actual[name]], [number], `${name} of update ${update + 1}`);
            if (update === 0) {
              assertGradients(policy.llama, file, `${k.name}:gradient:policy:`);
              assertGradients(critic, file, `${k.name}:gradient:critic:`);
            }
            const norms = [optimizer, criticOptimizer].map((o) => o.step(golden.optimizer.learningRate));
            assertClose(norms, k.gradNorms[update], `gradient norms of update ${update + 1}`);
          }
          if (k.updates > 1) {
            assertMoves(policy.llama, policyFile, file, `${k.name}:after:policy:`);
            assertMoves(critic, file, file, `${k.name}:after:critic:`, 'critic:');
          }
          optimizer.free();
          criticOptimizer.free();
          free();
        });
  });

test('the golden critic has a head of its own, and no head of logits', () => {
  assert.ok(file.has(`critic:${SCORE}`) && !file.has('critic:lm_head.weight'));
});
