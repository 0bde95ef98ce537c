// The gradient of the policy loss over a minibatch of scored completions, in micro-batches of bounded size.
import { type Context, Tape } from '../compute/autograd.js';
import type { Tensor } from '../compute/tensor.js';
import { RetortError } from '../errors.js';
import type { Llama } from '../model/llama.js';
import { entropyBonus } from '../objective/entropy-bonus.js';
import { type ImportanceSamplingLevel, startsOf } from '../objective/importance-ratio.js';
import { type LossType, lossWeights } from '../objective/loss-weights.js';
import {
  addSums,
  noSums,
  type PolicyLossOptions,
  type PolicyLossSums,
  policyLoss,
} from '../objective/policy-loss.js';
import { type Continued, completionHidden, completionLogprobs, eachPass, tokenLogprobs } from './packing.js';

/** A completion with what the objective needs of it. */
export interface ScoredSample extends Continued {
  /** Of each id, under the policy that sampled it, at the sampling temperature. */
  readonly oldLogprobs: ArrayLike<number>;
  /** Of each id, under the reference; computed here from the reference model where absent. */
  readonly referenceLogprobs?: ArrayLike<number>;
  /** Of the whole completion, or of each id. */
  readonly advantage: number | ArrayLike<number>;
  /** Cut by the length limit. */
  readonly truncated: boolean;
}

export interface PolicyGradientOptions extends Omit<PolicyLossOptions, 'surrogate'> {
  readonly lossType: LossType;
  readonly importanceSamplingLevel: ImportanceSamplingLevel;
  /** Weight of the entropy bonus; 0 for none. */
  readonly entropyCoef: number;
  readonly temperature: number;
  /** What dr_grpo divides by. */
  readonly maxCompletionLength: number;
  readonly maskTruncatedCompletions: boolean;
  /** Most tokens, prompts included, in one forward and backward pass. */
  readonly microBatchTokens: number;
  /** Whether layers are computed again in backward instead of kept. */
  readonly gradientCheckpointing: boolean;
}

/** The sums of a minibatch; `loss` is the whole loss, the entropy bonus taken off. */
export interface PolicyGradientSums extends PolicyLossSums {
  /** The loss without the entropy bonus. */
  readonly policyLoss: number;
}

/** Given the hidden states [tokens, hiddenSize] before the tokens of a pass's completions. */
export type LossBesides<S extends ScoredSample> = (
  c: Context & { readonly tape: Tape },
  hidden: Tensor,
  pass: readonly S[],
) => void;

/**
 * Adds the loss's gradient over a minibatch to the model's gradients and gives the sums. The loss is normalised over
 * the whole minibatch, so it does not depend on how it is cut into micro-batches.
 * @param besides adds the gradient of a further loss of a pass's hidden states
 */
export async function accumulatePolicyGradient<S extends ScoredSample>(
  llama: Llama,
  reference: Llama | null,
  samples: readonly S[],
  o: PolicyGradientOptions,
  besides: LossBesides<S> = () => {},
): Promise<PolicyGradientSums> {
  const { device } = llama;
  const used = samples.filter((s) => s.completionIds.length > 0);
  const extents = used.map((s) => ({ length: s.completionIds.length, truncated: s.truncated }));
  const { perCompletion, countedTokens } = lossWeights(extents, o);
  const surrogate = o.lossType === 'cispo' ? 'cispo' : 'clip';
  const weightOf = new Map(used.map((s, i) => [s, perCompletion[i]]));
  let sums = noSums;
  await eachPass(llama, used, o.microBatchTokens, (pass) => {
    const perToken = (f: (s: S, i: number) => number) =>
      device.upload(
        pass.flatMap((s) => s.completionIds.map((_, i) => f(s, i))),
        'f32',
      );
    const old = perToken((s, i) => s.oldLogprobs[i]);
    const tape = new Tape(device, { checkpointing: o.gradientCheckpointing });
    const c = { device, tape };
    const hidden = completionHidden(c, llama, pass);
    const { logprob, entropy } = tokenLogprobs(c, llama, hidden, pass, o.temperature);
    const weight = perToken((s) => weightOf.get(s) as number);
    const lengths = pass.map((s) => s.completionIds.length);
    const inputs = {
      logprob,
      entropy,
      old,
      reference: o.beta === 0 ? old : referenceLogprobs(reference, pass, perToken, o.temperature),
      advantage: perToken((s, i) => (typeof s.advantage === 'number' ? s.advantage : s.advantage[i])),
      weight,
      starts: o.importanceSamplingLevel === 'sequence' ? device.upload(startsOf(lengths), 'i32') : null,
    };
    const into = tape.contribute(logprob).tensor;
    sums = addSums(sums, policyLoss(device, inputs, { ...o, surrogate }, into));
    if (o.entropyCoef !== 0)
      entropyBonus(device, weight, o.entropyCoef, countedTokens, tape.contribute(entropy).tensor);
    besides(c, hidden, pass);
    tape.backward();
  });
  const bonus = (o.entropyCoef * sums.entropy) / Math.max(1, countedTokens);
  return { ...sums, loss: sums.loss - bonus, policyLoss: sums.loss };
}

/** Under the reference model, or as given with the samples. */
function referenceLogprobs<S extends ScoredSample>(
  reference: Llama | null,
  pass: readonly S[],
  perToken: (f: (s: S, i: number) => number) => Tensor,
  temperature: number,
): Tensor {
  if (pass.every((s) => s.referenceLogprobs)) return perToken((s, i) => s.referenceLogprobs?.[i] as number);
  if (!reference)
    throw new RetortError('bad-input', 'beta is not 0, but there is no reference model to compare with');
  return completionLogprobs({ device: reference.device, tape: null }, reference, pass, temperature).logprob;
}
