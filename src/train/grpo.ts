// GRPO: reinforcement learning from rewards that can be checked. DeepSeekMath (arXiv 2402.03300), algorithm 1.
//
// Where this differs from the paper: one outer iteration; by default no KL term (beta 0), token losses averaged over
// the whole minibatch (DAPO), and groups whose rewards are all equal left out of the loss. The paper's loss is
// lossType 'grpo' with beta 0.04 and dynamicSampling 'none'. Old log-probabilities are the sampler's own: sampler and
// trainer run the same kernels, and their difference is logged in each step.
import type { z } from 'zod';
import { followWeights } from '../model/llama.js';
import type { SuccessRates } from './curriculum.js';
import { cautionsOf } from './grpo-objective.js';
import { type GrpoOptions, type grpoOptions, roundsOf, settleGrpoOptions } from './grpo-options.js';
import { type GrpoSample, sampleBatch } from './grpo-rollout.js';
import { updatePolicy } from './grpo-update.js';
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
import { type LoopInput, openSetting, optionsOf, type Setting } from './setting.js';

/** What the library takes: the options, and what cannot stand in a file. */
export type GrpoInput = Omit<z.input<typeof grpoOptions>, 'task' | 'rewards'> & LoopInput;

export type GrpoStep = RolloutStep<GrpoSample>;
export type GrpoSummary = RolloutSummary;

interface State extends RolloutState {
  readonly rates: SuccessRates;
}

const START: State = { ...ROLLOUT_START, rates: {} };

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
    return yield* learn(o, input, setting);
  } finally {
    await setting.close();
  }
}

async function* learn(
  o: GrpoOptions,
  input: GrpoInput,
  setting: Setting,
): AsyncGenerator<GrpoStep, GrpoSummary> {
  const { warn } = setting;
  for (const caution of cautionsOf(o)) warn(caution);
  const rounds = roundsOf(o);
  const run = openRolloutRun({ command: 'grpo', initialState: START, rounds }, o, input, setting);
  const { active, job } = run;
  const { policy, optimizer } = active;
  try {
    const reference = o.beta > 0 ? run.makeReference() : null;
    let state = await run.measureBefore();
    for (let step = active.startStep + 1; step <= o.steps; step++) {
      const began = performance.now();
      const stopped = active.stoppedAt(step - 1, state);
      const batch = await sampleBatch(job, step, state, run.scoreOf(step)).catch(stopped);
      const rollout = (performance.now() - began) / 1000;
      const update = await updatePolicy(policy, reference, optimizer, batch, o, step, warn);
      if (reference && o.refModelSyncSteps > 0 && step % o.refModelSyncSteps === 0) {
        followWeights(policy.llama, reference, o.refModelMixupAlpha);
      }
      const seconds = (performance.now() - began) / 1000;
      state = { ...addStep(job, state, batch, update, seconds), rates: batch.rates };
      const pace = paceMetrics(state, batch.tokens + update.trainedTokens, { seconds, rollout });
      const logged = batch.samples.slice(0, o.logCompletions);
      const metrics = await run.endStep(step, state, {
        metrics: { ...batch.metrics, ...update.metrics, ...pace },
        completions: logged.map((s) => logLine(step, s, { advantage: s.advantage })),
      });
      yield { step, steps: o.steps, metrics, samples: batch.samples };
    }
    return await run.finish(state, {});
  } finally {
    run.close();
  }
}
