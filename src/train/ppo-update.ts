// The update half of a PPO step: several epochs of clipped updates of policy and critic over the step's completions.
import type { Critic } from '../model/critic.js';
import { trainingOperations } from '../model/operations.js';
import { moments } from '../objective/moments.js';
import type { ValueLossSums } from '../objective/value-loss.js';
import { permutation } from '../random.js';
import { mean } from '../reward/statistics.js';
import { type Optimizer, stepOrSkip } from './optimizer.js';
import { tokensOf } from './packing.js';
import type { Policy } from './policy.js';
import {
  accumulatePolicyGradient,
  type PolicyGradientOptions,
  type PolicyGradientSums,
  type ScoredSample,
} from './policy-gradient.js';
import type { PpoOptions } from './ppo-options.js';
import type { PpoBatch, PpoSample } from './ppo-rollout.js';
import { learningRateAt } from './schedule.js';
import {
  accumulateValueGradient,
  type ValuedSample,
  type ValueGradientOptions,
  valueLossOver,
} from './value-gradient.js';

/** What the losses need of a completion. */
export type LearnedSample = ScoredSample & ValuedSample;

/** Policy and critic, and what moves them. */
export interface ActorCritic {
  readonly policy: Policy;
  readonly critic: Critic;
  readonly optimizer: Pick<Optimizer, 'step' | 'clearGradients'>;
  readonly criticOptimizer: Pick<Optimizer, 'step' | 'clearGradients'>;
}

/** PPO's losses: the mean over the tokens of a minibatch, as TRL's over those of a micro-batch. */
export function objectiveOf(o: PpoOptions): PolicyGradientOptions & ValueGradientOptions {
  return {
    lossType: 'dapo',
    importanceSamplingLevel: 'token',
    temperature: o.temperature,
    epsilon: o.cliprange,
    epsilonHigh: o.cliprangeHigh ?? o.cliprange,
    delta: Number.POSITIVE_INFINITY,
    beta: 0,
    entropyCoef: o.entropyCoef,
    cliprangeValue: o.cliprangeValue,
    vfCoef: o.vfCoef,
    maxCompletionLength: o.maxCompletionLength,
    maskTruncatedCompletions: false,
    microBatchTokens: o.microBatchTokens,
    gradientCheckpointing: o.gradientCheckpointing,
  };
}

/** The losses of a minibatch; `policy` is null where only the critic learns. */
export interface PpoLosses {
  readonly policy: PolicyGradientSums | null;
  readonly value: ValueLossSums;
}

/** Adds the gradients of a minibatch's losses to those of policy and critic. */
export async function accumulateLosses(
  { policy: { llama }, critic }: Pick<ActorCritic, 'policy' | 'critic'>,
  samples: readonly LearnedSample[],
  objective: PolicyGradientOptions & ValueGradientOptions,
  policyLearns: boolean,
): Promise<PpoLosses> {
  if (critic.shared) {
    const value = valueLossOver(critic, samples, objective);
    const policy = await accumulatePolicyGradient(llama, null, samples, objective, value.add);
    return { policy, value: value.sums() };
  }
  const policy = policyLearns ? await accumulatePolicyGradient(llama, null, samples, objective) : null;
  return { policy, value: await accumulateValueGradient(critic, samples, objective) };
}

/** The clipped updates over a step's completions. */
export async function updateActorCritic(
  models: ActorCritic,
  batch: PpoBatch,
  o: PpoOptions,
  step: number,
  warn: (message: string) => void,
): Promise<{ metrics: Record<string, number>; trainedTokens: number; operations: number }> {
  const { optimizer, criticOptimizer } = models;
  const learningRate = learningRateAt(step - 1, o.steps, o);
  const criticRate = learningRateAt(step - 1, o.steps, { ...o, learningRate: o.criticLearningRate });
  const policyLearns = step > o.criticWarmupSteps;
  const objective = objectiveOf(o);
  const learned = batch.learned.map(toLearnedSample);
  const parts = Math.min(o.numMiniBatches, learned.length);
  const losses: PpoLosses[] = [];
  const norms: (number | null)[] = [];
  const criticNorms: (number | null)[] = [];
  let trainedTokens = 0;
  let operations = 0;
  const trained = [
    ...(policyLearns ? [models.policy.llama] : []),
    // Counted as if it had a head of logits too: less than a hundredth.
    ...(models.critic.shared ? [] : [models.critic.trunk]),
  ];
  const stepOf = (part: typeof optimizer, rate: number) =>
    stepOrSkip(part, rate, o.onNonFinite, (m) => warn(`step ${step}: ${m}`));
  optimizer.clearGradients();
  criticOptimizer.clearGradients();
  for (let epoch = 0; epoch < o.numPpoEpochs; epoch++) {
    const order = permutation(learned.length, o.seed, step * o.numPpoEpochs + epoch);
    for (let part = 0; part < parts; part++) {
      const start = Math.floor((learned.length * part) / parts);
      const end = Math.floor((learned.length * (part + 1)) / parts);
      const minibatch = Array.from(order.subarray(start, end), (i) => learned[i]);
      losses.push(await accumulateLosses(models, minibatch, objective, policyLearns));
      trainedTokens += minibatch.reduce((n, s) => n + s.promptIds.length + s.completionIds.length, 0);
      const lengths = minibatch.map(tokensOf);
      for (const { config } of trained) operations += trainingOperations(config, lengths);
      if (policyLearns) norms.push(stepOf(optimizer, learningRate));
      criticNorms.push(stepOf(criticOptimizer, criticRate));
    }
  }
  const rates = { lr: learningRate, critic_lr: criticRate };
  return {
    metrics: { ...lossMetrics(losses), ...normMetrics(norms, criticNorms), ...rates },
    trainedTokens,
    operations,
  };
}

function toLearnedSample({ completion, values, advantages, returns }: PpoSample): LearnedSample {
  return {
    promptIds: completion.promptIds,
    completionIds: completion.ids,
    oldLogprobs: completion.samplingLogprobs,
    advantage: advantages,
    truncated: completion.finishReason === 'length',
    values,
    returns,
  };
}

/** Means over the updates, as TRL's; nothing of the policy where it did not learn. */
function lossMetrics(losses: readonly PpoLosses[]): Record<string, number> {
  const policies = losses.flatMap(({ policy }) => policy ?? []);
  const over = <T>(list: readonly T[], of: (one: T) => number) => (list.length > 0 ? mean(list.map(of)) : 0);
  const value = {
    'loss/value_avg': over(losses, (l) => l.value.loss),
    'val/clipfrac_avg': over(losses, ({ value: v }) => v.clipped / Math.max(1, v.tokens)),
  };
  if (policies.length === 0) return value;
  const share = (of: (s: PolicyGradientSums) => number) =>
    over(policies, (s) => of(s) / Math.max(1, s.tokens));
  const ratios = policies.map((s) => s.ratio / Math.max(1, s.tokens));
  return {
    ...value,
    'loss/policy_avg': over(policies, (s) => s.policyLoss),
    'policy/approxkl_avg': share((s) => s.squaredDifference / 2),
    'policy/clipfrac_avg': share((s) => s.clippedLow + s.clippedHigh),
    'policy/entropy_avg': share((s) => s.entropy),
    'val/ratio': mean(ratios),
    'val/ratio_var': moments(ratios).std ** 2,
    // Over the first update, whose policy is the one that sampled.
    'sampling/sampling_logp_difference/mean': policies[0].logprobDifference / Math.max(1, policies[0].tokens),
  };
}

function normMetrics(
  norms: readonly (number | null)[],
  criticNorms: readonly (number | null)[],
): Record<string, number> {
  const taken = (list: readonly (number | null)[]) => list.filter((norm) => norm !== null);
  const meanOf = (list: readonly (number | null)[]) => (taken(list).length > 0 ? mean(taken(list)) : 0);
  return {
    grad_norm: meanOf(norms),
    critic_grad_norm: meanOf(criticNorms),
    skipped_updates: [...norms, ...criticNorms].filter((norm) => norm === null).length,
  };
}
