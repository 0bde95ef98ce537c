// The objective that the options of a GRPO run stand for, and which of them go together.
import type { z } from 'zod';
import { refuse } from '../errors.js';
import { checkScaling } from '../objective/advantages.js';
import type { ImportanceSamplingLevel } from '../objective/importance-ratio.js';
import type { LossType } from '../objective/loss-weights.js';
import type { GrpoOptions, grpoOptions } from './grpo-options.js';
import type { PolicyGradientOptions } from './policy-gradient.js';

export const EPSILON = 0.2;
/** The greatest importance weight of CISPO, as ScaleRL (arXiv 2510.13786) and TRL recommend. */
export const CISPO_EPSILON_HIGH = 5;

export function objectiveOf(o: GrpoOptions): PolicyGradientOptions {
  return {
    lossType: o.lossType as LossType,
    importanceSamplingLevel: o.importanceSamplingLevel as ImportanceSamplingLevel,
    temperature: o.temperature,
    epsilon: o.epsilon,
    epsilonHigh: o.epsilonHigh ?? (o.lossType === 'cispo' ? CISPO_EPSILON_HIGH : o.epsilon),
    delta: o.delta ?? Number.POSITIVE_INFINITY,
    beta: o.beta,
    entropyCoef: o.entropyCoef,
    maxCompletionLength: o.maxCompletionLength,
    maskTruncatedCompletions: o.maskTruncatedCompletions,
    microBatchTokens: o.microBatchTokens,
    gradientCheckpointing: o.gradientCheckpointing,
  };
}

type Objective = Pick<
  z.output<typeof grpoOptions>,
  'lossType' | 'epsilon' | 'epsilonHigh' | 'delta' | 'advantageEstimator' | 'scaleRewards'
>;

/** @throws RetortError bad-input for options of the objective that do not go together */
export function checkObjective(o: Objective): void {
  checkScaling(o.advantageEstimator, o.scaleRewards ?? 'none');
  if (o.lossType === 'cispo') checkCispo(o);
}

function checkCispo({ epsilon, epsilonHigh, delta }: Objective): void {
  if (delta !== undefined)
    throw refuse(
      'bad-input',
      'delta with lossType cispo',
      delta,
      'leave it out: cispo has no second limit, epsilonHigh holds every ratio down, whatever the advantage',
    );
  if (epsilon !== EPSILON)
    throw refuse(
      'bad-input',
      'epsilon with lossType cispo',
      epsilon,
      'leave it out: cispo clips from above only, by epsilonHigh',
    );
  if (epsilonHigh !== undefined && epsilonHigh < 1)
    throw refuse(
      'bad-input',
      'epsilonHigh with lossType cispo',
      epsilonHigh,
      `give 1 or more (${CISPO_EPSILON_HIGH} is usual): with cispo it is the greatest ratio itself, not how far it may rise above 1`,
    );
}

/** What is allowed but rarely meant, in words. */
export function cautionsOf(o: Pick<GrpoOptions, 'lossType' | 'importanceSamplingLevel'>): string[] {
  if (o.importanceSamplingLevel !== 'sequence' || o.lossType === 'grpo') return [];
  return [
    `importanceSamplingLevel sequence with lossType ${o.lossType} weighs a completion by its length; GSPO's own objective is lossType grpo`,
  ];
}
