// The update half of a GRPO step: clipped policy-gradient updates over the step's groups.
import type { Llama } from '../model/llama.js';
import { trainingOperations } from '../model/operations.js';
import { mean } from '../reward/statistics.js';
import { objectiveOf } from './grpo-objective.js';
import type { GrpoOptions } from './grpo-options.js';
import type { Batch, GrpoSample } from './grpo-rollout.js';
import { type Optimizer, stepOrSkip } from './optimizer.js';
import { tokensOf } from './packing.js';
import type { Policy } from './policy.js';
import { accumulatePolicyGradient, type PolicyGradientSums, type ScoredSample } from './policy-gradient.js';
import { learningRateAt } from './schedule.js';

/** The clipped updates over a step's groups. */
export async function updatePolicy(
  { llama }: Policy,
  reference: Llama | null,
  optimizer: Pick<Optimizer, 'step' | 'clearGradients'>,
  { groups }: Batch,
  o: GrpoOptions,
  step: number,
  warn: (message: string) => void,
): Promise<{ metrics: Record<string, number>; trainedTokens: number; operations: number }> {
  const learningRate = learningRateAt(step - 1, o.steps, o);
  const parts = Math.min(o.minibatches, groups.length);
  const objective = objectiveOf(o);
  const sums: PolicyGradientSums[] = [];
  const norms: number[] = [];
  let skipped = 0;
  let trainedTokens = 0;
  let operations = 0;
  optimizer.clearGradients();
  for (let iteration = 0; iteration < o.numIterations; iteration++) {
    for (let part = 0; part < parts; part++) {
      const start = Math.floor((groups.length * part) / parts);
      const end = Math.floor((groups.length * (part + 1)) / parts);
      const samples = groups.slice(start, end).flat().map(toScoredSample);
      sums.push(await accumulatePolicyGradient(llama, reference, samples, objective));
      trainedTokens += samples.reduce((n, s) => n + s.promptIds.length + s.completionIds.length, 0);
      const trained = trainingOperations(llama.config, samples.map(tokensOf));
      // A reference model runs forward only.
      operations += reference ? (4 / 3) * trained : trained;
      const norm = stepOrSkip(optimizer, learningRate, o.onNonFinite, (m) => warn(`step ${step}: ${m}`));
      if (norm === null) skipped++;
      else norms.push(norm);
    }
  }
  return { metrics: lossMetrics(o, sums, norms, learningRate, skipped), trainedTokens, operations };
}

function toScoredSample({ completion, advantage }: GrpoSample): ScoredSample {
  return {
    promptIds: completion.promptIds,
    completionIds: completion.ids,
    oldLogprobs: completion.samplingLogprobs,
    advantage,
    truncated: completion.finishReason === 'length',
  };
}

function lossMetrics(
  o: GrpoOptions,
  sums: readonly PolicyGradientSums[],
  norms: readonly number[],
  learningRate: number,
  skipped: number,
): Record<string, number> {
  const total = (key: keyof PolicyGradientSums) => sums.reduce((sum, s) => sum + s[key], 0);
  const tokens = Math.max(1, total('tokens'));
  const ratios = Math.max(1, total('ratios'));
  const first = sums[0];
  return {
    loss: sums.length > 0 ? total('loss') / sums.length : 0,
    grad_norm: norms.length > 0 ? mean(norms) : 0,
    learning_rate: learningRate,
    entropy: total('entropy') / tokens,
    kl: total('kl') / tokens,
    ...(o.entropyCoef === 0 ? {} : { policy_loss: total('policyLoss') / Math.max(1, sums.length) }),
    ...(o.lossType === 'cispo'
      ? { cispo_clip_ratio: total('clippedHigh') / ratios }
      : {
          'clip_ratio/low_mean': total('clippedLow') / ratios,
          'clip_ratio/high_mean': total('clippedHigh') / ratios,
          'clip_ratio/region_mean': (total('clippedLow') + total('clippedHigh')) / ratios,
        }),
    // Over the first update, whose policy is the one that sampled.
    'sampling/sampling_logp_difference/mean': first ? first.logprobDifference / Math.max(1, first.tokens) : 0,
    'sampling/importance_sampling_ratio/mean': first ? first.ratio / Math.max(1, first.ratios) : 1,
    skipped_updates: skipped,
  };
}
