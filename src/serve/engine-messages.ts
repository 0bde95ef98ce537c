// What the server and the thread of its engine say to each other. Everything here can be cloned between threads.
import type { SamplingDefaults } from '../checkpoint/stored-model.js';
import type { Dtype } from '../compute/kernel/bfloat16.js';
import type { FinishReason, SamplingOptions } from '../rollout/request.js';
import type { TopLogprobs } from '../rollout/steer.js';
import type { ControlSpec } from './control.js';

/** A model that the thread loads; `handle` names it in later messages, also when a newer one has taken its place. */
export interface LoadOrder {
  readonly handle: number;
  readonly dir: string;
}

/** A request for samples of one prompt. */
export interface WorkOrder extends SamplingOptions {
  readonly id: number;
  readonly handle: number;
  /** Whose turn it is is decided between lanes: one for each key. */
  readonly lane: string;
  readonly promptIds: readonly number[];
  readonly n: number;
  readonly maxTokens: number;
  readonly stop: readonly string[];
  readonly seed: number;
  /** Likeliest tokens to report beside each; null reports no log-probabilities. */
  readonly topLogprobs: number | null;
  /** What guides its samples, where anything does. */
  readonly control: ControlSpec | null;
}

export type ToEngine =
  | ({ readonly type: 'load' } & LoadOrder)
  | ({ readonly type: 'submit' } & WorkOrder)
  | { readonly type: 'cancel'; readonly id: number }
  /** No request for this model follows; its memory is freed once what runs on it has ended. */
  | { readonly type: 'retire'; readonly handle: number }
  | { readonly type: 'stop' };

/** The tokens that a sample got since the last news. */
export interface SampleTokens {
  readonly id: number;
  readonly sample: number;
  readonly ids: number[];
  /** Empty where none were asked for. */
  readonly logprobs: number[];
  readonly top: TopLogprobs[];
  /** Tokens of the prompt that the cache held. */
  readonly cached: number;
}

export interface SampleEnd {
  readonly id: number;
  readonly sample: number;
  readonly finishReason: FinishReason;
  /** The whole text where it was cut before a stop string, else null. */
  readonly cutText: string | null;
  readonly tokens: number;
}

export interface WorkFailure {
  readonly id: number;
  readonly message: string;
  /** Where it was thrown, where the fault is the server's; null where it is the request's. */
  readonly stack: string | null;
}

export interface EngineInfo {
  /** Sequences that run at once. */
  readonly maxSequences: number;
  /** Longest sequence, prompt included. */
  readonly maxLength: number;
  /** The chip's code that computes, and its lanes: outputs may differ in the last bits between these. */
  readonly target: string;
  /** Sampling where a request does not say: as the model's makers would. */
  readonly sampling: SamplingDefaults;
}

/** What happens in the engine now. */
export interface EngineLoad {
  readonly running: number;
  readonly waiting: number;
  readonly generatedTokens: number;
  /** Memory of the device in use: weights, keys and values, and what computing takes. */
  readonly bytes: number;
}

export type FromEngine =
  | { readonly type: 'loaded'; readonly handle: number; readonly info: EngineInfo }
  | { readonly type: 'load-failed'; readonly handle: number; readonly code: string; readonly message: string }
  | {
      readonly type: 'news';
      readonly tokens: readonly SampleTokens[];
      readonly ends: readonly SampleEnd[];
      readonly failed: readonly WorkFailure[];
      readonly load: EngineLoad;
    }
  | { readonly type: 'stopped' };

export interface EngineThreadOptions {
  readonly threads?: number;
  readonly maxSequences: number;
  readonly maxLength?: number;
  readonly maxKvBytes: number;
  readonly dtype?: Dtype;
  readonly kvCacheDtype?: Dtype;
}
