// The options of PPO with TRL's names in camelCase, their defaults and their checks.
import { z } from 'zod';
import { refuse } from '../errors.js';
import { type KlEstimator, klEstimators } from '../objective/token-rewards.js';
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
const share = z.number().min(0).max(1);

const rolloutFields = {
  steps: stepsField,
  batchSize: count.default(256).describe('completions of one step'),
  numGenerations: count.default(1).describe('completions of one problem'),
  ...samplingFields,
};

/** Options of the objective. */
const ppoFields = {
  numPpoEpochs: count.default(4).describe('passes over the completions of a step'),
  numMiniBatches: count.default(1).describe('optimizer updates that share a pass over the completions'),
  cliprange: z.number().min(0).lt(1).default(0.2).describe('clip of the probability ratio'),
  cliprangeHigh: z.number().min(0).optional().describe('upper clip; default: cliprange'),
  cliprangeValue: positive.default(0.2).describe('how far a value may move from that of the rollout'),
  vfCoef: positive.default(0.1).describe('weight of the value loss'),
  gamma: share.default(1).describe('discount of later rewards'),
  lam: share
    .default(1)
    .describe('lambda of advantage estimation: 1 trusts the rewards that follow, 0 the next value'),
  klCoef: z
    .number()
    .min(0)
    .default(0)
    .describe('what a token pays for its KL divergence from the reference; 0: there is no reference'),
  klEstimator: z
    .enum(klEstimators as [KlEstimator, ...KlEstimator[]])
    .default('k1')
    .describe('estimator of the KL divergence'),
  whitenRewards: z.boolean().default(false).describe('give the rewards of tokens a standard deviation of 1'),
  whitenAdvantages: z.boolean().default(true).describe('give advantages mean 0 and standard deviation 1'),
  missingEosPenalty: positive
    .optional()
    .describe('taken from the score of a completion that is cut by the length limit'),
  entropyCoef: z
    .number()
    .min(0)
    .default(0)
    .describe('weight of the mean entropy of tokens, a bonus for exploring'),
  criticModel: z
    .string()
    .optional()
    .describe(
      "folder of the model that the critic begins with, or of a PPO run's checkpoint; default: the policy",
    ),
  criticLearningRate: positive
    .max(1)
    .optional()
    .describe("the critic's peak learning rate; default: learningRate"),
  criticWarmupSteps: z
    .number()
    .int()
    .min(0)
    .default(0)
    .describe('steps in which the critic learns and the policy does not yet'),
  sharedTrunk: z
    .boolean()
    .default(false)
    .describe('the critic is one more output of the policy, instead of a model of its own'),
};

/** The options of `retort ppo`; plain JSON, as they stand in config.json. */
export const ppoOptions = z.strictObject({
  ...taskFields,
  ...rolloutFields,
  ...ppoFields,
  ...scoringFields,
  ...passFields,
  ...optimizerFields,
  learningRate: optimizerFields.learningRate.default(1e-4),
  ...evaluationFields,
  ...runFields,
  ...recordFields,
});
export type PpoOptions = z.output<typeof ppoOptions> & {
  readonly maxCompletionLength: number;
  readonly criticLearningRate: number;
};

/**
 * Checks options against each other and fills what depends on the model.
 * @throws RetortError bad-input naming the option, its value and the remedy
 */
export function settlePpoOptions(given: unknown): PpoOptions {
  const parsed = parseOptions('ppo', ppoOptions, given);
  const { batchSize, numGenerations, numMiniBatches, steps } = parsed;
  for (const [name, of] of Object.entries({ numGenerations, numMiniBatches })) {
    if (batchSize % of === 0) continue;
    const near = Math.max(1, Math.round(batchSize / of)) * of;
    throw refuse(
      'bad-input',
      `batchSize with ${name} ${of}`,
      batchSize,
      `it must be a multiple: ${near}, say`,
    );
  }
  if (parsed.criticWarmupSteps >= steps)
    throw refuse(
      'bad-input',
      `criticWarmupSteps of ${steps} steps`,
      parsed.criticWarmupSteps,
      'give less, or more steps: the policy would learn nothing',
    );
  if (parsed.sharedTrunk) checkShared(parsed);
  return {
    ...parsed,
    maxCompletionLength: completionLengthFor(parsed),
    criticLearningRate: parsed.criticLearningRate ?? parsed.learningRate,
  };
}

function checkShared({ criticModel, criticWarmupSteps }: z.output<typeof ppoOptions>): void {
  if (criticModel !== undefined)
    throw refuse('bad-input', 'criticModel with sharedTrunk', criticModel, 'leave one of both out');
  if (criticWarmupSteps > 0)
    throw refuse(
      'bad-input',
      'criticWarmupSteps with sharedTrunk',
      criticWarmupSteps,
      'leave it out: a critic that learns alone would change the policy',
    );
}
