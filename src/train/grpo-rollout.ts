// The rollout half of a GRPO step: sample a group for each problem, score it, centre its rewards.
import { computeAdvantages } from '../objective/advantages.js';
import type { Scored, ScoreItem, Scorer } from '../reward/score.js';
import { groupBy, mean } from '../reward/statistics.js';
import { createEngine, type Engine } from '../rollout/engine.js';
import { type GenerateProgress, generateAll } from '../rollout/generate.js';
import type { Completion } from '../rollout/request.js';
import type { Task } from '../task/task.js';
import { encodePrompt, type PromptTemplate, scoredText } from '../text/template.js';
import { chooseProblems, kindOf, type SuccessRates, updateRates } from './curriculum.js';
import type { GrpoOptions } from './grpo-options.js';
import type { Policy } from './policy.js';

/** One completion of a step, as it was trained on. */
export interface GrpoSample {
  readonly problem: unknown;
  readonly prompt: string;
  readonly completion: Completion;
  readonly scored: Scored;
  readonly advantage: number;
}

export interface Batch {
  readonly samples: readonly GrpoSample[];
  /** What the loss is made of: groups whose rewards differ, unless all are kept. */
  readonly groups: readonly (readonly GrpoSample[])[];
  readonly nextProblem: number;
  /** Success by kind of problem, this step's included. */
  readonly rates: SuccessRates;
  readonly tokens: number;
  readonly promptTokens: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/** What every part of a run works on. */
export interface Job {
  readonly policy: Policy;
  readonly task: Task;
  readonly template: PromptTemplate;
  readonly scorer: Scorer;
  readonly o: GrpoOptions;
  /** Ends evaluations at once; a step is finished first. */
  readonly signal?: AbortSignal;
  readonly onProgress: (stage: string, progress: GenerateProgress) => void;
}

/** Scores the completions of a round of a step. */
export type ScoreRound = (round: number, items: readonly ScoreItem[]) => Promise<Scored[]>;

/** Samples a group for each problem, scores, and centres the rewards within their group. */
export async function sampleBatch(
  job: Job,
  step: number,
  from: { readonly nextProblem: number; readonly rates: SuccessRates },
  score: ScoreRound,
): Promise<Batch> {
  const engine = createEngine(job.policy, { maxSequences: Math.min(job.o.maxSequences, job.o.batchSize) });
  try {
    return await sampleWith(engine, job, step, from, score);
  } finally {
    engine.close();
  }
}

async function sampleWith(
  engine: Engine,
  job: Job,
  step: number,
  from: { readonly nextProblem: number; readonly rates: SuccessRates },
  score: ScoreRound,
): Promise<Batch> {
  const { policy, task, template, o } = job;
  const wanted = o.batchSize / o.numGenerations;
  const rounds = o.dynamicSampling === 'resample' ? 1 + o.maxResamples : 1;
  const all: GrpoSample[] = [];
  const groups: GrpoSample[][] = [];
  let { nextProblem } = from;
  const problemAt = (i: number) => task.problem('train', task.size ? i % task.size.train : i, o.seed);
  let promptTokens = 0;
  let metrics: Readonly<Record<string, number>> = {};
  for (let round = 0; round < rounds && groups.length < wanted; round++) {
    const count = wanted - groups.length;
    const { indices, next } =
      o.curriculum === 'success'
        ? chooseProblems(task, from.rates, o.seed, nextProblem, count, problemAt)
        : inOrder(nextProblem, count);
    nextProblem = next;
    const problems = indices.map(problemAt);
    const prompts = problems.map((p) => task.prompt(p));
    const requests = prompts.map((prompt, i) => ({
      promptIds: encodePrompt(template, policy.tokenizer, prompt),
      n: o.numGenerations,
      maxTokens: o.maxCompletionLength,
      temperature: o.temperature,
      topK: o.topK,
      topP: o.topP,
      minP: o.minP,
      stop: o.stop,
      seed: o.seed,
      problem: indices[i],
    }));
    promptTokens += requests.reduce((sum, r) => sum + r.promptIds.length, 0);
    const onProgress = (p: GenerateProgress) => job.onProgress(`step ${step}: rollouts`, p);
    const completions = (await generateAll(engine, requests, { onProgress })).flat();
    const items = completions.map((c) => ({
      problem: problems[c.request],
      completion: scoredText(template, c.text),
      tokenCount: c.ids.length,
    }));
    const scores = await score(round, items);
    // A failed reward says nothing about the policy: the sample takes no part in its group.
    const known = scores.map((s): Record<string, number> => (s.failed.length > 0 ? {} : { sum: s.reward }));
    const { numGenerations, scaleRewards, advantageEstimator } = o;
    const {
      advantages,
      flatGroups,
      metrics: sumMetrics,
    } = computeAdvantages(known, { numGenerations, scaleRewards, advantageEstimator });
    const byName = computeAdvantages(
      scores.map((s) => s.rewards),
      { numGenerations, scaleRewards },
    ).metrics;
    const samples = completions.map((completion, i) => ({
      problem: problems[completion.request],
      prompt: prompts[completion.request],
      completion,
      scored: scores[i],
      advantage: advantages[i],
    }));
    all.push(...samples);
    flatGroups.forEach((flat, g) => {
      if (flat && o.dynamicSampling !== 'none') return;
      groups.push(samples.slice(g * numGenerations, (g + 1) * numGenerations));
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

function lengthMetrics(samples: readonly GrpoSample[]): Record<string, number> {
  const lengths = samples.map((s) => s.completion.ids.length);
  const ended = samples
    .filter((s) => s.completion.finishReason === 'stop')
    .map((s) => s.completion.ids.length);
  return {
    'completions/mean_length': mean(lengths),
    'completions/min_length': Math.min(...lengths),
    'completions/max_length': Math.max(...lengths),
    'completions/mean_terminated_length': ended.length > 0 ? mean(ended) : 0,
    'completions/clipped_ratio': 1 - ended.length / lengths.length,
    accuracy: mean(samples.map((s) => (s.scored.correct ? 1 : 0))),
    reward_failures: samples.filter((s) => s.scored.failed.length > 0).length,
  };
}

/** Of a task with several kinds of problems, each kind's share of right completions. */
function kindMetrics(task: Task, samples: readonly GrpoSample[]): Record<string, number> {
  if (!task.kind) return {};
  const byKind = groupBy(samples, ({ problem }) => task.kind?.(problem) as string);
  return Object.fromEntries(
    [...byKind]
      .sort()
      .map(([kind, of]) => [`accuracy/${kind}`, mean(of.map(({ scored }) => (scored.correct ? 1 : 0)))]),
  );
}

/** A line of completions.jsonl. */
export function logLine(
  step: number,
  { problem, prompt, completion, scored, advantage }: GrpoSample,
): unknown {
  const { text, ids, finishReason } = completion;
  const { rewards, reward, correct, failed } = scored;
  return {
    step,
    problem,
    prompt,
    completion: text,
    tokens: ids.length,
    finishReason,
    rewards,
    reward,
    correct,
    failed,
    advantage,
  };
}
