// The options of GRPO with TRL's names in camelCase, their defaults and their checks.
import { z } from 'zod';
import { refuse } from '../errors.js';
import { type AdvantageEstimator, advantageEstimators, type ScaleRewards } from '../objective/advantages.js';
import { importanceSamplingLevels } from '../objective/importance-ratio.js';
import { lossTypes } from '../objective/loss-weights.js';
import { CISPO_EPSILON_HIGH, checkObjective, EPSILON } from './grpo-objective.js';
import { optimizerFields, parseOptions, runFields } from './options.js';
import {
  completionLengthFor,
  evaluationFields,
  passFields,
  recordFields,
  samplingFields,
  scoringFields,
  stepsField,
  taskFields,
} from './rollout-options.js';

const positive = z.number().positive();
const count = z.number().int().min(1);

/** Options of the objective and the rollouts. */
const grpoFields = {
  steps: stepsField,
  batchSize: z.number().int().min(2).default(256).describe('completions of one step'),
  numGenerations: z
    .number()
    .int()
    .min(2, 'a completion is compared with the others of its group: give at least 2')
    .default(8)
    .describe('completions of one problem (the group)'),
  minibatches: count.default(1).describe('optimizer updates that share the completions of a step'),
  numIterations: count.default(1).describe('passes over the completions of a step'),
  ...samplingFields,
  lossType: z
    .enum(lossTypes as [string, ...string[]])
    .default('dapo')
    .describe('how token losses are averaged; cispo: also how ratios are clipped'),
  importanceSamplingLevel: z
    .enum(importanceSamplingLevels as [string, ...string[]])
    .default('token')
    .describe('a probability ratio for each token, or one for a whole completion (GSPO)'),
  advantageEstimator: z
    .enum(advantageEstimators as [AdvantageEstimator, ...AdvantageEstimator[]])
    .default('grpo')
    .describe(
      "what a reward is compared with: its group's mean (grpo), or that of the group's others (rloo)",
    ),
  scaleRewards: z
    .enum(['group', 'batch', 'none'])
    .optional()
    .describe('what advantages are divided by; default: group, none with rloo'),
  epsilon: z.number().min(0).lt(1).default(EPSILON).describe('lower clip of the probability ratio'),
  epsilonHigh: z
    .number()
    .min(0)
    .optional()
    .describe(
      `upper clip; default: epsilon; with lossType cispo the greatest ratio itself, default: ${CISPO_EPSILON_HIGH}`,
    ),
  delta: positive.optional().describe('upper limit of the ratio for negative advantages; default: none'),
  beta: z.number().min(0).default(0).describe('weight of the KL divergence from the reference'),
  entropyCoef: z
    .number()
    .min(0)
    .default(0)
    .describe('weight of the mean entropy of tokens, a bonus for exploring'),
  refModelSyncSteps: z
    .number()
    .int()
    .min(0)
    .default(0)
    .describe('refresh the reference every so many steps; 0: never'),
  refModelMixupAlpha: positive.max(1).default(1).describe('share of the policy in a refreshed reference'),
  maskTruncatedCompletions: z
    .boolean()
    .default(false)
    .describe('completions cut by the length limit give no loss'),
  dynamicSampling: z
    .enum(['none', 'drop', 'resample'])
    .default('drop')
    .describe('groups of equal rewards: keep, leave out of the loss, or replace by further problems (DAPO)'),
  curriculum: z
    .enum(['none', 'success'])
    .default('none')
    .describe(
      'success: kinds of problems that are nearly always or never solved are sampled less (a data set: single problems)',
    ),
  maxResamples: count
    .default(3)
    .describe('further rounds of sampling at most, with dynamicSampling resample'),
  ...scoringFields,
  ...passFields,
};

/** The options of `retort grpo`; plain JSON, as they stand in config.json. */
export const grpoOptions = z.strictObject({
  ...taskFields,
  ...grpoFields,
  ...optimizerFields,
  learningRate: optimizerFields.learningRate.default(1e-4),
  ...evaluationFields,
  ...runFields,
  ...recordFields,
});
export type GrpoOptions = z.output<typeof grpoOptions> & {
  readonly maxCompletionLength: number;
  readonly scaleRewards: ScaleRewards;
};

/**
 * Checks options against each other and fills what depends on the model.
 * @throws RetortError bad-input naming the option, its value and the remedy
 */
export function settleGrpoOptions(given: unknown): GrpoOptions {
  const parsed = parseOptions('grpo', grpoOptions, given);
  checkObjective(parsed);
  if (parsed.batchSize % parsed.numGenerations !== 0) {
    const near = Math.max(1, Math.round(parsed.batchSize / parsed.numGenerations)) * parsed.numGenerations;
    throw refuse(
      'bad-input',
      `batchSize with numGenerations ${parsed.numGenerations}`,
      parsed.batchSize,
      `it must be a multiple: ${near}, say`,
    );
  }
  const groups = parsed.batchSize / parsed.numGenerations;
  if (groups % parsed.minibatches !== 0) {
    throw refuse(
      'bad-input',
      `minibatches of ${groups} groups`,
      parsed.minibatches,
      'it must divide batchSize / numGenerations',
    );
  }
  const maxCompletionLength = completionLengthFor(parsed);
  const scaleRewards = parsed.scaleRewards ?? (parsed.advantageEstimator === 'rloo' ? 'none' : 'group');
  return { ...parsed, maxCompletionLength, scaleRewards };
}

/** Rounds of sampling in a step, at most. */
export function roundsOf({
  dynamicSampling,
  maxResamples,
}: Pick<GrpoOptions, 'dynamicSampling' | 'maxResamples'>): number {
  return dynamicSampling === 'resample' ? 1 + maxResamples : 1;
}
