// Evaluation on held-out problems: greedy pass@1, sampled accuracy, pass@k and maj@k, each with a 95% interval.
import { refuse } from '../errors.js';
import type { Scorer } from '../reward/score.js';
import {
  bestAtKOver,
  type Estimate,
  groupBy,
  majorityAtKOver,
  mean,
  passAtKOver,
  shareEstimate,
} from '../reward/statistics.js';
import { createEngine, type EngineOptions } from '../rollout/engine.js';
import { type GenerateProgress, generateAll, SEQUENCES_AT_ONCE } from '../rollout/generate.js';
import { type Completion, type SamplingOptions, samplingOf } from '../rollout/request.js';
import {
  limitThinking,
  type ThinkingControl,
  type ThinkingLimits,
  type ThinkingOptions,
  thinkingLimits,
} from '../rollout/thinking.js';
import type { Split, Task } from '../task/task.js';
import { encodePrompt, type PromptTemplate, scoredText } from '../text/template.js';
import type { Policy } from './policy.js';
import { type Sample, toScore } from './scoring.js';

export interface EvaluateOptions extends SamplingOptions {
  readonly task: Task;
  readonly template: PromptTemplate;
  readonly scorer: Scorer;
  /** Default heldout. */
  readonly split?: Split;
  /** How many different problems. */
  readonly problems: number;
  /** Samples of each problem. */
  readonly samples: number;
  readonly maxTokens: number;
  /** How long samples think; what they thought is counted where it is there. */
  readonly thinking?: ThinkingOptions;
  /** Rates completions for best-of-n; of each problem's samples the best rated counts. */
  readonly rate?: (one: Sample) => number;
  /** Of the problems and of the samples. */
  readonly seed: number;
  readonly engine?: EngineOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: GenerateProgress) => void;
}

/** Means over the completions. */
export interface Thought {
  /** Tokens of the thought. */
  readonly tokens: number;
  /** Share that the budget has ended. */
  readonly cut: number;
  /** Stops that were replaced, a completion. */
  readonly waits: number;
}

export interface Evaluation {
  readonly problems: number;
  readonly samples: number;
  /** Accuracy of one sample: pass@1. */
  readonly pass1: Estimate;
  /** By k, for powers of two up to the samples. */
  readonly passAtK: ReadonlyMap<number, Estimate>;
  readonly majAtK: ReadonlyMap<number, Estimate>;
  /** Of the best rated of k samples; null without a rating. */
  readonly bestAtK: ReadonlyMap<number, Estimate> | null;
  /** What was thought; null where it was not asked for. */
  readonly thought: Thought | null;
  /** pass@1 of each kind of problem, where the task tells kinds apart. */
  readonly byKind: ReadonlyMap<string, Estimate>;
  readonly meanReward: number;
  readonly meanLength: number;
  /** Share cut by the length limit. */
  readonly truncated: number;
  /** Completions whose reward failed; they count as wrong. */
  readonly failed: number;
  readonly tokens: number;
  /** Mean of each of the task's measures over the completions. */
  readonly measures: Readonly<Record<string, number>>;
  readonly completions: readonly (readonly Sample[])[];
}

/** Beyond it a single number gets no more exact, and drawing different problems takes long. */
export const MAX_PROBLEMS = 100_000;

/** A problem and its index in its split. */
export interface IndexedProblem {
  readonly index: number;
  readonly problem: unknown;
}

/**
 * Different problems of a split, in the order of their index.
 * @throws RetortError bad-input where the split has fewer
 */
export function distinctProblems(task: Task, split: Split, count: number, seed: number): unknown[] {
  return indexedProblems(task, split, count, seed).map(({ problem }) => problem);
}

/**
 * Different problems of a split with their indices, from an index on.
 * @throws RetortError bad-input where the split has fewer
 */
export function indexedProblems(
  task: Task,
  split: Split,
  count: number,
  seed: number,
  first = 0,
): IndexedProblem[] {
  const size = task.size?.[split];
  const seen = new Set<string>();
  const problems: IndexedProblem[] = [];
  for (let index = first, misses = 0; problems.length < count; index++) {
    // A generated split repeats itself sooner or later. Were one problem left, so many misses in a row would come once
    // in e^10 cases.
    if ((size !== undefined && index >= size) || misses > 1000 + 10 * problems.length) {
      const from = first > 0 ? ` from index ${first} on` : '';
      const remedy = `the split has only about ${problems.length}${from}: ask for fewer`;
      throw refuse('bad-input', `different ${split} problems of task ${task.name}`, count, remedy);
    }
    const problem = task.problem(split, index, seed);
    const key = JSON.stringify(problem);
    misses = seen.has(key) ? misses + 1 : 0;
    if (misses > 0) continue;
    seen.add(key);
    problems.push({ index, problem });
  }
  return problems;
}

/** Powers of two up to n, and n. */
function ks(n: number): number[] {
  const powers = Array.from({ length: Math.floor(Math.log2(n)) + 1 }, (_, i) => 2 ** i);
  return [...new Set([...powers, n])];
}

/** Samples and scores. @throws RetortError bad-input, interrupted */
export async function evaluate(policy: Policy, o: EvaluateOptions): Promise<Evaluation> {
  const { task, template, scorer, samples, split = 'heldout', seed, signal, onProgress } = o;
  const problems = distinctProblems(task, split, o.problems, seed);
  const prompts = problems.map((p) => task.prompt(p));
  const limits = o.thinking && limitsFor(policy, template, o.thinking);
  const controls: ThinkingControl[] = [];
  const control =
    limits &&
    (() => {
      controls.push(limitThinking(limits, policy.tokenizer));
      return controls[controls.length - 1];
    });
  const requests = prompts.map((prompt, problem) => ({
    ...samplingOf(o),
    promptIds: encodePrompt(template, policy.tokenizer, prompt),
    n: samples,
    maxTokens: o.maxTokens,
    control,
    seed,
    problem,
  }));
  const engine = createEngine(policy, { maxSequences: SEQUENCES_AT_ONCE, ...o.engine });
  let results: Completion[][];
  try {
    results = await generateAll(engine, requests, { signal, onProgress });
  } finally {
    engine.close();
  }
  const flat = results.flat();
  const items = flat.map((c) => toScore(template, problems[c.request], c));
  const scores = await scorer.scoreAll(items);
  const completions = results.map((row, r) =>
    row.map((completion, s) => ({
      problem: problems[r],
      prompt: prompts[r],
      completion,
      scored: scores[r * samples + s],
    })),
  );
  const votes = completions.map((row) =>
    row.map(({ problem, completion, scored }) => ({
      key: task.answerKey(problem, scoredText(template, completion.text)),
      correct: scored.correct,
    })),
  );
  const { rate } = o;
  const rated = rate
    ? completions.map((row) => row.map((one) => ({ rating: rate(one), correct: one.scored.correct })))
    : null;
  const shares = (rows: typeof votes) =>
    shareEstimate(
      rows.map((row) => row.filter((v) => v.correct).length / samples),
      samples,
    );
  const counts = votes.map((row) => ({ samples, right: row.filter((v) => v.correct).length }));
  return {
    problems: problems.length,
    samples,
    pass1: shares(votes),
    byKind: new Map(
      [...groupBy([...(task.kind ? votes.keys() : [])], (i) => task.kind?.(problems[i]) as string)]
        .sort()
        .map(([kind, rows]) => [kind, shares(rows.map((i) => votes[i]))]),
    ),
    passAtK: new Map(ks(samples).map((k) => [k, passAtKOver(counts, k)])),
    majAtK: new Map(ks(samples).map((k) => [k, majorityAtKOver(votes, k)])),
    bestAtK: rated && new Map(ks(samples).map((k) => [k, bestAtKOver(rated, k)])),
    thought: limits ? thoughtOf(controls) : null,
    meanReward: mean(scores.map((s) => s.reward)),
    meanLength: mean(flat.map((c) => c.ids.length)),
    truncated: mean(flat.map((c) => (c.finishReason === 'length' ? 1 : 0))),
    failed: scores.filter((s) => s.failed.length > 0).length,
    tokens: flat.reduce((sum, c) => sum + c.ids.length, 0),
    measures: meansOf(items.map(({ problem, completion }) => task.measures?.(problem, completion) ?? {})),
    completions,
  };
}

/** Limits on the thoughts of a model's completions. @throws RetortError bad-input where its vocabulary cannot hold them */
export function limitsFor(
  { llama, tokenizer }: Policy,
  { opened }: PromptTemplate,
  thinking: ThinkingOptions,
): ThinkingLimits {
  const ends = [...tokenizer.eosTokenIds, ...llama.config.eosTokenIds];
  return thinkingLimits(thinking, tokenizer, opened.trimStart().startsWith('<think>'), ends);
}

function thoughtOf(controls: readonly ThinkingControl[]): Thought {
  return {
    tokens: mean(controls.map(({ tokens }) => tokens)),
    cut: mean(controls.map(({ cut }) => (cut ? 1 : 0))),
    waits: mean(controls.map(({ waits }) => waits)),
  };
}

/** The model's own belief in a completion: the mean log-probability of its tokens. */
export function meanLogprob({ completion }: Sample): number {
  return mean(completion.logprobs);
}

function meansOf(rows: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const names = new Set(rows.flatMap((row) => Object.keys(row)));
  // Of a mix each measure is that of the tasks that have it.
  const of = (name: string) => rows.flatMap((row) => (name in row ? [row[name]] : []));
  return Object.fromEntries([...names].map((name) => [name, mean(of(name))]));
}
