// The rollout half of a GRPO step: sample a group for each problem, score it, centre its rewards.
import { computeAdvantages } from '../objective/advantages.js';
import type { Engine } from '../rollout/engine.js';
import { chooseProblems, kindOf, type SuccessRates, updateRates } from './curriculum.js';
import { type GrpoOptions, roundsOf } from './grpo-options.js';
import {
  type Job,
  kindMetrics,
  lengthMetrics,
  type ScoreRound,
  sampleProblems,
  trainProblem,
  withEngine,
} from './rollout.js';
import { knownRewards, type Sample } from './scoring.js';

/** One completion of a step, as it was trained on. */
export interface GrpoSample extends Sample {
  readonly advantage: number;
}

export interface Batch {
  readonly samples: readonly GrpoSample[];
  /**
   * What the loss is made of: groups whose rewards differ, unless all are kept. A completion whose reward failed says
   * nothing about the policy and is in none.
   */
  readonly groups: readonly (readonly GrpoSample[])[];
  readonly nextProblem: number;
  /** Success by kind of problem, this step's included. */
  readonly rates: SuccessRates;
  readonly tokens: number;
  readonly promptTokens: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/** Samples a group for each problem, scores, and centres the rewards within their group. */
export async function sampleBatch(
  job: Job<GrpoOptions>,
  step: number,
  from: { readonly nextProblem: number; readonly rates: SuccessRates },
  score: ScoreRound,
): Promise<Batch> {
  return withEngine(job, (engine) => sampleWith(engine, job, step, from, score));
}

async function sampleWith(
  engine: Engine,
  job: Job<GrpoOptions>,
  step: number,
  from: { readonly nextProblem: number; readonly rates: SuccessRates },
  score: ScoreRound,
): Promise<Batch> {
  const { o, task } = job;
  const wanted = o.batchSize / o.numGenerations;
  const rounds = roundsOf(o);
  const all: GrpoSample[] = [];
  const groups: GrpoSample[][] = [];
  let { nextProblem } = from;
  let promptTokens = 0;
  let metrics: Readonly<Record<string, number>> = {};
  for (let round = 0; round < rounds && groups.length < wanted; round++) {
    const count = wanted - groups.length;
    const { indices, next } =
      o.curriculum === 'success'
        ? chooseProblems(task, from.rates, o.seed, nextProblem, count, (i) => trainProblem(task, i, o.seed))
        : inOrder(nextProblem, count);
    nextProblem = next;
    const sampled = await sampleProblems(engine, job, step, indices, (items) => score(round, items));
    promptTokens += sampled.promptTokens;
    const scores = sampled.samples.map((s) => s.scored);
    // A failed reward says nothing about the policy: the sample takes no part in its group.
    const known = scores.map((s): Record<string, number> => (s.failed.length > 0 ? {} : { sum: s.reward }));
    const { numGenerations, scaleRewards, advantageEstimator } = o;
    const {
      advantages,
      flatGroups,
      metrics: sumMetrics,
    } = computeAdvantages(known, { numGenerations, scaleRewards, advantageEstimator });
    const byName = computeAdvantages(scores.map(knownRewards), { numGenerations, scaleRewards }).metrics;
    const samples = sampled.samples.map((sample, i) => ({ ...sample, advantage: advantages[i] }));
    all.push(...samples);
    flatGroups.forEach((flat, g) => {
      if (flat && o.dynamicSampling !== 'none') return;
      const group = samples.slice(g * numGenerations, (g + 1) * numGenerations);
      const learned = group.filter(({ scored }) => scored.failed.length === 0);
      if (learned.length > 0) groups.push(learned);
    });
    // The first round is an unbiased picture of the policy; later ones only fill the batch.
    if (round === 0) {
      const flat = flatGroups.filter(Boolean).length / flatGroups.length;
      metrics = {
        ...rewardMetrics(byName, sumMetrics),
        frac_reward_zero_std: flat,
        ...lengthMetrics(samples),
        ...kindMetrics(task, samples),
      };
    }
  }
  const tokens = all.reduce((sum, s) => sum + s.completion.ids.length, 0);
  const results = all
    .filter(({ scored }) => scored.failed.length === 0)
    .map(({ problem, scored }) => ({ kind: kindOf(task, problem), correct: scored.correct }));
  const rates = o.curriculum === 'success' ? updateRates(from.rates, results) : from.rates;
  return { samples: all, groups, nextProblem, rates, tokens, promptTokens, metrics };
}

function inOrder(from: number, count: number): { indices: number[]; next: number } {
  return { indices: Array.from({ length: count }, (_, i) => from + i), next: from + count };
}

function rewardMetrics(
  byName: Readonly<Record<string, number>>,
  sum: Readonly<Record<string, number>>,
): Record<string, number> {
  const named = Object.entries(byName).filter(([name]) => name.startsWith('rewards/'));
  return { ...Object.fromEntries(named), reward: sum.reward, reward_std: sum.reward_std };
}
