// GRPO: reinforcement learning from rewards that can be checked. DeepSeekMath (arXiv 2402.03300), algorithm 1.
//
// Where this differs from the paper: one outer iteration; by default no KL term (beta 0), token losses averaged over
// the whole minibatch (DAPO), and groups whose rewards are all equal left out of the loss. The paper's loss is
// lossType 'grpo' with beta 0.04 and dynamicSampling 'none'. Old log-probabilities are the sampler's own: sampler and
// trainer run the same kernels, and their difference is logged in each step.
import type { z } from 'zod';
import type { NamedTensor } from '../checkpoint/safetensors.js';
import type { MemoryReport } from '../compute/device/memory.js';
import { createLlama, followWeights, freeLlama, type Llama, readWeights, weightsOf } from '../model/llama.js';
import { addOperations, NO_OPERATIONS, type Operations } from '../model/operations.js';
import type { SuccessRates } from './curriculum.js';
import { cautionsOf } from './grpo-objective.js';
import { type GrpoOptions, type grpoOptions, roundsOf, settleGrpoOptions } from './grpo-options.js';
import { type GrpoSample, sampleBatch } from './grpo-rollout.js';
import { updatePolicy } from './grpo-update.js';
import type { Accuracies } from './held-out.js';
import { saveModel } from './options.js';
import { loadPolicy } from './policy.js';
import { openActiveRun } from './recorder.js';
import { finiteOnly, generatingOperations, type Job, logLine } from './rollout.js';
import { checkFit, promptTemplate } from './rollout-checks.js';
import { accuracies, measureAt } from './rollout-evaluation.js';
import { countFailures } from './scoring.js';
import { type LoopInput, openSetting, optionsOf, type Setting } from './setting.js';

/** What the library takes: the options, and what cannot stand in a file. */
export type GrpoInput = Omit<z.input<typeof grpoOptions>, 'task' | 'rewards'> & LoopInput;

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
  readonly operations: Operations;
  readonly seconds: number;
  readonly run: string | null;
  readonly saved: string | null;
  readonly memory: MemoryReport;
  readonly rewardFailures: Readonly<Record<string, number>>;
  /** What a judge's API cost in all, by its file of answers; absent where the task has none. */
  readonly judging?: Readonly<Record<string, number>>;
}

/** What a step needs of the one before, beside weights and optimizer. */
interface State {
  readonly nextProblem: number;
  readonly rates: SuccessRates;
  readonly tokens: number;
  readonly trainedTokens: number;
  readonly promptTokens: number;
  readonly operations: Operations;
  readonly seconds: number;
  readonly before: Accuracies | null;
  readonly rewardFailures: Readonly<Record<string, number>>;
}

const START: State = {
  nextProblem: 0,
  rates: {},
  tokens: 0,
  trainedTokens: 0,
  promptTokens: 0,
  operations: NO_OPERATIONS,
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
  // Settled before the run is recorded, so that a resumed run has the same.
  const o = settleGrpoOptions(optionsOf(input));
  const setting = await openSetting(input, o);
  try {
    return yield* run(o, input, setting);
  } finally {
    await setting.close();
  }
}

async function* run(
  o: GrpoOptions,
  input: GrpoInput,
  { task, scorer, device, warn, score }: Setting,
): AsyncGenerator<GrpoStep, GrpoSummary> {
  for (const caution of cautionsOf(o)) warn(caution);
  const save = saveModel(o, input.resume !== undefined);
  let reference: Llama | null = null;
  const active = openActiveRun<State>({
    device,
    command: 'grpo',
    options: o,
    resume: input.resume,
    makePolicy: () => {
      const policy = loadPolicy(o.model, device, { trainable: true });
      const { llama, tokenizer } = policy;
      checkFit(llama.config, tokenizer, task, promptTemplate(o, task, tokenizer), o, roundsOf(o));
      return policy;
    },
    initialState: START,
    groups: (): Record<string, Iterable<NamedTensor>> =>
      reference ? { reference: weightsOf(reference) } : {},
    signal: input.signal,
    warn,
  });
  const { policy, optimizer } = active;
  const template = promptTemplate(o, task, policy.tokenizer);
  const { onEvaluation = () => {}, onProgress = () => {} } = input;
  const job: Job<GrpoOptions> = { policy, task, template, scorer, o, onProgress, signal: input.signal };
  try {
    if (o.beta > 0) {
      reference = createLlama(device, policy.llama.config, { trainable: false, kind: 'reference' });
      const saved = active.restored('reference');
      if (saved) readWeights(reference, saved);
      else followWeights(policy.llama, reference);
    }
    let state = active.state;
    if (o.evalEnds && !state.before) {
      const before = await accuracies(job, 'before', onEvaluation).catch(
        active.stoppedAt(active.startStep, state),
      );
      state = { ...state, before };
      active.stepDone(active.startStep, state);
    }

    for (let step = active.startStep + 1; step <= o.steps; step++) {
      const began = performance.now();
      const batch = await sampleBatch(job, step, state, (round, items) => score(active, step, round, items));
      const sampled = performance.now();
      const update = await updatePolicy(policy, reference, optimizer, batch, o, step, warn);
      if (reference && o.refModelSyncSteps > 0 && step % o.refModelSyncSteps === 0) {
        followWeights(policy.llama, reference, o.refModelMixupAlpha);
      }
      const seconds = (performance.now() - began) / 1000;
      state = {
        ...state,
        nextProblem: batch.nextProblem,
        rates: batch.rates,
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
          batch.samples.map((s) => s.scored),
        ),
      };
      const metrics: Record<string, number> = {
        ...batch.metrics,
        ...update.metrics,
        num_tokens: state.tokens + state.promptTokens,
        step_time: seconds,
        'time/rollout': (sampled - began) / 1000,
        tokens_per_second: (batch.tokens + update.trainedTokens) / seconds,
        ...(await measureAt(job, step, onEvaluation)),
      };
      active.recordMetrics({ step, ...finiteOnly(metrics) });
      active.recordCompletions(
        batch.samples.slice(0, o.logCompletions).map((s) => logLine(step, s, { advantage: s.advantage })),
      );
      active.stepDone(step, state);
      yield { step, steps: o.steps, metrics, samples: batch.samples };
    }
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
      rewardFailures,
      ...(task.spent && { judging: task.spent() }),
    };
    active.finish(o.steps, state, summary);
    return summary;
  } finally {
    if (reference) freeLlama(reference);
    active.close();
  }
}
