// What runs of GRPO and PPO have around their steps: the state that goes on, the reference model, held-out accuracy, the
// summary.
import type { NamedTensor } from '../checkpoint/safetensors.js';
import type { MemoryReport } from '../compute/device/memory.js';
import { createLlama, followWeights, freeLlama, type Llama, readWeights, weightsOf } from '../model/llama.js';
import { addOperations, NO_OPERATIONS, type Operations } from '../model/operations.js';
import type { Accuracies } from './held-out.js';
import { saveModel } from './options.js';
import { loadPolicy } from './policy.js';
import { type ActiveRun, openActiveRun, type RunOptions } from './recorder.js';
import { finiteOnly, generatingOperations, type Job, type ScoreRound } from './rollout.js';
import { checkFit, promptTemplate } from './rollout-checks.js';
import { accuracies, measureAt } from './rollout-evaluation.js';
import type { RolloutOptions } from './rollout-options.js';
import { countFailures, type Sample } from './scoring.js';
import type { LoopInput, Setting } from './setting.js';

/** A step, as it is told. */
export interface RolloutStep<S extends Sample> {
  /** From 1. */
  readonly step: number;
  readonly steps: number;
  /** TRL's names. */
  readonly metrics: Readonly<Record<string, number>>;
  readonly samples: readonly S[];
}

export interface RolloutSummary {
  readonly steps: number;
  readonly before: Accuracies | null;
  readonly after: Accuracies | null;
  /** Generated in training, and trained on. */
  readonly tokens: number;
  readonly trainedTokens: number;
  readonly operations: Operations;
  readonly seconds: number;
  readonly run: string | null;
  readonly saved: string | null;
  readonly memory: MemoryReport;
  readonly rewardFailures: Readonly<Record<string, number>>;
  /** What a judge's API cost in all, by its file of answers; absent where the task has none. */
  readonly judging?: Readonly<Record<string, number>>;
}

/** What a step needs of the one before, beside weights and optimizers. */
export interface RolloutState {
  readonly nextProblem: number;
  readonly tokens: number;
  readonly trainedTokens: number;
  readonly promptTokens: number;
  readonly operations: Operations;
  readonly seconds: number;
  readonly before: Accuracies | null;
  readonly rewardFailures: Readonly<Record<string, number>>;
}

export const ROLLOUT_START: RolloutState = {
  nextProblem: 0,
  tokens: 0,
  trainedTokens: 0,
  promptTokens: 0,
  operations: NO_OPERATIONS,
  seconds: 0,
  before: null,
  rewardFailures: {},
};

/** The state after a step. */
export function addStep<State extends RolloutState>(
  { policy, o }: Job,
  state: State,
  batch: Pick<RolloutState, 'nextProblem' | 'tokens' | 'promptTokens'> & {
    /** All that were sampled, group by group. */
    readonly samples: readonly Sample[];
  },
  update: {
    readonly trainedTokens: number;
    /** Of all that is not sampling. */
    readonly operations: number;
  },
  seconds: number,
): State {
  return {
    ...state,
    nextProblem: batch.nextProblem,
    tokens: state.tokens + batch.tokens,
    trainedTokens: state.trainedTokens + update.trainedTokens,
    promptTokens: state.promptTokens + batch.promptTokens,
    operations: addOperations(state.operations, {
      trained: update.operations,
      generated: generatingOperations(policy.llama.config, batch.samples, o.numGenerations),
    }),
    seconds: state.seconds + seconds,
    rewardFailures: countFailures(
      state.rewardFailures,
      batch.samples.map(({ scored }) => scored),
    ),
  };
}

/** Metrics of how far the run is, and how fast the step was; `tokens` were generated and trained on in it. */
export function paceMetrics(
  { tokens: generated, promptTokens }: RolloutState,
  tokens: number,
  { seconds, rollout }: { readonly seconds: number; readonly rollout: number },
): Record<string, number> {
  return {
    num_tokens: generated + promptTokens,
    step_time: seconds,
    'time/rollout': rollout,
    tokens_per_second: tokens / seconds,
  };
}

/** What is recorded of a step. */
export interface StepRecord {
  readonly metrics: Readonly<Record<string, number>>;
  /** Completions as they are logged. */
  readonly completions: Iterable<unknown>;
}

/** A run that is open. */
export interface RolloutRun<O extends RolloutOptions, State> {
  readonly active: ActiveRun<State>;
  readonly job: Job<O>;
  /** The policy as it was at first, or the reference of the run that goes on: from now on it is in every checkpoint. */
  makeReference(): Llama;
  /** Scores what a step samples. */
  scoreOf(step: number): ScoreRound;
  /** The state to begin with, held-out accuracy measured. */
  measureBefore(): Promise<State>;
  /**
   * Ends a step: measures held-out accuracy where that is due, records metrics and completions, writes a checkpoint where
   * that is due. Where an API fails that the measurement needs, the step is in a checkpoint before the run ends. Gives all
   * metrics.
   */
  endStep(step: number, state: State, of: StepRecord): Promise<Record<string, number>>;
  /** Measures at the end, saves what is to be saved; `more` is what the loop has to tell beyond the others. */
  finish<More extends object>(state: State, more: More): Promise<RolloutSummary & More>;
  close(): void;
}

/**
 * Begins a run or goes on with one.
 * @param rounds of sampling in a step, at most
 * @throws RetortError for bad input, bad-checkpoint, storage
 */
export function openRolloutRun<
  O extends RolloutOptions & RunOptions<State>['options'],
  State extends RolloutState,
>(
  {
    rounds = 1,
    ...loop
  }: Pick<RunOptions<State>, 'command' | 'initialState' | 'makeParts'> & { rounds?: number },
  o: O,
  input: LoopInput,
  { task, scorer, device, warn, score }: Setting,
): RolloutRun<O, State> {
  const { resume, signal, onEvaluation = () => {}, onProgress = () => {} } = input;
  const save = saveModel(o, resume !== undefined);
  let reference: Llama | null = null;
  const active = openActiveRun<State>({
    ...loop,
    device,
    options: o,
    resume,
    makePolicy: () => {
      const policy = loadPolicy(o.model, device, { trainable: true });
      const { llama, tokenizer } = policy;
      checkFit(llama.config, tokenizer, task, promptTemplate(o, task, tokenizer), o, rounds);
      return policy;
    },
    groups: (): Record<string, Iterable<NamedTensor>> =>
      reference ? { reference: weightsOf(reference) } : {},
    signal,
    warn,
  });
  const { policy } = active;
  const template = promptTemplate(o, task, policy.tokenizer);
  const job: Job<O> = { policy, task, template, scorer, o, onProgress, signal };
  return {
    active,
    job,
    makeReference() {
      reference = createLlama(device, policy.llama.config, { trainable: false, kind: 'reference' });
      const saved = active.restored('reference');
      if (saved) readWeights(reference, saved);
      else followWeights(policy.llama, reference);
      return reference;
    },
    scoreOf: (step) => (round, items) => score(active, step, round, items),
    async measureBefore() {
      const { state, startStep } = active;
      if (!o.evalEnds || state.before) return state;
      const before = await accuracies(job, 'before', onEvaluation).catch(active.stoppedAt(startStep, state));
      const measured = { ...state, before };
      active.stepDone(startStep, measured);
      return measured;
    },
    async endStep(step, state, { metrics, completions }) {
      const record = (all: Readonly<Record<string, number>>) => {
        active.recordMetrics({ step, ...finiteOnly(all) });
        active.recordCompletions(completions);
      };
      const measured = await measureAt(job, step, onEvaluation).catch((error) => {
        record(metrics);
        return active.stoppedAt(step, state)(error);
      });
      const all = { ...metrics, ...measured };
      record(all);
      active.stepDone(step, state);
      return all;
    },
    async finish(state, more) {
      const after = o.evalEnds
        ? await accuracies(job, 'after', onEvaluation).catch(active.stoppedAt(o.steps, state))
        : null;
      const { before, tokens, trainedTokens, operations, seconds, rewardFailures } = state;
      const summary = {
        steps: o.steps,
        before,
        after,
        tokens,
        trainedTokens,
        operations,
        seconds,
        run: active.dir,
        saved: save(policy),
        memory: device.memory(),
        ...more,
        rewardFailures,
        ...(task.spent && { judging: task.spent() }),
      };
      active.finish(o.steps, state, summary);
      return summary;
    },
    close() {
      if (reference) freeLlama(reference);
      active.close();
    },
  };
}
