// The rollout half of a PPO step: sample, score, value each token, and say how much better it was than its value.

import type { Critic } from '../model/critic.js';
import type { Llama } from '../model/llama.js';
import { readingOperations } from '../model/operations.js';
import { gae } from '../objective/gae.js';
import { moments } from '../objective/moments.js';
import { tokenRewards } from '../objective/token-rewards.js';
import { whiten } from '../objective/whiten.js';
import { mean } from '../reward/statistics.js';
import { type Continued, completionLogprobs, tokenNumbers, tokensOf } from './packing.js';
import type { PpoOptions } from './ppo-options.js';
import {
  type Job,
  kindMetrics,
  lengthMetrics,
  type ScoreRound,
  sampleProblems,
  withEngine,
} from './rollout.js';
import { knownRewards, type Sample } from './scoring.js';
import { completionValues } from './value-gradient.js';

/** One completion of a step, as it was trained on. */
export interface PpoSample extends Sample {
  /** The reward, less the penalty for a missing end. */
  readonly score: number;
  /** Each of these [tokens]: the critic's value of the state before the token, ... */
  readonly values: Float64Array;
  /** ... what the token was worth beyond it, whitened where that is asked for, ... */
  readonly advantages: Float64Array;
  /** ... and what its value is trained towards. */
  readonly returns: Float64Array;
}

export interface PpoBatch {
  /** All of them, group by group. */
  readonly samples: readonly (Sample | PpoSample)[];
  /** Those that have a score: one whose reward failed says nothing about the policy. */
  readonly learned: readonly PpoSample[];
  readonly nextProblem: number;
  readonly tokens: number;
  readonly promptTokens: number;
  /** Of valuing the completions, and of reading them with the reference. */
  readonly operations: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/** Samples a batch and gives each token its advantage and its return. */
export async function sampleBatch(
  job: Job<PpoOptions>,
  critic: Critic,
  reference: Llama | null,
  step: number,
  firstProblem: number,
  score: ScoreRound,
): Promise<PpoBatch> {
  const { o, policy } = job;
  const problems = o.batchSize / o.numGenerations;
  const indices = Array.from({ length: problems }, (_, i) => firstProblem + i);
  const { samples: sampled, promptTokens } = await withEngine(job, (engine) =>
    sampleProblems(engine, job, step, indices, (items) => score(0, items)),
  );
  const known = sampled.filter(
    ({ scored, completion }) => scored.failed.length === 0 && completion.ids.length > 0,
  );
  const texts = known.map(({ completion }) => ({
    promptIds: completion.promptIds,
    completionIds: completion.ids,
  }));
  const values = await completionValues(critic, texts, o.microBatchTokens);
  const logprobs = known.map((s) => s.completion.samplingLogprobs);
  const references = reference ? await logprobsUnder(reference, texts, o) : logprobs;

  const scores = known.map(({ scored, completion }) =>
    completion.finishReason === 'length' ? scored.reward - (o.missingEosPenalty ?? 0) : scored.reward,
  );
  const rewarded = known.map((_, i) => tokenRewards(scores[i], logprobs[i], references[i], o));
  const raw = rewarded.map((r) => r.rewards);
  const rewards = o.whitenRewards ? whiten(raw, false) : raw;
  const estimated = rewards.map((r, i) => gae(r, values[i], o));
  const plain = estimated.map((e) => e.advantages);
  const advantages = o.whitenAdvantages ? whiten(plain) : plain;

  const learned = known.map((sample, i) => ({
    ...sample,
    score: scores[i],
    values: values[i],
    advantages: advantages[i],
    returns: estimated[i].returns,
  }));
  const learnedOf = new Map<Sample, PpoSample>(known.map((sample, i) => [sample, learned[i]]));
  const samples = sampled.map((sample) => learnedOf.get(sample) ?? sample);
  const kl = mean(rewarded.map((r) => r.kl));
  const nonScore = 0 - o.klCoef * kl;
  return {
    samples,
    learned,
    nextProblem: firstProblem + problems,
    tokens: samples.reduce((sum, s) => sum + s.completion.ids.length, 0),
    promptTokens,
    operations: [critic.trunk, ...(reference ? [reference] : [])].reduce(
      (sum, { config }) => sum + readingOperations(config, texts.map(tokensOf)),
      0,
    ),
    metrics: {
      ...rewardMetrics(samples),
      ...lengthMetrics(samples),
      ...kindMetrics(job.task, samples),
      ...(reference && { 'objective/kl': kl }),
      'objective/entropy': mean(logprobs.map((list) => -list.reduce((sum, x) => sum + x, 0))),
      'objective/non_score_reward': nonScore,
      'objective/rlhf_reward': nonScore + mean(scores),
      'objective/scores': mean(scores),
      'val/explained_variance': explainedVariance(learned),
      'val/num_eos_tokens': countEnds(samples, policy.tokenizer.eosTokenIds),
    },
  };
}

/** What a line of completions.jsonl says beyond the sample: the value before its first token, the mean of its advantages. */
export function told(sample: Sample | PpoSample): Record<string, unknown> {
  if (!('values' in sample)) return {};
  const { score, values, advantages } = sample;
  return { score, value: values[0], advantage: mean(Array.from(advantages)) };
}

/** Log-probabilities of the completions' tokens at the sampling temperature. */
function logprobsUnder(
  reference: Llama,
  texts: readonly Continued[],
  { microBatchTokens, temperature }: PpoOptions,
): Promise<Float64Array[]> {
  return tokenNumbers(
    reference,
    texts,
    microBatchTokens,
    (c, pass) => completionLogprobs(c, reference, pass, temperature).logprob,
  );
}

function rewardMetrics(samples: readonly Sample[]): Record<string, number> {
  const known = samples.filter((s) => s.scored.failed.length === 0);
  const sum = moments(known.map((s) => s.scored.reward));
  const rewards = samples.map((s) => knownRewards(s.scored));
  const names = new Set(rewards.flatMap((known) => Object.keys(known)));
  const metrics: Record<string, number> = {};
  for (const name of names) {
    const { mean, std } = moments(rewards.map((known) => known[name] ?? Number.NaN));
    metrics[`rewards/${name}/mean`] = mean;
    metrics[`rewards/${name}/std`] = std;
  }
  return { ...metrics, reward: sum.mean, reward_std: sum.std };
}

/** The share of the returns' variance that the values explain: 1 is all, 0 what a constant explains. */
function explainedVariance(samples: readonly PpoSample[]): number {
  const returns = samples.flatMap((s) => [...s.returns]);
  const errors = samples.flatMap((s) => Array.from(s.returns, (r, t) => r - s.values[t]));
  return 1 - moments(errors).std ** 2 / moments(returns).std ** 2;
}

function countEnds(samples: readonly Sample[], eos: readonly number[]): number {
  const ends = new Set(eos);
  return samples.reduce((sum, s) => sum + s.completion.ids.filter((id) => ends.has(id)).length, 0);
}
