// The rehearsal of a GRPO run: its own rollouts and updates, with completions as long as they may get.

import type { Device } from '../../compute/device/device.js';
import type { LlamaConfig } from '../../model/config.js';
import { freeLlama } from '../../model/llama.js';
import type { Scorer } from '../../reward/score.js';
import type { Task } from '../../task/task.js';
import type { PromptTemplate } from '../../text/template.js';
import type { Tokenizer } from '../../text/tokenizer.js';
import type { SuccessRates } from '../curriculum.js';
import type { GrpoOptions } from '../grpo-options.js';
import { sampleBatch } from '../grpo-rollout.js';
import { updatePolicy } from '../grpo-update.js';
import { createOptimizer } from '../optimizer.js';
import type { Job } from '../rollout.js';
import { evaluateNow } from '../rollout-evaluation.js';
import { drawLengths, STAGED_END, stagedStream } from './lengths.js';
import { type ChangedOptions, halved, type Rehearsal, stageModel, stopIfAborted } from './rehearsal.js';

/** What is trained, on what. */
export interface GrpoSubject {
  readonly config: LlamaConfig;
  readonly tokenizer: Tokenizer;
  readonly task: Task;
  readonly template: PromptTemplate;
}

/** Rewards that differ within every group: no group is left out, none replaced. */
const scorer: Scorer = {
  failures: new Map(),
  scoreAll: async (items) =>
    items.map((_, i) => ({ rewards: { planned: i % 2 }, reward: i % 2, correct: false, failed: [] })),
  close: async () => {},
};

/** Completions get `meanLength` tokens on average; by default as many as they may, all of them. */
export function grpoRehearsal(
  subject: GrpoSubject,
  o: GrpoOptions,
  meanLength = o.maxCompletionLength,
): Rehearsal {
  const { config, task, template } = subject;
  const evaluates = o.evalEnds || o.evalEvery > 0;
  return {
    async play(device: Device, { steps, evaluate, signal }, done) {
      const llama = stageModel(device, config, { trainable: true });
      const stream = stagedStream(drawLengths(meanLength, o.maxCompletionLength));
      const policy = { llama, tokenizer: { ...subject.tokenizer, eosTokenIds: [], stream } };
      const optimizer = createOptimizer(llama, { ...o, eps: o.adamEpsilon });
      const reference =
        o.beta > 0 ? stageModel(device, config, { trainable: false, kind: 'reference' }) : null;
      const job: Job<GrpoOptions> = {
        policy,
        task,
        template,
        scorer,
        o: { ...o, stop: [STAGED_END] },
        onProgress: () => stopIfAborted(signal),
      };
      try {
        if (evaluate && evaluates) {
          await evaluateNow({ ...job, o: { ...o, maxCompletionLength: meanLength } }, 1, 'rehearsal');
          done('evaluation', 0);
        }
        let from: { nextProblem: number; rates: SuccessRates } = { nextProblem: 0, rates: {} };
        for (let step = 1; step <= steps; step++) {
          const batch = await sampleBatch(job, step, from, (_, items) => scorer.scoreAll(items));
          from = batch;
          done('rollout', step);
          await updatePolicy(policy, reference, optimizer, batch, o, step, () => {});
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
      const length = halved(o.maxCompletionLength, 32);
      if (length !== null) {
        const mean = Math.ceil((meanLength * length) / o.maxCompletionLength);
        return grpoRehearsal(subject, { ...o, maxCompletionLength: length }, mean);
      }
      const layers = halved(config.numHiddenLayers, 1);
      if (layers !== null)
        return grpoRehearsal({ ...subject, config: { ...config, numHiddenLayers: layers } }, o, meanLength);
      const groups = halved(o.batchSize / o.numGenerations, 1);
      if (groups === null) return null;
      return grpoRehearsal(
        subject,
        { ...o, batchSize: groups * o.numGenerations, minibatches: 1 },
        meanLength,
      );
    },
    lighter(kind) {
      if (kind === 'kvCache') {
        const sequences = halved(Math.min(o.maxSequences, o.batchSize), 1);
        return sequences === null ? [] : [{ maxSequences: sequences }];
      }
      const ways: ChangedOptions[] = [];
      // Passes hold whole sequences: fewer tokens than the longest has would change nothing.
      const tokens = halved(o.microBatchTokens, o.maxCompletionLength);
      if (tokens !== null) ways.push({ microBatchTokens: tokens });
      if (!o.gradientCheckpointing) ways.push({ gradientCheckpointing: true });
      return ways;
    },
    with(options) {
      return grpoRehearsal(subject, { ...o, ...options }, meanLength);
    },
  };
}
