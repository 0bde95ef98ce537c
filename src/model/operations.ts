// Floating-point operations by the count that papers use: what a run spends, whatever the machine and the kernels.
//
// Of N parameters that take part in products (all but an input embedding of its own), a token costs 2 N forward, and its
// attention 4 x layers x heads x headDim for each position before it; backward costs twice as much again. Kaplan et al.,
// arXiv 2001.08361, section 2.1.
import { type LlamaConfig, parameterCount } from './config.js';

/** Parameters that take part in a product for each token. */
export function workingParameters(config: LlamaConfig): number {
  const embedding = config.tieWordEmbeddings ? 0 : config.vocabSize * config.hiddenSize;
  return parameterCount(config) - embedding;
}

/** Operations of a forward pass over the tokens at positions `from` to `to` of a sequence: to generate or to score them. */
export function forwardOperations(config: LlamaConfig, from: number, to: number): number {
  const { numHiddenLayers: layers, numAttentionHeads: heads, headDim } = config;
  const attention = 2 * layers * heads * headDim * (to ** 2 - from ** 2);
  return 2 * workingParameters(config) * (to - from) + attention;
}

/** Operations of reading whole sequences of these lengths once. */
export function readingOperations(config: LlamaConfig, lengths: readonly number[]): number {
  return lengths.reduce((sum, n) => sum + forwardOperations(config, 0, n), 0);
}

/** Operations of training on whole sequences of these lengths: forward and backward. */
export function trainingOperations(config: LlamaConfig, lengths: readonly number[]): number {
  return 3 * readingOperations(config, lengths);
}

/** Operations of completing a prompt: the prompt once, then each completion. */
export function completionOperations(
  config: LlamaConfig,
  prompt: number,
  completions: readonly number[],
): number {
  const each = completions.map((length) => forwardOperations(config, prompt, prompt + length));
  return each.reduce((sum, one) => sum + one, forwardOperations(config, 0, prompt));
}

/** What a run has spent on the model that it trains. Evaluations are not counted. */
export interface Operations {
  readonly trained: number;
  readonly generated: number;
}

export const NO_OPERATIONS: Operations = { trained: 0, generated: 0 };

export function addOperations(a: Operations, b: Partial<Operations>): Operations {
  return { trained: a.trained + (b.trained ?? 0), generated: a.generated + (b.generated ?? 0) };
}
