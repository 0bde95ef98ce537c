// GRPO: reinforcement learning from rewards that can be checked. DeepSeekMath (arXiv 2402.03300), algorithm 1.
//
// Where this differs from the paper: one outer iteration; by default no KL term (beta 0), token losses averaged over
// the whole minibatch (DAPO), and groups whose rewards are all equal left out of the loss. The paper's loss is
// lossType 'grpo' with beta 0.04 and dynamicSampling 'none'. Old log-probabilities are the sampler's own: sampler and
// trainer run the same kernels, and their difference is logged in each step.
import type { z } from 'zod';
import type { NamedTensor } from '../checkpoint/safetensors.js';
import { createDevice, type Device } from '../compute/device/device.js';
import type { MemoryReport } from '../compute/device/memory.js';
import { createLlama, followWeights, freeLlama, type Llama, readWeights, weightsOf } from '../model/llama.js';
import { findReward } from '../reward/load.js';
import type { Reward } from '../reward/reward.js';
import { openScorer, type RewardFailure, type Scored, type ScoreItem, type Scorer } from '../reward/score.js';
import type { GenerateProgress } from '../rollout/generate.js';
import { loadTask } from '../task/load.js';
import { taskNames } from '../task/registry.js';
import type { Task } from '../task/task.js';
import { checkFit, grpoTemplate } from './grpo-checks.js';
import { type Accuracies, accuracies, evaluateNow, type OnEvaluation } from './grpo-evaluation.js';
import { cautionsOf } from './grpo-objective.js';
import { type GrpoOptions, type grpoOptions, settleGrpoOptions } from './grpo-options.js';
import { type GrpoSample, type Job, logLine, sampleBatch } from './grpo-rollout.js';
import { updatePolicy } from './grpo-update.js';
import { saveModel } from './options.js';
import { loadPolicy } from './policy.js';
import { openActiveRun } from './recorder.js';

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
  readonly onEvaluation?: OnEvaluation;
  readonly onRewardFailure?: (failure: RewardFailure) => void;
  readonly warn?: (message: string) => void;
};

export interface GrpoStep {
  /** From 1. */
  readonly step: number;
  readonly steps: number;
  /** TRL's names. */
  readonly metrics: Readonly<Record<string, number>>;
  readonly samples: readonly GrpoSample[];
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
  for (const caution of cautionsOf(o)) warn(caution);
  const task = typeof input.task === 'string' ? await loadTask(input.task, o.taskOptions) : input.task;
  const rewards = await Promise.all(
    (input.rewards ?? []).map((r) =>
      typeof r === 'string' ? findReward(r, { maxTokens: o.maxCompletionLength }) : r,
    ),
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
    task: typeof input.task === 'string' ? input.task : input.task?.name,
    rewards: (input.rewards ?? []).map((r) => (typeof r === 'string' ? r : r.name)),
  };
  // Settled before the run is recorded, so that a resumed run has the same.
  const o = settleGrpoOptions(given);
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
  const save = saveModel(o, input.resume !== undefined);
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
      const { llama, tokenizer } = policy;
      checkFit(llama.config, tokenizer, task, grpoTemplate(o, task, tokenizer), o);
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
  const template = grpoTemplate(o, task, policy.tokenizer);
  const { onEvaluation = () => {}, onProgress = () => {} } = input;
  const job: Job = { policy, task, template, scorer, o, onProgress, signal: input.signal };
  const shipped = taskNames().includes(task.name) && !task.module;
  const deterministic = shipped && !moreRewards;
  try {
    if (o.beta > 0) {
      reference = createLlama(device, policy.llama.config, { trainable: false, kind: 'reference' });
      const saved = active.restored('reference');
      if (saved) readWeights(reference, saved);
      else followWeights(policy.llama, reference);
    }
    let state = active.state;
    if (o.evalEnds && !state.before) {
      const before = await accuracies(job, 'before', onEvaluation).catch(stopAt(active.startStep, state));
      state = { ...state, before };
      active.stepDone(active.startStep, state);
    }

    for (let step = active.startStep + 1; step <= o.steps; step++) {
      const began = performance.now();
      const batch = await sampleBatch(job, step, state.nextProblem, (round, items) =>
        score(step, round, items),
      );
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
        const e = await evaluateNow(job, o.evalTemperature, `evaluation at step ${step}`);
        onEvaluation(step, o.evalTemperature === 0 ? 'greedy' : 'sampled', e);
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
    const after = o.evalEnds
      ? await accuracies(job, 'after', onEvaluation).catch(stopAt(o.steps, state))
      : null;
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

  /** An interrupted evaluation ends the run as an interrupted step does: with a checkpoint. */
  function stopAt(step: number, state: State): (error: unknown) => never {
    return (error) => {
      if (input.signal?.aborted) active.stepDone(step, state);
      throw error;
    };
  }

  /** Scores completions; what a user's function said is kept, so that a resumed run hears the same. */
  function score(step: number, round: number, items: readonly ScoreItem[]): Promise<Scored[]> {
    const now = () => scorer.scoreAll(items);
    return deterministic ? now() : active.journalled(`${step}.${round}`, step, now);
  }
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
