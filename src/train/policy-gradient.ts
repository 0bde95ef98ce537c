// The gradient of the policy loss over a minibatch of scored completions, in micro-batches of bounded size.
import { setImmediate } from 'node:timers/promises';
import { type Context, Tape } from '../compute/autograd.js';
import { tokenLogprob } from '../compute/op/token-logprob/token-logprob.js';
import type { Tensor } from '../compute/tensor.js';
import { RetortError } from '../errors.js';
import { type Llama, packedLogits, packSequences } from '../model/llama.js';
import { type LossType, lossWeights } from '../objective/loss-weights.js';
import {
  addSums,
  noSums,
  type PolicyLossOptions,
  type PolicyLossSums,
  policyLoss,
} from '../objective/policy-loss.js';

/** A completion with what the objective needs of it. */
export interface ScoredSample {
  readonly promptIds: readonly number[];
  readonly ids: readonly number[];
  /** Of each id, under the policy that sampled it, at the sampling temperature. */
  readonly oldLogprobs: ArrayLike<number>;
  /** Of each id, under the reference; computed here from the reference model where absent. */
  readonly referenceLogprobs?: ArrayLike<number>;
  readonly advantage: number;
  /** Cut by the length limit. */
  readonly truncated: boolean;
}

export interface PolicyGradientOptions extends PolicyLossOptions {
  readonly lossType: LossType;
  readonly temperature: number;
  /** What dr_grpo divides by. */
  readonly maxCompletionLength: number;
  readonly maskTruncatedCompletions: boolean;
  /** Most tokens, prompts included, in one forward and backward pass. */
  readonly microBatchTokens: number;
}

/** Rows of logits that predict a sample's completion, in a batch whose sequence starts at `start`. */
function targetRows(start: number, promptLength: number, length: number): number[] {
  return Array.from({ length }, (_, i) => start + promptLength - 1 + i);
}

/** Log-probabilities and entropies of all completions of a micro-batch, one after another. */
function logprobsOf(
  c: Context,
  llama: Llama,
  samples: readonly ScoredSample[],
  temperature: number,
): { logprob: Tensor; entropy: Tensor } {
  // The last token predicts nothing that is needed.
  const sequences = samples.map((s) => [...s.promptIds, ...s.ids.slice(0, -1)]);
  const batch = packSequences(llama, sequences);
  const rows: number[] = [];
  let start = 0;
  samples.forEach((s, i) => {
    rows.push(...targetRows(start, s.promptIds.length, s.ids.length));
    start += sequences[i].length;
  });
  const tokens = c.device.upload(
    samples.flatMap((s) => [...s.ids]),
    'i32',
  );
  return tokenLogprob(c, packedLogits(c, llama, batch, rows), tokens, temperature);
}

/** Cuts samples into runs of at most `most` tokens, in order; a longer sample stands alone. */
export function microBatches<T extends { promptIds: readonly number[]; ids: readonly number[] }>(
  samples: readonly T[],
  most: number,
): T[][] {
  const batches: T[][] = [];
  let tokens = Number.POSITIVE_INFINITY;
  for (const s of samples) {
    const size = s.promptIds.length + s.ids.length;
    if (tokens + size > most) {
      batches.push([]);
      tokens = 0;
    }
    batches[batches.length - 1].push(s);
    tokens += size;
  }
  return batches;
}

/**
 * Adds the loss's gradient over a minibatch to the model's gradients and gives the sums. The loss is normalised over
 * the whole minibatch, so it does not depend on how it is cut into micro-batches.
 */
export async function accumulatePolicyGradient(
  llama: Llama,
  reference: Llama | null,
  samples: readonly ScoredSample[],
  o: PolicyGradientOptions,
): Promise<PolicyLossSums> {
  const { device } = llama;
  const used = samples.filter((s) => s.ids.length > 0);
  const extents = used.map((s) => ({ length: s.ids.length, truncated: s.truncated }));
  const { perCompletion } = lossWeights(extents, o);
  const weightOf = new Map(used.map((s, i) => [s, perCompletion[i]]));
  let sums = noSums;
  for (const batch of microBatches(used, o.microBatchTokens)) {
    const mark = device.mark();
    const perToken = (f: (s: ScoredSample, i: number) => number) =>
      device.upload(
        batch.flatMap((s) => s.ids.map((_, i) => f(s, i))),
        'f32',
      );
    const old = perToken((s, i) => s.oldLogprobs[i]);
    const referenceLogprob =
      o.beta === 0
        ? old
        : batch.every((s) => s.referenceLogprobs)
          ? perToken((s, i) => s.referenceLogprobs?.[i] as number)
          : logprobsOf({ device, tape: null }, needed(reference), batch, o.temperature).logprob;
    const tape = new Tape(device);
    const { logprob, entropy } = logprobsOf({ device, tape }, llama, batch, o.temperature);
    const inputs = {
      logprob,
      entropy,
      old,
      reference: referenceLogprob,
      advantage: perToken((s) => s.advantage),
      weight: perToken((s) => weightOf.get(s) as number),
    };
    sums = addSums(sums, policyLoss(device, inputs, o, tape.contribute(logprob).tensor));
    tape.backward();
    device.rewind(mark);
    await setImmediate();
  }
  return sums;
}

function needed(reference: Llama | null): Llama {
  if (!reference)
    throw new RetortError('bad-input', 'beta is not 0, but there is no reference model to compare with');
  return reference;
}
