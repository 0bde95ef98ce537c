// The rehearsal of a GRPO run: its own rollouts and updates, with completions as long as they may get.
import type { Device } from '../../compute/device/device.js';
import { freeLlama } from '../../model/llama.js';
import type { SuccessRates } from '../curriculum.js';
import type { GrpoOptions } from '../grpo-options.js';
import { sampleBatch } from '../grpo-rollout.js';
import { updatePolicy } from '../grpo-update.js';
import { createOptimizer } from '../optimizer.js';
import { type Rehearsal, stageModel, stopIfAborted } from './rehearsal.js';
import {
  lighterRollouts,
  playEvaluation,
  type RolloutSubject,
  smallerRollouts,
  stagedScorer,
  stageJob,
} from './rollouts.js';

/** Completions get `meanLength` tokens on average; by default as many as they may, all of them. */
export function grpoRehearsal(
  subject: RolloutSubject,
  o: GrpoOptions,
  meanLength = o.maxCompletionLength,
): Rehearsal {
  return {
    async play(device: Device, { steps, evaluate, signal }, done) {
      const { llama, job } = stageJob(device, subject, o, meanLength, signal);
      const optimizer = createOptimizer(llama, o);
      const reference =
        o.beta > 0 ? stageModel(device, subject.config, { trainable: false, kind: 'reference' }) : null;
      try {
        if (evaluate) await playEvaluation(job, meanLength, done);
        let from: { nextProblem: number; rates: SuccessRates } = { nextProblem: 0, rates: {} };
        for (let step = 1; step <= steps; step++) {
          const batch = await sampleBatch(job, step, from, (_, items) => stagedScorer.scoreAll(items));
          from = batch;
          done('rollout', step);
          await updatePolicy(job.policy, reference, optimizer, batch, o, step, () => {});
          stopIfAborted(signal);
          done('update', step);
        }
      } finally {
        optimizer.free();
        if (reference) freeLlama(reference);
        freeLlama(llama);
      }
    },
    smaller() {
      const less = smallerRollouts(subject, o, meanLength);
      // Of fewer groups there are not always as many minibatches.
      const minibatches = less && less.o.batchSize < o.batchSize ? 1 : o.minibatches;
      return less && grpoRehearsal(less.subject, { ...less.o, minibatches }, less.meanLength);
    },
    lighter: (kind) => lighterRollouts(o, kind),
    with: (options) => grpoRehearsal(subject, { ...o, ...options }, meanLength),
  };
}
