// PPO with a critic: the baseline that GRPO does without. Schulman et al. 2017 (arXiv 1707.06347), algorithm 1, for language
// models as in Ziegler et al. 2019 (arXiv 1909.08593): a token is an action, and pays for leaving the reference.
//
// Option and metric names are TRL's. Where this differs from TRL's PPOTrainer (experimental, 2026):
// - A completion's score is earned by its last token and nothing follows it: V = 0 there. TRL gives it to the padding after
//   the end where there is some, trains a value for that position, and whitens rewards over it too.
// - Means run over the tokens of completions. TRL's of `approxkl`, entropy and ratio count padding as tokens.
// - Losses are means over a whole minibatch, however it is cut into passes; TRL's are over each micro-batch.
// - Old log-probabilities are the sampler's own. Critic and policy have each an AdamW of its own, with a learning rate and
//   a gradient norm of its own; `vfCoef` therefore matters for what the critic's norm is clipped to, and with a shared trunk.
// - A completion whose reward failed takes no part. With `klCoef` 0 there is no reference and no `objective/kl`.
// - Defaults: `lam` 1 and `klCoef` 0 instead of 0.95 and 0.05, for rewards that are checked at the end of long completions.
import type { z } from 'zod';
import type { NamedTensor } from '../checkpoint/safetensors.js';
import type { MemoryReport } from '../compute/device/memory.js';
import { type Critic, freeCritic } from '../model/critic.js';
import { createLlama, followWeights, freeLlama, type Llama, readWeights, weightsOf } from '../model/llama.js';
import { addOperations, NO_OPERATIONS, type Operations } from '../model/operations.js';
import { aboutCritic, type CriticAbout, makeCritic, remakeCritic } from './critic.js';
import type { Accuracies } from './held-out.js';
import { saveModel } from './options.js';
import { loadPolicy } from './policy.js';
import { type PpoOptions, type ppoOptions, settlePpoOptions } from './ppo-options.js';
import { type PpoSample, sampleBatch, told } from './ppo-rollout.js';
import { updateActorCritic } from './ppo-update.js';
import { openActiveRun } from './recorder.js';
import { finiteOnly, generatingOperations, type Job, logLine } from './rollout.js';
import { checkFit, promptTemplate } from './rollout-checks.js';
import { accuracies, measureAt } from './rollout-evaluation.js';
import { countFailures, type Sample } from './scoring.js';
import { type LoopInput, openSetting, optionsOf, type Setting } from './setting.js';

/** What the library takes: the options, and what cannot stand in a file. */
export type PpoInput = Omit<z.input<typeof ppoOptions>, 'task' | 'rewards'> & LoopInput;

export interface PpoStep {
  /** From 1. */
  readonly step: number;
  readonly steps: number;
  /** TRL's names. */
  readonly metrics: Readonly<Record<string, number>>;
  readonly samples: readonly (Sample | PpoSample)[];
}

export interface PpoSummary {
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
  /** The critic's part of it, in bytes. */
  readonly criticMemory: {
    readonly parameters: number;
    readonly gradients: number;
    readonly optimizer: number;
  };
  readonly rewardFailures: Readonly<Record<string, number>>;
  /** What a judge's API cost in all, by its file of answers; absent where the task has none. */
  readonly judging?: Readonly<Record<string, number>>;
}

/** What a step needs of the one before, beside weights and optimizers. */
interface State {
  readonly nextProblem: number;
  readonly episodes: number;
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
  episodes: 0,
  tokens: 0,
  trainedTokens: 0,
  promptTokens: 0,
  operations: NO_OPERATIONS,
  seconds: 0,
  before: null,
  rewardFailures: {},
};

/**
 * Trains a model by PPO, a step at each turn of the loop.
 * @throws RetortError for bad input before anything expensive starts; interrupted where the signal is aborted
 * @example
 * for await (const step of ppo({ model: 'models/countdown-base', task: 'countdown', steps: 10 })) {
 *   console.log(step.step, step.metrics.reward, step.metrics['val/explained_variance']);
 * }
 */
export async function* ppo(input: PpoInput): AsyncGenerator<PpoStep, PpoSummary> {
  // Settled before the run is recorded, so that a resumed run has the same.
  const o = settlePpoOptions(optionsOf(input));
  const setting = await openSetting(input, o);
  try {
    return yield* run(o, input, setting);
  } finally {
    await setting.close();
  }
}

async function* run(
  o: PpoOptions,
  input: PpoInput,
  { task, scorer, device, warn, score }: Setting,
): AsyncGenerator<PpoStep, PpoSummary> {
  const save = saveModel(o, input.resume !== undefined);
  let critic!: Critic;
  let reference: Llama | null = null;
  const active = openActiveRun<State>({
    device,
    command: 'ppo',
    options: o,
    resume: input.resume,
    makePolicy: () => {
      const policy = loadPolicy(o.model, device, { trainable: true });
      const { llama, tokenizer } = policy;
      checkFit(llama.config, tokenizer, task, promptTemplate(o, task, tokenizer), o);
      return policy;
    },
    makeParts: (policy, about) => {
      const known = about('critic') as CriticAbout | undefined;
      critic = known ? remakeCritic(policy, known) : makeCritic(policy, o);
      const free = () => freeCritic(critic);
      return { critic: { trained: critic, about: aboutCritic(critic), free } };
    },
    initialState: START,
    groups: (): Record<string, Iterable<NamedTensor>> =>
      reference ? { reference: weightsOf(reference) } : {},
    signal: input.signal,
    warn,
  });
  const { policy, optimizer } = active;
  const models = { policy, critic, optimizer, criticOptimizer: active.optimizers.critic };
  const template = promptTemplate(o, task, policy.tokenizer);
  const { onEvaluation = () => {}, onProgress = () => {} } = input;
  const job: Job<PpoOptions> = { policy, task, template, scorer, o, onProgress, signal: input.signal };
  try {
    if (o.klCoef > 0) {
      reference = createLlama(device, policy.llama.config, { trainable: false, kind: 'reference' });
      const saved = active.restored('reference');
      if (saved) readWeights(reference, saved);
      else followWeights(policy.llama, reference);
    }
    let state = active.state;
    if (o.evalEnds && !state.before) {
      const stop = active.stoppedAt(active.startStep, state);
      const before = await accuracies(job, 'before', onEvaluation).catch(stop);
      state = { ...state, before };
      active.stepDone(active.startStep, state);
    }

    for (let step = active.startStep + 1; step <= o.steps; step++) {
      const began = performance.now();
      const batch = await sampleBatch(job, critic, reference, step, state.nextProblem, (round, items) =>
        score(active, step, round, items),
      );
      const sampled = performance.now();
      const update = await updateActorCritic(models, batch, o, step, warn);
      const seconds = (performance.now() - began) / 1000;
      state = {
        ...state,
        nextProblem: batch.nextProblem,
        episodes: state.episodes + o.batchSize,
        tokens: state.tokens + batch.tokens,
        trainedTokens: state.trainedTokens + update.trainedTokens,
        promptTokens: state.promptTokens + batch.promptTokens,
        operations: addOperations(state.operations, {
          trained: batch.operations + update.operations,
          generated: generatingOperations(policy.llama.config, batch.all, o.numGenerations),
        }),
        seconds: state.seconds + seconds,
        rewardFailures: countFailures(
          state.rewardFailures,
          batch.all.map((s) => s.scored),
        ),
      };
      const metrics: Record<string, number> = {
        ...batch.metrics,
        ...update.metrics,
        episode: state.episodes,
        eps: o.batchSize / seconds,
        num_tokens: state.tokens + state.promptTokens,
        step_time: seconds,
        'time/rollout': (sampled - began) / 1000,
        tokens_per_second: (batch.tokens + update.trainedTokens) / seconds,
        ...(await measureAt(job, step, onEvaluation)),
      };
      active.recordMetrics({ step, ...finiteOnly(metrics) });
      active.recordCompletions(batch.all.slice(0, o.logCompletions).map((s) => logLine(step, s, told(s))));
      active.stepDone(step, state);
      yield { step, steps: o.steps, metrics, samples: batch.all };
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
      criticMemory: criticMemory(critic),
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

/** Bytes of what is the critic's own. */
function criticMemory({ groups }: Critic): PpoSummary['criticMemory'] {
  const parameters = groups.reduce((sum, { value }) => sum + 4 * value.size, 0);
  return { parameters, gradients: parameters, optimizer: 2 * parameters };
}
