// Options of every loop with rollouts: what is learned, how it is sampled, scored and measured.
import { z } from 'zod';
import { contextOf } from '../checkpoint/open-model.js';
import { rewardNames } from '../reward/load.js';
import { SEQUENCES_AT_ONCE } from '../rollout/generate.js';
import { MAX_PROBLEMS } from './evaluate.js';

const positive = z.number().positive();
const count = z.number().int().min(1);

/** What is trained, on what. */
export const taskFields = {
  model: z.string().describe('folder of the model to start from'),
  task: z.string().describe('name of a task, or path of a module that exports one'),
  taskOptions: z.record(z.string(), z.unknown()).default({}).describe('options of the task'),
  template: z.string().optional().describe("prompt template; default: the task's"),
  rewards: z
    .array(z.string())
    .default([])
    .describe(`a further reward: ${rewardNames().join(', ')}, or a module`),
};

export const stepsField = count.default(100).describe('rollouts, each followed by its updates');

/** How completions are sampled. */
export const samplingFields = {
  maxCompletionLength: count
    .optional()
    .describe("most tokens of a completion; default: 256, or what the model's context leaves"),
  temperature: positive.max(100).default(1).describe('sampling temperature'),
  topK: z.number().int().min(0).default(0).describe('keep the k likeliest tokens; 0 keeps all'),
  topP: positive.max(1).default(1).describe('keep the fewest tokens whose probability reaches p'),
  minP: z
    .number()
    .min(0)
    .max(1)
    .default(0)
    .describe('keep tokens at least this share as likely as the likeliest'),
  stop: z.array(z.string().min(1)).default([]).describe('strings that end a completion'),
};

/** How they are scored. */
export const scoringFields = {
  rewardWeights: z.record(z.string(), z.number()).default({}).describe('weight of each reward by name'),
  rewardTimeout: positive.default(10).describe('seconds that a reward may take'),
};

/** What is recorded of a step beside its metrics. */
export const recordFields = {
  logCompletions: z.number().int().min(0).default(16).describe('completions of a step that are recorded'),
};

/** How much is computed at once, and what becomes of an update that cannot be. */
export const passFields = {
  microBatchTokens: count.default(8192).describe('most tokens in one forward and backward pass'),
  maxSequences: count.default(SEQUENCES_AT_ONCE).describe('completions generated at once'),
  onNonFinite: z
    .enum(['stop', 'skip'])
    .default('stop')
    .describe('an infinite or NaN gradient ends the run or skips the update'),
};

/** Options of evaluation within a run and at its ends. */
export const evaluationFields = {
  evalEvery: z
    .number()
    .int()
    .min(0)
    .default(0)
    .describe('steps between evaluations on held-out problems; 0: none'),
  evalProblems: count.max(MAX_PROBLEMS).default(200).describe('held-out problems of an evaluation'),
  evalTemperature: z.number().min(0).default(1).describe('temperature of evaluation within the run'),
  evalEnds: z.boolean().default(true).describe('measure held-out accuracy before and after'),
};

const fields = z.strictObject({
  ...taskFields,
  steps: stepsField,
  ...samplingFields,
  ...scoringFields,
  ...passFields,
  ...evaluationFields,
});

/** What rollouts and evaluations need of a loop's options. */
export type RolloutOptions = z.output<typeof fields> & {
  /** Completions of a step. */
  readonly batchSize: number;
  /** Completions of one problem. */
  readonly numGenerations: number;
  readonly maxCompletionLength: number;
  readonly seed: number;
};

/** Most tokens of a completion where nothing is said: 256 as in TRL, or what the model's context leaves. */
export function usualLength(context: number): number {
  return Math.min(256, context - 1);
}

/** The length limit of completions: as given, or the usual one. */
export function completionLengthFor(o: {
  readonly model: string;
  readonly maxCompletionLength?: number;
}): number {
  return o.maxCompletionLength ?? usualLength(contextOf(o.model));
}
