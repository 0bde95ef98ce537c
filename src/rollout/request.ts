// What is asked of the rollout engine and what it gives, and the checks before anything runs.
import { refuse } from '../errors.js';
import type { LlamaConfig } from '../model/config.js';
import { checkId } from '../model/llama.js';
import type { TokenControl } from './steer.js';

export interface SamplingOptions {
  /** 0 is greedy. Default 1. */
  readonly temperature?: number;
  /** Keep the k likeliest tokens; 0 keeps all. Default 0. */
  readonly topK?: number;
  /** Keep the fewest tokens whose probability reaches p. Default 1. */
  readonly topP?: number;
  /** Keep tokens at least this share as likely as the likeliest. Default 0. */
  readonly minP?: number;
}

/** Of options that say more, how tokens are drawn. */
export function samplingOf({ temperature, topK, topP, minP }: SamplingOptions): SamplingOptions {
  return { temperature, topK, topP, minP };
}

/** Samples of one prompt. Its randomness is keyed by (seed, problem, sample, position), whatever the batch. */
export interface GenerateRequest extends SamplingOptions {
  readonly promptIds: readonly number[];
  /** Samples wanted. Default 1. */
  readonly n?: number;
  /** Most tokens of a completion, the end of sequence included. */
  readonly maxTokens: number;
  readonly stop?: readonly string[];
  /** Whether special tokens are left out of the text, also where stop strings are looked for. Default false. */
  readonly skipSpecialTokens?: boolean;
  /** So many of the likeliest tokens are told beside each token. Default 0. */
  readonly topLogprobs?: number;
  /** What guides each sample; not asked again for a sample that has begun. */
  readonly control?: (sample: number) => TokenControl;
  readonly seed: number;
  /** Key of the problem among those of a seed. */
  readonly problem: number;
  /** Key of the first sample. Default 0. */
  readonly firstSample?: number;
}

/** Tokens of a sample at most, prompt included. */
export function limitOf(r: GenerateRequest, maxLength: number): number {
  return Math.min(maxLength, r.promptIds.length + r.maxTokens);
}

/** `dead-end`: the control left no token possible. */
export type FinishReason = 'stop' | 'length' | 'dead-end';

export interface Completion {
  /** Number of the request, in the order given. */
  readonly request: number;
  /** Number of the sample within its request. */
  readonly sample: number;
  readonly promptIds: readonly number[];
  /** The end of sequence included, where it was reached. */
  readonly ids: readonly number[];
  /** The text without end of sequence, cut before a stop string. Special tokens such as <think> are in it. */
  readonly text: string;
  /** Of each id, under the model as it is. */
  readonly logprobs: readonly number[];
  /** Of each id, at the sampling temperature before truncation: what the objectives use. */
  readonly samplingLogprobs: readonly number[];
  /** `length`: cut by maxTokens or the context. */
  readonly finishReason: FinishReason;
  /** The stop string that the text was cut before. */
  readonly stopString: string | null;
  /** Tokens of the prompt that were not computed, but found from earlier sequences. */
  readonly cachedTokens: number;
}

/** @throws RetortError bad-input naming the request's field that is wrong */
export function checkRequest(r: GenerateRequest, config: LlamaConfig, maxLength: number): void {
  const need = (what: string, value: number, holds: boolean, remedy: string) => {
    if (!holds) throw refuse('bad-input', what, value, remedy);
  };
  const { temperature = 1, topK = 0, topP = 1, minP = 0, n = 1 } = r;
  need('temperature', temperature, temperature >= 0 && temperature <= 100, 'give 0 (greedy) to 100');
  need('top-k', topK, Number.isInteger(topK) && topK >= 0, 'give a whole number, 0 keeps all');
  need('top-p', topP, topP > 0 && topP <= 1, 'give a number above 0, at most 1');
  need('min-p', minP, minP >= 0 && minP <= 1, 'give a number from 0 to 1');
  need('number of samples', n, Number.isInteger(n) && n >= 1, 'give a whole number of at least 1');
  need(
    'max tokens',
    r.maxTokens,
    Number.isInteger(r.maxTokens) && r.maxTokens >= 1,
    'give a whole number of at least 1',
  );
  const { length } = r.promptIds;
  need(
    'top log-probabilities',
    r.topLogprobs ?? 0,
    Number.isInteger(r.topLogprobs ?? 0) && (r.topLogprobs ?? 0) >= 0,
    'give a whole number',
  );
  need('tokens of the prompt', length, length >= 1, 'the prompt must hold at least one token');
  need(
    'tokens of the prompt',
    length,
    length < maxLength,
    `the context ends at ${maxLength}: shorten the prompt or use a model with a longer context`,
  );
  for (const id of r.promptIds) checkId(id, config);
  if (r.stop?.some((s) => s === ''))
    throw refuse('bad-input', 'stop string', '', 'an empty one would stop at once');
}
