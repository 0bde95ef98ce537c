// The loss types of GRPO as weights: all but cispo are the same per-token loss, summed with other weights.
//   grpo     DeepSeekMath eq. 3: mean over completions of each completion's mean over tokens
//   bnpo     mean over the tokens of the micro-batch
//   dr_grpo  Dr. GRPO: sum over tokens, divided by completions x maxCompletionLength
//   dapo     DAPO eq. 8: mean over the tokens of the whole batch, whatever its micro-batches
//   cispo    MiniMax-M1 eq. 4: the same mean, of another per-token loss (cispo.ts)
import { refuse } from '../errors.js';

export type LossType = 'grpo' | 'bnpo' | 'dr_grpo' | 'dapo' | 'cispo';

export const lossTypes: readonly LossType[] = ['grpo', 'bnpo', 'dr_grpo', 'dapo', 'cispo'];

/** What the weights need to know of a completion. */
export interface CompletionExtent {
  /** Tokens of the completion, end of sequence included. */
  readonly length: number;
  /** It ran into the length limit and has no end of sequence. */
  readonly truncated: boolean;
}

export interface LossWeightOptions {
  readonly lossType: LossType;
  /** Longest completion in tokens; what `dr_grpo` divides by. */
  readonly maxCompletionLength: number;
  /**
   * Truncated completions give no loss. As in TRL their tokens leave the token counts of `bnpo`, `dapo` and `cispo`,
   * but they still count as completions in `grpo` and `dr_grpo`.
   */
  readonly maskTruncatedCompletions?: boolean;
  /** Micro-batches of the optimizer step, 1 by default; their gradients are added up. */
  readonly gradientAccumulationSteps?: number;
  /**
   * Tokens that count in the whole optimizer step (`countItems` over all its micro-batches); what `dapo` and `cispo` divide by.
   * By default those of this micro-batch, which is right only when there is one.
   */
  readonly numItemsInBatch?: number;
}

export interface LossWeights {
  /** [completions]: what each token's loss is multiplied with; the loss is the sum of the products. */
  readonly perCompletion: Float64Array;
  /** Tokens that count: the denominator of TRL's `kl`, `entropy` and `clip_ratio/*_mean`. */
  readonly countedTokens: number;
}

/** Number of tokens that count in the loss. */
export function countItems(
  completions: readonly CompletionExtent[],
  maskTruncatedCompletions = false,
): number {
  let count = 0;
  for (const completion of completions)
    if (!(maskTruncatedCompletions && completion.truncated)) count += completion.length;
  return count;
}

/**
 * The weight of each token's loss in a micro-batch, so that the weighted sum is TRL's loss of that type. All tokens of
 * a completion have the same weight. Training passes whole minibatches, however memory cuts them into passes; TRL's
 * `bnpo` divides by the tokens of one device's batch instead.
 * @throws RetortError `bad-input` for an unknown type, lengths outside 0 to maxCompletionLength, or counts that cannot be.
 * @example lossWeights([{ length: 4, truncated: false }], { lossType: 'grpo', maxCompletionLength: 8 })
 *   .perCompletion // [0.25]
 */
export function lossWeights(
  completions: readonly CompletionExtent[],
  options: LossWeightOptions,
): LossWeights {
  const { maskTruncatedCompletions = false, gradientAccumulationSteps = 1 } = options;
  const countedTokens = countItems(completions, maskTruncatedCompletions);
  check(completions, options, countedTokens);
  const perCompletion = Float64Array.from(completions, ({ length, truncated }) => {
    if (length === 0 || (maskTruncatedCompletions && truncated)) return 0;
    switch (options.lossType) {
      case 'grpo':
        return 1 / (completions.length * length * gradientAccumulationSteps);
      case 'bnpo':
        return 1 / (countedTokens * gradientAccumulationSteps);
      case 'dr_grpo':
        return 1 / (completions.length * options.maxCompletionLength * gradientAccumulationSteps);
      case 'dapo':
      case 'cispo':
        return 1 / (options.numItemsInBatch ?? countedTokens);
    }
  });
  return { perCompletion, countedTokens };
}

/** Per-completion values repeated for each token, [tokens], completion after completion. */
export function perToken(
  perCompletion: ArrayLike<number>,
  completions: readonly CompletionExtent[],
): Float32Array {
  const values = new Float32Array(countItems(completions));
  let at = 0;
  completions.forEach(({ length }, i) => {
    values.fill(perCompletion[i], at, at + length);
    at += length;
  });
  return values;
}

function check(
  completions: readonly CompletionExtent[],
  options: LossWeightOptions,
  countedTokens: number,
): void {
  const { lossType, maxCompletionLength, gradientAccumulationSteps, numItemsInBatch } = options;
  if (!lossTypes.includes(lossType))
    throw refuse('bad-input', 'lossType', lossType, `it must be one of ${lossTypes.join(', ')}`);
  checkWhole('maxCompletionLength', maxCompletionLength, 1);
  checkWhole('gradientAccumulationSteps', gradientAccumulationSteps ?? 1, 1);
  checkWhole('numItemsInBatch', numItemsInBatch ?? countedTokens, countedTokens);
  const overBatch = lossType === 'dapo' || lossType === 'cispo';
  if (numItemsInBatch === undefined && overBatch && (gradientAccumulationSteps ?? 1) > 1)
    throw refuse(
      'bad-input',
      'numItemsInBatch',
      numItemsInBatch,
      `${lossType} with several micro-batches needs the tokens of all of them`,
    );
  for (const { length } of completions) checkWhole('length of a completion', length, 0, maxCompletionLength);
}

function checkWhole(what: string, value: number, least: number, most = Number.MAX_SAFE_INTEGER): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
  throw refuse('bad-input', what, value, `it must be a whole number ${range}`);
}
