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
import { type Critic, freeCritic } from '../model/critic.js';
import { aboutCritic, type CriticAbout, makeCritic, remakeCritic } from './critic.js';
import { type PpoOptions, type ppoOptions, settlePpoOptions } from './ppo-options.js';
import { type PpoSample, sampleBatch, told } from './ppo-rollout.js';
import { updateActorCritic } from './ppo-update.js';
import type { RunOptions } from './recorder.js';
import { logLine } from './rollout.js';
import {
  addStep,
  openRolloutRun,
  paceMetrics,
  ROLLOUT_START,
  type RolloutState,
  type RolloutStep,
  type RolloutSummary,
} from './rollout-run.js';
import type { Sample } from './scoring.js';
import { type LoopInput, openSetting, optionsOf, type Setting } from './setting.js';

/** What the library takes: the options, and what cannot stand in a file. */
export type PpoInput = Omit<z.input<typeof ppoOptions>, 'task' | 'rewards'> & LoopInput;

export type PpoStep = RolloutStep<Sample | PpoSample>;

export interface PpoSummary extends RolloutSummary {
  /** The critic's part of the memory, in bytes. */
  readonly criticMemory: {
    readonly parameters: number;
    readonly gradients: number;
    readonly optimizer: number;
  };
}

interface State extends RolloutState {
  readonly episodes: number;
}

const START: State = { ...ROLLOUT_START, episodes: 0 };

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
    return yield* learn(o, input, setting);
  } finally {
    await setting.close();
  }
}

async function* learn(o: PpoOptions, input: PpoInput, setting: Setting): AsyncGenerator<PpoStep, PpoSummary> {
  let critic!: Critic;
  const makeParts: RunOptions<State>['makeParts'] = (policy, about) => {
    const known = about('critic') as CriticAbout | undefined;
    critic = known ? remakeCritic(policy, known) : makeCritic(policy, o);
    return { critic: { trained: critic, about: aboutCritic(critic), free: () => freeCritic(critic) } };
  };
  const run = openRolloutRun({ command: 'ppo', initialState: START, makeParts }, o, input, setting);
  const { active, job } = run;
  const { policy, optimizer } = active;
  const models = { policy, critic, optimizer, criticOptimizer: active.optimizers.critic };
  try {
    const reference = o.klCoef > 0 ? run.makeReference() : null;
    let state = await run.measureBefore();
    for (let step = active.startStep + 1; step <= o.steps; step++) {
      const began = performance.now();
      const { nextProblem } = state;
      const score = run.scoreOf(step);
      const stopped = active.stoppedAt(step - 1, state);
      const batch = await sampleBatch(job, critic, reference, step, nextProblem, score).catch(stopped);
      const rollout = (performance.now() - began) / 1000;
      const update = await updateActorCritic(models, batch, o, step, setting.warn);
      const seconds = (performance.now() - began) / 1000;
      const computed = { ...update, operations: batch.operations + update.operations };
      state = { ...addStep(job, state, batch, computed, seconds), episodes: state.episodes + o.batchSize };
      const episodes = { episode: state.episodes, eps: o.batchSize / seconds };
      const pace = paceMetrics(state, batch.tokens + update.trainedTokens, { seconds, rollout });
      const metrics = await run.endStep(step, state, {
        metrics: { ...batch.metrics, ...update.metrics, ...episodes, ...pace },
        completions: batch.samples.slice(0, o.logCompletions).map((s) => logLine(step, s, told(s))),
      });
      yield { step, steps: o.steps, metrics, samples: batch.samples };
    }
    return await run.finish(state, { criticMemory: criticMemory(critic) });
  } finally {
    run.close();
  }
}

/** Bytes of what is the critic's own. */
function criticMemory({ groups }: Critic): PpoSummary['criticMemory'] {
  const parameters = groups.reduce((sum, { value }) => sum + 4 * value.size, 0);
  return { parameters, gradients: parameters, optimizer: 2 * parameters };
}
