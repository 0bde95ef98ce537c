// The rehearsal of a PPO run: its own rollouts, values and updates, with completions as long as they may get.
import type { Device } from '../../compute/device/device.js';
import type { LlamaConfig } from '../../model/config.js';
import { type Critic, createCritic, freeCritic, shareTrunk } from '../../model/critic.js';
import { freeLlama, type Llama } from '../../model/llama.js';
import { createOptimizer } from '../optimizer.js';
import type { PpoOptions } from '../ppo-options.js';
import { sampleBatch } from '../ppo-rollout.js';
import { updateActorCritic } from '../ppo-update.js';
import { fillStaged, type Rehearsal, stageModel, stopIfAborted } from './rehearsal.js';
import {
  lighterRollouts,
  playEvaluation,
  type RolloutSubject,
  smallerRollouts,
  stagedScorer,
  stageJob,
} from './rollouts.js';

/** What is trained, on what; `critic` are the sizes of its trunk. */
export type PpoSubject = RolloutSubject & { readonly critic: LlamaConfig };

/** Completions get `meanLength` tokens on average; by default as many as they may, all of them. */
export function ppoRehearsal(
  subject: PpoSubject,
  o: PpoOptions,
  meanLength = o.maxCompletionLength,
): Rehearsal {
  return {
    async play(device: Device, { steps, evaluate, signal }, done) {
      const { llama, job } = stageJob(device, subject, o, meanLength, signal);
      const optimizer = createOptimizer(llama, o);
      const critic = stageCritic(device, subject.critic, o.sharedTrunk ? llama : null);
      const criticOptimizer = createOptimizer(critic, o);
      const reference =
        o.klCoef > 0 ? stageModel(device, subject.config, { trainable: false, kind: 'reference' }) : null;
      const models = { policy: job.policy, critic, optimizer, criticOptimizer };
      // What takes most: policy and critic learn.
      const played = { ...o, criticWarmupSteps: 0 };
      try {
        if (evaluate) await playEvaluation(job, meanLength, done);
        let next = 0;
        for (let step = 1; step <= steps; step++) {
          const batch = await sampleBatch(job, critic, reference, step, next, (_, items) =>
            stagedScorer.scoreAll(items),
          );
          next = batch.nextProblem;
          done('rollout', step);
          await updateActorCritic(models, batch, played, step, () => {});
          stopIfAborted(signal);
          done('update', step);
        }
      } finally {
        if (reference) freeLlama(reference);
        criticOptimizer.free();
        freeCritic(critic);
        optimizer.free();
        freeLlama(llama);
      }
    },
    smaller() {
      const less = smallerRollouts(subject, o, meanLength);
      if (!less) return null;
      const fewer = less.subject.config.numHiddenLayers < subject.config.numHiddenLayers;
      const critic = fewer
        ? { ...subject.critic, numHiddenLayers: halfLayers(subject.critic) }
        : subject.critic;
      const numMiniBatches = less.o.batchSize < o.batchSize ? 1 : o.numMiniBatches;
      return ppoRehearsal({ ...less.subject, critic }, { ...less.o, numMiniBatches }, less.meanLength);
    },
    lighter: (kind) => lighterRollouts(o, kind),
    with: (options) => ppoRehearsal(subject, { ...o, ...options }, meanLength),
  };
}

function halfLayers({ numHiddenLayers }: LlamaConfig): number {
  return Math.ceil(numHiddenLayers / 2);
}

/** A critic to play with, on a trunk of its own or on the policy's. */
function stageCritic(device: Device, config: LlamaConfig, policy: Llama | null): Critic {
  const critic = policy ? shareTrunk(policy) : createCritic(device, { ...config, eosTokenIds: [] });
  fillStaged(critic);
  return critic;
}
