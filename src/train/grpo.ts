// GRPO: reinforcement learning from rewards that can be checked. DeepSeekMath (arXiv 2402.03300), algorithm 1.
//
// Where this differs from the paper: one outer iteration; by default no KL term (beta 0), token losses averaged over
// the whole minibatch (DAPO), and groups whose rewards are all equal left out of the loss. The paper's loss is
// lossType 'grpo' with beta 0.04 and dynamicSampling 'none'. Old log-probabilities are the sampler's own: sampler and
// trainer run the same kernels, and their difference is logged in each step.
import { z } from 'zod';
import type { NamedTensor } from '../checkpoint/safetensors.js';
import { createDevice, type Device } from '../compute/device/device.js';
import type { MemoryReport } from '../compute/device/memory.js';
import { RetortError, refuse } from '../errors.js';
import { createLlama, followWeights, freeLlama, type Llama, readWeights, weightsOf } from '../model/llama.js';
import { computeAdvantages } from '../objective/advantages.js';
import type { LossType } from '../objective/loss-weights.js';
import type { PolicyLossSums } from '../objective/policy-loss.js';
import { loadReward } from '../reward/load.js';
import type { Reward } from '../reward/reward.js';
import { openScorer, type RewardFailure, type Scored, type Scorer } from '../reward/score.js';
import { mean } from '../reward/statistics.js';
import { createEngine, type Engine } from '../rollout/engine.js';
import { type GenerateProgress, generateAll } from '../rollout/generate.js';
import type { Completion } from '../rollout/request.js';
import { loadTask } from '../task/load.js';
import { taskNames } from '../task/registry.js';
import type { Task } from '../task/task.js';
import { encodePrompt, getTemplate, type PromptTemplate, scoredText } from '../text/template.js';
import { type Evaluation, evaluate } from './evaluate.js';
import { evaluationFields, grpoFields, optimizerFields } from './grpo-options.js';
import { parseOptions, runFields, saveModel } from './options.js';
import { loadPolicy, type Policy } from './policy.js';
import { accumulatePolicyGradient, type ScoredSample } from './policy-gradient.js';
import { openActiveRun } from './recorder.js';
import { learningRateAt } from './schedule.js';

/** The options of `retort grpo`; plain JSON, as they stand in config.json. */
export const grpoOptions = z.strictObject({
  model: z.string().describe('folder of the model to start from'),
  task: z.string().describe('name of a task, or path of a module that exports one'),
  taskOptions: z.record(z.string(), z.unknown()).default({}).describe('options of the task'),
  template: z.string().optional().describe("prompt template; default: the task's"),
  rewards: z.array(z.string()).default([]).describe('modules with further rewards'),
  ...grpoFields,
  ...optimizerFields,
  learningRate: optimizerFields.learningRate.default(1e-4),
  ...evaluationFields,
  evalEnds: z.boolean().default(true).describe('measure held-out accuracy before and after'),
  ...runFields,
});
export type GrpoOptions = z.output<typeof grpoOptions>;

/** What the library takes: the options, and what cannot stand in a file. */
export type GrpoInput = Omit<z.input<typeof grpoOptions>, 'task' | 'rewards'> & {
  readonly task: string | Task;
  readonly rewards?: readonly (string | Reward)[];
  /** Go on with the run in this folder; the other options are those it was begun with. */
  readonly resume?: string;
  /** Default: one of its own, closed at the end. */
  readonly device?: Device;
  readonly signal?: AbortSignal;
  readonly onProgress?: (stage: string, progress: GenerateProgress) => void;
  readonly onEvaluation?: (
    when: 'before' | 'after' | number,
    name: 'greedy' | 'sampled',
    e: Evaluation,
  ) => void;
  readonly onRewardFailure?: (failure: RewardFailure) => void;
  readonly warn?: (message: string) => void;
};

/** One completion of a step, as it was trained on. */
export interface GrpoSample {
  readonly problem: unknown;
  readonly prompt: string;
  readonly completion: Completion;
  readonly scored: Scored;
  readonly advantage: number;
}

export interface GrpoStep {
  /** From 1. */
  readonly step: number;
  readonly steps: number;
  /** TRL's names. */
  readonly metrics: Readonly<Record<string, number>>;
  readonly samples: readonly GrpoSample[];
}

/** Held-out accuracies. */
export interface Accuracies {
  readonly greedy: number;
  readonly sampled: number;
  readonly greedyCi95: readonly [number, number];
  readonly sampledCi95: readonly [number, number];
}

export interface GrpoSummary {
  readonly steps: number;
  readonly before: Accuracies | null;
  readonly after: Accuracies | null;
  /** Generated in training, and trained on. */
  readonly tokens: number;
  readonly trainedTokens: number;
  readonly seconds: number;
  readonly run: string | null;
  readonly saved: string | null;
  readonly memory: MemoryReport;
  readonly rewardFailures: Readonly<Record<string, number>>;
}

/** What a step needs of the one before, beside weights and optimizer. */
interface State {
  readonly nextProblem: number;
  readonly tokens: number;
  readonly trainedTokens: number;
  readonly promptTokens: number;
  readonly seconds: number;
  readonly before: Accuracies | null;
  readonly rewardFailures: Readonly<Record<string, number>>;
}

const START: State = {
  nextProblem: 0,
  tokens: 0,
  trainedTokens: 0,
  promptTokens: 0,
  seconds: 0,
  before: null,
  rewardFailures: {},
};

/**
 * Trains a model by GRPO, a step at each turn of the loop.
 * @throws RetortError for bad input before anything expensive starts; interrupted where the signal is aborted
 * @example
 * for await (const step of grpo({ model: 'models/countdown-base', task: 'countdown', steps: 10 })) {
 *   console.log(step.step, step.metrics.reward);
 * }
 */
export async function* grpo(input: GrpoInput): AsyncGenerator<GrpoStep, GrpoSummary> {
  const { o, given } = readInput(input);
  const warn = input.warn ?? ((message: string) => process.emitWarning(message));
  const task = typeof input.task === 'string' ? await loadTask(input.task, o.taskOptions) : input.task;
  const rewards = await Promise.all(
    (input.rewards ?? []).map((r) => (typeof r === 'string' ? loadReward(r) : r)),
  );
  const device = input.device ?? createDevice({ threads: o.threads });
  const scorer = await openScorer({
    task,
    rewards,
    rewardWeights: o.rewardWeights,
    timeLimitSeconds: o.rewardTimeout,
    onFailure: input.onRewardFailure,
  });
  try {
    return yield* run(o, given, { ...input, warn }, task, scorer, device, rewards.length > 0);
  } finally {
    await scorer.close();
    if (!input.device) await device.close();
  }
}

/** Checks what can be checked without a model. */
function readInput(input: GrpoInput): { o: GrpoOptions; given: Readonly<Record<string, unknown>> } {
  const { resume, device, signal, onProgress, onEvaluation, onRewardFailure, warn, ...rest } = input;
  const given = {
    ...rest,
    task: typeof input.task === 'string' ? input.task : input.task.name,
    rewards: (input.rewards ?? []).map((r) => (typeof r === 'string' ? r : r.name)),
  };
  const o = parseOptions('grpo', grpoOptions, given);
  if (o.batchSize % o.numGenerations !== 0) {
    const near = Math.max(1, Math.round(o.batchSize / o.numGenerations)) * o.numGenerations;
    throw refuse(
      'bad-input',
      `batchSize with numGenerations ${o.numGenerations}`,
      o.batchSize,
      `it must be a multiple: ${near}, say`,
    );
  }
  const groups = o.batchSize / o.numGenerations;
  if (groups % o.minibatches !== 0) {
    throw refuse(
      'bad-input',
      `minibatches of ${groups} groups`,
      o.minibatches,
      'it must divide batchSize / numGenerations',
    );
  }
  return { o, given: o };
}

async function* run(
  o: GrpoOptions,
  given: Readonly<Record<string, unknown>>,
  input: GrpoInput & { warn: (message: string) => void },
  task: Task,
  scorer: Scorer,
  device: Device,
  moreRewards: boolean,
): AsyncGenerator<GrpoStep, GrpoSummary> {
  const save = saveModel(o.save, input.resume !== undefined);
  let reference: Llama | null = null;
  const active = openActiveRun<State>({
    device,
    command: 'grpo',
    options: given,
    out: o.out ?? null,
    resume: input.resume ?? null,
    seed: o.seed,
    makePolicy: () => {
      const policy = loadPolicy(o.model, device, { trainable: true });
      checkFit(policy, task, templateOf(o, task, policy), o);
      return policy;
    },
    optimizer: { ...o, eps: o.adamEpsilon },
    initialState: START,
    groups: (): Record<string, Iterable<NamedTensor>> =>
      reference ? { reference: weightsOf(reference) } : {},
    saveEvery: o.saveEvery,
    keepLast: o.keepLast,
    signal: input.signal,
    warn: input.warn,
  });
  const { policy, optimizer } = active;
  const template = templateOf(o, task, policy);
  const shipped = taskNames().includes(task.name) && !task.module;
  const deterministic = shipped && !moreRewards;
  try {
    if (o.beta > 0) {
      reference = createLlama(device, policy.llama.config, { trainable: false });
      const saved = active.restored('reference');
      if (saved) readWeights(reference, saved);
      else followWeights(policy.llama, reference);
    }
    let state = active.state;
    const measure = (when: 'before' | 'after') => accuracies(policy, task, template, scorer, o, input, when);
    if (o.evalEnds && !state.before) state = { ...state, before: await measure('before') };

    for (let step = active.startStep + 1; step <= o.steps; step++) {
      const began = performance.now();
      const engine = createEngine(policy, { maxSequences: Math.min(o.maxSequences, o.batchSize) });
      let batch: Batch;
      try {
        batch = await sampleBatch({ engine, policy, task, template, scorer, o, input, step, state, score });
      } finally {
        engine.close();
      }
      const sampled = performance.now();
      const update = await updatePolicy(policy, reference, optimizer, batch, o, step, input.warn);
      if (reference && o.refModelSyncSteps > 0 && step % o.refModelSyncSteps === 0) {
        followWeights(policy.llama, reference, o.refModelMixupAlpha);
      }
      const seconds = (performance.now() - began) / 1000;
      state = {
        ...state,
        nextProblem: batch.nextProblem,
        tokens: state.tokens + batch.tokens,
        trainedTokens: state.trainedTokens + update.trainedTokens,
        promptTokens: state.promptTokens + batch.promptTokens,
        seconds: state.seconds + seconds,
        rewardFailures: countFailures(state.rewardFailures, batch.samples),
      };
      const metrics: Record<string, number> = {
        ...batch.metrics,
        ...update.metrics,
        num_tokens: state.tokens + state.promptTokens,
        step_time: seconds,
        'time/rollout': (sampled - began) / 1000,
        tokens_per_second: (batch.tokens + update.trainedTokens) / seconds,
      };
      if (o.evalEvery > 0 && step % o.evalEvery === 0) {
        const e = await evaluateNow(
          policy,
          task,
          template,
          scorer,
          o,
          input,
          o.evalTemperature,
          `evaluation at step ${step}`,
        );
        input.onEvaluation?.(step, o.evalTemperature === 0 ? 'greedy' : 'sampled', e);
        metrics['eval/pass1'] = e.pass1.value;
        metrics['eval/pass1_low'] = e.pass1.interval[0];
        metrics['eval/pass1_high'] = e.pass1.interval[1];
        metrics['eval/mean_length'] = e.meanLength;
      }
      active.recordMetrics({ step, ...finiteOnly(metrics) });
      active.recordCompletions(batch.samples.slice(0, o.logCompletions).map((s) => logLine(step, s)));
      active.stepDone(step, state);
      yield { step, steps: o.steps, metrics, samples: batch.samples };
    }
    const after = o.evalEnds ? await measure('after') : null;
    const { before, tokens, trainedTokens, seconds, rewardFailures } = state;
    const summary = {
      steps: o.steps,
      before,
      after,
      tokens,
      trainedTokens,
      seconds,
      run: active.dir,
      saved: save(policy),
      memory: device.memory(),
      rewardFailures,
    };
    active.finish(o.steps, state, summary);
    return summary;
  } finally {
    if (reference) freeLlama(reference);
    active.close();
  }

  /** Scores completions; what a user's function said is kept, so that a resumed run hears the same. */
  function score(step: number, round: number, items: Parameters<Scorer['scoreAll']>[0]): Promise<Scored[]> {
    const now = () => scorer.scoreAll(items);
    return deterministic ? now() : active.journalled(`${step}.${round}`, step, now);
  }
}

function templateOf(o: GrpoOptions, task: Task, { tokenizer }: Policy): PromptTemplate {
  return getTemplate(o.template ?? task.template, tokenizer);
}

/** Refuses a model that the task does not fit, before anything is generated. */
function checkFit({ llama, tokenizer }: Policy, task: Task, template: PromptTemplate, o: GrpoOptions): void {
  const context = llama.config.maxPositionEmbeddings;
  for (let i = 0; i < 32; i++) {
    const length = encodePrompt(template, tokenizer, task.prompt(task.problem('train', i, o.seed))).length;
    if (length >= context) {
      throw refuse(
        'bad-input',
        `tokens of prompt ${i} of task ${task.name}`,
        length,
        `the model's context is ${context}`,
      );
    }
  }
  if (o.maxCompletionLength >= context) {
    throw refuse(
      'bad-input',
      'maxCompletionLength',
      o.maxCompletionLength,
      `the model's context is ${context}, prompt included`,
    );
  }
}

interface Batch {
  readonly samples: readonly GrpoSample[];
  /** What the loss is made of: groups whose rewards differ, unless all are kept. */
  readonly groups: readonly (readonly GrpoSample[])[];
  readonly nextProblem: number;
  readonly tokens: number;
  readonly promptTokens: number;
  readonly metrics: Readonly<Record<string, number>>;
}

interface SampleJob {
  readonly engine: Engine;
  readonly policy: Policy;
  readonly task: Task;
  readonly template: PromptTemplate;
  readonly scorer: Scorer;
  readonly o: GrpoOptions;
  readonly input: GrpoInput;
  readonly step: number;
  readonly state: State;
  readonly score: (
    step: number,
    round: number,
    items: Parameters<Scorer['scoreAll']>[0],
  ) => Promise<Scored[]>;
}

/** Samples a group for each problem, scores, and centres the rewards within their group. */
async function sampleBatch(job: SampleJob): Promise<Batch> {
  const { engine, policy, task, template, o, input, step, state } = job;
  const wanted = o.batchSize / o.numGenerations;
  const rounds = o.dynamicSampling === 'resample' ? 1 + o.maxResamples : 1;
  const all: GrpoSample[] = [];
  const groups: GrpoSample[][] = [];
  let nextProblem = state.nextProblem;
  let promptTokens = 0;
  let metrics: Readonly<Record<string, number>> = {};
  for (let round = 0; round < rounds && groups.length < wanted; round++) {
    const count = wanted - groups.length;
    const indices = Array.from({ length: count }, (_, i) => nextProblem + i);
    nextProblem += count;
    const problems = indices.map((i) => task.problem('train', task.size ? i % task.size.train : i, o.seed));
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
    const onProgress = (p: GenerateProgress) => input.onProgress?.(`step ${step}: rollouts`, p);
    const completions = (await generateAll(engine, requests, { onProgress })).flat();
    const items = completions.map((c) => ({
      problem: problems[c.request],
      completion: scoredText(template, c.text),
      tokenCount: c.ids.length,
    }));
    const scores = await job.score(step, round, items);
    // A failed reward says nothing about the policy: the sample takes no part in its group.
    const known = scores.map((s): Record<string, number> => (s.failed.length > 0 ? {} : { sum: s.reward }));
    const { numGenerations, scaleRewards } = o;
    const {
      advantages,
      flatGroups,
      metrics: sumMetrics,
    } = computeAdvantages(known, { numGenerations, scaleRewards });
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
      };
    }
  }
  const tokens = all.reduce((sum, s) => sum + s.completion.ids.length, 0);
  return { samples: all, groups, nextProblem, tokens, promptTokens, metrics };
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

/** The clipped updates over a step's groups. */
async function updatePolicy(
  { llama }: Policy,
  reference: Llama | null,
  optimizer: { step(learningRate: number): number; clearGradients(): void },
  { groups }: Batch,
  o: GrpoOptions,
  step: number,
  warn: (message: string) => void,
): Promise<{ metrics: Record<string, number>; trainedTokens: number }> {
  const learningRate = learningRateAt(step - 1, o.steps, o);
  const parts = Math.min(o.minibatches, groups.length);
  const objective = {
    lossType: o.lossType as LossType,
    temperature: o.temperature,
    epsilon: o.epsilon,
    epsilonHigh: o.epsilonHigh ?? o.epsilon,
    delta: o.delta ?? Number.POSITIVE_INFINITY,
    beta: o.beta,
    maxCompletionLength: o.maxCompletionLength,
    maskTruncatedCompletions: o.maskTruncatedCompletions,
    microBatchTokens: o.microBatchTokens,
  };
  const sums: PolicyLossSums[] = [];
  const norms: number[] = [];
  let skipped = 0;
  let trainedTokens = 0;
  optimizer.clearGradients();
  for (let iteration = 0; iteration < o.numIterations; iteration++) {
    for (let part = 0; part < parts; part++) {
      const start = Math.floor((groups.length * part) / parts);
      const end = Math.floor((groups.length * (part + 1)) / parts);
      const samples = groups.slice(start, end).flat().map(toScoredSample);
      sums.push(await accumulatePolicyGradient(llama, reference, samples, objective));
      trainedTokens += samples.reduce((n, s) => n + s.promptIds.length + s.ids.length, 0);
      try {
        norms.push(optimizer.step(learningRate));
      } catch (error) {
        if (!(error instanceof RetortError && error.code === 'numerics' && o.onNonFinite === 'skip'))
          throw error;
        warn(`step ${step}: ${error.message}; the update was skipped`);
        optimizer.clearGradients();
        skipped++;
      }
    }
  }
  return { metrics: lossMetrics(sums, norms, learningRate, skipped), trainedTokens };
}

function toScoredSample({ completion, advantage }: GrpoSample): ScoredSample {
  return {
    promptIds: completion.promptIds,
    ids: completion.ids,
    oldLogprobs: completion.samplingLogprobs,
    advantage,
    truncated: completion.finishReason === 'length',
  };
}

function lossMetrics(
  sums: readonly PolicyLossSums[],
  norms: readonly number[],
  learningRate: number,
  skipped: number,
): Record<string, number> {
  const total = (key: keyof PolicyLossSums) => sums.reduce((sum, s) => sum + s[key], 0);
  const tokens = Math.max(1, total('tokens'));
  const first = sums[0];
  return {
    loss: sums.length > 0 ? total('loss') / sums.length : 0,
    grad_norm: norms.length > 0 ? mean(norms) : 0,
    learning_rate: learningRate,
    entropy: total('entropy') / tokens,
    kl: total('kl') / tokens,
    'clip_ratio/low_mean': total('clippedLow') / tokens,
    'clip_ratio/high_mean': total('clippedHigh') / tokens,
    'clip_ratio/region_mean': (total('clippedLow') + total('clippedHigh')) / tokens,
    // Over the first update, whose policy is the one that sampled.
    'sampling/sampling_logp_difference/mean': first ? first.logprobDifference / Math.max(1, first.tokens) : 0,
    'sampling/importance_sampling_ratio/mean': first ? first.ratio / Math.max(1, first.tokens) : 1,
    skipped_updates: skipped,
  };
}

type Evaluating = Pick<GrpoInput, 'signal' | 'onProgress' | 'onEvaluation'>;

function evaluateNow(
  policy: Policy,
  task: Task,
  template: PromptTemplate,
  scorer: Scorer,
  o: GrpoOptions,
  { signal, onProgress }: Evaluating,
  temperature: number,
  stage: string,
): Promise<Evaluation> {
  return evaluate(policy, {
    task,
    template,
    scorer,
    problems: o.evalProblems,
    samples: 1,
    temperature,
    maxTokens: o.maxCompletionLength,
    // Not the run's seed: every run of a task is measured on the same problems.
    seed: 0,
    engine: { maxSequences: o.maxSequences },
    signal,
    onProgress: (p) => onProgress?.(stage, p),
  });
}

async function accuracies(
  policy: Policy,
  task: Task,
  template: PromptTemplate,
  scorer: Scorer,
  o: GrpoOptions,
  input: Evaluating,
  when: 'before' | 'after',
): Promise<Accuracies> {
  const at = async (name: 'greedy' | 'sampled', temperature: number) => {
    const e = await evaluateNow(
      policy,
      task,
      template,
      scorer,
      o,
      input,
      temperature,
      `held-out accuracy ${when}, ${name}`,
    );
    input.onEvaluation?.(when, name, e);
    return e.pass1;
  };
  const greedy = await at('greedy', 0);
  const sampled = await at('sampled', 1);
  return {
    greedy: greedy.value,
    sampled: sampled.value,
    greedyCi95: greedy.interval,
    sampledCi95: sampled.interval,
  };
}

function countFailures(
  before: Readonly<Record<string, number>>,
  samples: readonly GrpoSample[],
): Record<string, number> {
  const counts = { ...before };
  for (const { scored } of samples) for (const name of scored.failed) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

/** A standard deviation of one value, say, is not a number; such a metric is left out. */
function finiteOnly(metrics: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(metrics).filter(([, value]) => Number.isFinite(value)));
}

function logLine(step: number, { problem, prompt, completion, scored, advantage }: GrpoSample): unknown {
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
