// What a surrogate objective is: the loss of a token from its importance ratio and advantage, as part of a kernel.
import type { Builder, F32, I32 } from '../compute/kernel/builder.js';
import { cispo } from './cispo.js';
import { clippedRatio } from './clipped-ratio.js';

export interface SurrogateInputs {
  readonly logprob: F32;
  /** pi / pi_old, of the token or of its whole completion. */
  readonly ratio: F32;
  readonly advantage: F32;
  /** What the ratio is held between, see `bounds`. */
  readonly low: F32;
  readonly high: F32;
  /** Upper limit of the ratio where the advantage is negative. */
  readonly delta: F32;
}

export interface SurrogateTerms {
  readonly loss: F32;
  /** The loss's derivative by the log-probability; of a completion's ratio, see importance-ratio.ts. */
  readonly slope: F32;
  /** Truth values: the ratio lies outside a bound that acts on it. */
  readonly clippedLow: I32;
  readonly clippedHigh: I32;
}

export interface Surrogate {
  /** What `low` and `high` are, from the options `epsilon` and `epsilonHigh`. */
  bounds(epsilon: number, epsilonHigh: number): readonly [low: number, high: number];
  terms(b: Builder, inputs: SurrogateInputs): SurrogateTerms;
}

export type SurrogateName = 'clip' | 'cispo';

export const surrogates: Readonly<Record<SurrogateName, Surrogate>> = { clip: clippedRatio, cispo };
