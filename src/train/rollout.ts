// The part of a step that every loop with rollouts begins with: sample problems, complete them, score the completions.
import type { LlamaConfig } from '../model/config.js';
import { completionOperations } from '../model/operations.js';
import type { Scored, ScoreItem, Scorer } from '../reward/score.js';
import { groupBy, mean } from '../reward/statistics.js';
import { createEngine, type Engine } from '../rollout/engine.js';
import { type GenerateProgress, generateAll } from '../rollout/generate.js';
import { samplingOf } from '../rollout/request.js';
import type { Task } from '../task/task.js';
import { encodePrompt, type PromptTemplate } from '../text/template.js';
import type { Policy } from './policy.js';
import type { RolloutOptions } from './rollout-options.js';
import { type Sample, toScore } from './scoring.js';

/** What every part of a run works on. */
export interface Job<O extends RolloutOptions = RolloutOptions> {
  readonly policy: Policy;
  readonly task: Task;
  readonly template: PromptTemplate;
  readonly scorer: Scorer;
  readonly o: O;
  /** Ends evaluations at once; a step is finished first. */
  readonly signal?: AbortSignal;
  readonly onProgress: (stage: string, progress: GenerateProgress) => void;
}

/** Scores the completions of a round of a step. */
export type ScoreRound = (round: number, items: readonly ScoreItem[]) => Promise<Scored[]>;

/** Runs `work` with an engine for the rollouts of a step. */
export async function withEngine<T>({ policy, o }: Job, work: (engine: Engine) => Promise<T>): Promise<T> {
  const engine = createEngine(policy, { maxSequences: Math.min(o.maxSequences, o.batchSize) });
  try {
    return await work(engine);
  } finally {
    engine.close();
  }
}

/** Training problem `index`; a data set begins again at its end. */
export function trainProblem(task: Task, index: number, seed: number): unknown {
  return task.problem('train', task.size ? index % task.size.train : index, seed);
}

/** Completes the training problems of these indices, numGenerations times each, and scores them; problem after problem. */
export async function sampleProblems(
  engine: Engine,
  job: Job,
  step: number,
  indices: readonly number[],
  score: (items: readonly ScoreItem[]) => Promise<Scored[]>,
): Promise<{ samples: Sample[]; promptTokens: number }> {
  const { policy, task, template, o, onProgress } = job;
  const problems = indices.map((i) => trainProblem(task, i, o.seed));
  const prompts = problems.map((p) => task.prompt(p));
  const requests = prompts.map((prompt, i) => ({
    promptIds: encodePrompt(template, policy.tokenizer, prompt),
    n: o.numGenerations,
    maxTokens: o.maxCompletionLength,
    ...samplingOf(o),
    stop: o.stop,
    seed: o.seed,
    problem: indices[i],
  }));
  const told = (p: GenerateProgress) => onProgress(`step ${step}: rollouts`, p);
  const completions = (await generateAll(engine, requests, { onProgress: told })).flat();
  const scores = await score(completions.map((c) => toScore(template, problems[c.request], c)));
  const samples = completions.map((completion, i) => ({
    problem: problems[completion.request],
    prompt: prompts[completion.request],
    completion,
    scored: scores[i],
  }));
  return { samples, promptTokens: requests.reduce((sum, r) => sum + r.promptIds.length, 0) };
}

export function lengthMetrics(samples: readonly Sample[]): Record<string, number> {
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
export function kindMetrics(task: Task, samples: readonly Sample[]): Record<string, number> {
  if (!task.kind) return {};
  const byKind = groupBy(samples, ({ problem }) => task.kind?.(problem) as string);
  return Object.fromEntries(
    [...byKind]
      .sort()
      .map(([kind, of]) => [`accuracy/${kind}`, mean(of.map(({ scored }) => (scored.correct ? 1 : 0)))]),
  );
}

/** Operations of generating samples that lie group by group, each group's prompt once. */
export function generatingOperations(
  config: LlamaConfig,
  samples: readonly Sample[],
  numGenerations: number,
): number {
  let sum = 0;
  for (let at = 0; at < samples.length; at += numGenerations) {
    const group = samples.slice(at, at + numGenerations).map((s) => s.completion);
    const lengths = group.map((c) => c.ids.length);
    sum += completionOperations(config, group[0].promptIds.length, lengths);
  }
  return sum;
}

/** A standard deviation of one value, say, is not a number; such a metric is left out. */
export function finiteOnly(metrics: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(metrics).filter(([, value]) => Number.isFinite(value)));
}

/** A line of completions.jsonl; `more` is what the loop made of the sample. */
export function logLine(
  step: number,
  { problem, prompt, completion, scored }: Sample,
  more: Readonly<Record<string, unknown>>,
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
    ...more,
  };
}
