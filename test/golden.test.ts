// The engine against golden files from PyTorch, tensor by tensor: norm of the difference over norm at most 1e-4.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { freeLlama, packedLogits, packSequences } from '../src/model/llama.js';
import { completionLogprobs } from '../src/train/packing.js';
import { accumulatePolicyGradient } from '../src/train/policy-gradient.js';
import {
  assertGradients,
  assertMoves,
  goldenLlama,
  goldenOptimizer,
  goldenSamples,
  nextTokenLoss,
  targets,
} from './golden-engine.js';
import {
  advantagesOf,
  assertClose,
  type GoldenGrpoCase,
  goldenModels,
  readIndex,
  readTensors,
  tensor,
} from './golden-files.js';

const index = readIndex();
const files = Object.fromEntries(goldenModels.map((name) => [name, readTensors(`${name}.safetensors`)]));
const steps = readTensors('adamw.safetensors');
const grpo = readTensors('grpo.safetensors');

const samples = goldenSamples(index.grpo.rollouts, grpo);

const lossOptions = (golden: GoldenGrpoCase, microBatchTokens: number, gradientCheckpointing: boolean) => ({
  ...index.grpo.options,
  lossType: golden.lossType,
  importanceSamplingLevel: golden.importanceSamplingLevel,
  epsilon: golden.epsilon,
  epsilonHigh: golden.epsilonHigh,
  entropyCoef: golden.entropyCoef,
  beta: golden.beta,
  delta: golden.delta ?? Number.POSITIVE_INFINITY,
  maskTruncatedCompletions: golden.maskTruncatedCompletions,
  microBatchTokens,
  gradientCheckpointing,
});

// Retort normalises over the whole minibatch however it is cut, so TRL's cases of several micro-batches that are each
// normalised by themselves do not occur; test/golden-objective.test.ts has their weights.
const wholeBatch = index.grpo.cases.filter((golden) => golden.gradientAccumulationSteps === 1);

for (const target of targets)
  describe(target.name, () => {
    const device = target.open();
    after(() => device.close());

    for (const name of goldenModels) {
      const { config, sequences, loss } = index[name];
      const llama = goldenLlama(device, config, files[name]);

      test(`${name}: logits`, () => {
        const mark = device.mark();
        const logits = packedLogits({ device, tape: null }, llama, packSequences(llama, sequences));
        assertClose(device.floats(logits), tensor(files[name], 'logits').data, 'logits');
        device.rewind(mark);
      });

      test(`${name}: loss and every gradient`, () => {
        assertClose([nextTokenLoss(llama, sequences)], [loss], 'loss');
        assertGradients(llama, files[name], 'gradient:');
      });
    }

    test('ten AdamW steps', () => {
      const { options, losses, gradNorms } = index.adamw;
      const llama = goldenLlama(device, index.a.config, files.a);
      const optimizer = goldenOptimizer(llama, options);
      for (let step = 1; step <= options.steps; step++) {
        assertClose([nextTokenLoss(llama, index.a.sequences)], [losses[step - 1]], `loss of step ${step}`);
        const gradNorm = optimizer.step(options.learningRate);
        assertClose([gradNorm], [gradNorms[step - 1]], `gradient norm of step ${step}`);
        if (step === 1) assertMoves(llama, files.a, steps, 'step1:');
      }
      assertMoves(llama, files.a, steps, 'step10:');
    });

    test('log-probabilities and entropies at the sampling temperature', () => {
      const llama = goldenLlama(device, index.a.config, files.a);
      const mark = device.mark();
      const { logprob, entropy } = completionLogprobs(
        { device: llama.device, tape: null },
        llama,
        samples,
        index.grpo.options.temperature,
      );
      assertClose(device.floats(logprob), tensor(grpo, 'logps').data, 'log-probabilities');
      assertClose(device.floats(entropy), tensor(grpo, 'entropies').data, 'entropies');
      device.rewind(mark);
    });

    for (const golden of wholeBatch)
      for (const [microBatchTokens, checkpointing] of [
        [1000, false],
        [20, false],
        // How the layers' gradients are made does not depend on the loss: twice is enough.
        ...(['grpo', 'dapo/entropy'].includes(golden.name) ? ([[1000, true]] as const) : []),
      ] as const)
        test(`GRPO step: ${golden.name}, micro-batches of ${microBatchTokens} tokens, checkpointing ${checkpointing}`, async () => {
          const llama = goldenLlama(device, index.a.config, files.a);
          const options = lossOptions(golden, microBatchTokens, checkpointing);
          const own = goldenSamples(index.grpo.rollouts, grpo, advantagesOf(golden));
          const sums = await accumulatePolicyGradient(llama, null, own, options);
          assertClose([sums.loss], [golden.loss], 'loss');
          assert.equal(sums.tokens, golden.numItemsInBatch);
          const expected = golden.microBatchMetrics[0];
          assertClose([sums.entropy / sums.tokens], [expected.entropy], 'entropy');
          // Without a KL term there is no reference to measure it against; TRL does not report it then either.
          if (golden.beta !== 0) assertClose([sums.kl / sums.tokens], [expected.kl], 'kl');
          // A completion's share in the mean is one over its length, rounded to float32.
          const exact = golden.importanceSamplingLevel === 'token' ? 1e-12 : 1e-6;
          assertClose([sums.clippedLow / sums.ratios], [expected['clip_ratio/low_mean']], 'low', exact);
          assertClose([sums.clippedHigh / sums.ratios], [expected['clip_ratio/high_mean']], 'high', exact);
          assertGradients(llama, grpo, `${golden.name}:gradient:`);

          const optimizer = goldenOptimizer(llama, index.grpo.optimizer);
          const gradNorm = optimizer.step(index.grpo.optimizer.learningRate);
          assertClose([gradNorm], [golden.gradNorm], 'gradient norm');
          if (golden.hasStep) assertMoves(llama, files.a, grpo, `${golden.name}:after:`);
          optimizer.free();
          freeLlama(llama);
        });
  });
