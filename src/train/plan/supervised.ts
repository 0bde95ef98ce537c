// The rehearsal of a supervised run: its own steps over its own first examples.
import type { Device } from '../../compute/device/device.js';
import type { LlamaConfig } from '../../model/config.js';
import { freeLlama } from '../../model/llama.js';
import { createOptimizer } from '../optimizer.js';
import { type Prepared, take } from '../supervised-data.js';
import { lossOver, meanLoss } from '../supervised-loss.js';
import type { SupervisedOptions } from '../supervised-options.js';
import { type ChangedOptions, halved, type Rehearsal, stageModel, stopIfAborted } from './rehearsal.js';

export function supervisedRehearsal(config: LlamaConfig, data: Prepared, o: SupervisedOptions): Rehearsal {
  return {
    async play(device: Device, { steps, evaluate, signal }, done) {
      const llama = stageModel(device, config, { trainable: true });
      const optimizer = createOptimizer(llama, o);
      try {
        let next = 0;
        for (let step = 1; step <= steps; step++) {
          const taken = take(data.train, next, o.batchTokens * o.gradientAccumulationSteps);
          next = taken.next;
          await meanLoss(llama, taken.examples, o, true);
          optimizer.step(o.learningRate);
          stopIfAborted(signal);
          done('update', step);
        }
        if (evaluate && data.heldout) {
          await lossOver(llama, data.heldout, o);
          done('evaluation', 0);
        }
      } finally {
        optimizer.free();
        freeLlama(llama);
      }
    },
    smaller() {
      const passes = halved(o.gradientAccumulationSteps, 1);
      if (passes !== null)
        return supervisedRehearsal(config, data, { ...o, gradientAccumulationSteps: passes });
      const layers = halved(config.numHiddenLayers, 1);
      if (layers !== null) return supervisedRehearsal({ ...config, numHiddenLayers: layers }, data, o);
      const tokens = halved(o.batchTokens, 256);
      return tokens === null ? null : supervisedRehearsal(config, data, { ...o, batchTokens: tokens });
    },
    lighter(kind) {
      const ways: ChangedOptions[] = [];
      if (kind !== 'activations') return ways;
      const tokens = halved(o.batchTokens, 1);
      if (tokens !== null)
        ways.push({ batchTokens: tokens, gradientAccumulationSteps: 2 * o.gradientAccumulationSteps });
      if (!o.gradientCheckpointing) ways.push({ gradientCheckpointing: true });
      return ways;
    },
    with(options) {
      return supervisedRehearsal(config, data, { ...o, ...options });
    },
  };
}
