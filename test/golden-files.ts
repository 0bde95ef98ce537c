// Reads the golden files: the index, and safetensors by a few lines of its own, so that no reader under test is trusted.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { LlamaConfig } from '../src/model/config.js';
import type { AdvantageEstimator, ScaleRewards } from '../src/objective/advantages.js';
import type { ImportanceSamplingLevel } from '../src/objective/importance-ratio.js';
import type { LossType } from '../src/objective/loss-weights.js';
import type { KlEstimator } from '../src/objective/token-rewards.js';

export interface GoldenModel {
  readonly config: LlamaConfig;
  readonly sequences: readonly (readonly number[])[];
  readonly loss: number;
}

export interface GoldenAdamW {
  readonly learningRate: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  readonly maxGradNorm: number;
  readonly steps: number;
}

export interface GoldenRollout {
  readonly prompt: readonly number[];
  readonly completion: readonly number[];
  readonly truncated: boolean;
}

export interface GoldenGrpoCase {
  readonly name: string;
  readonly lossType: LossType;
  readonly importanceSamplingLevel: ImportanceSamplingLevel;
  readonly epsilon: number;
  readonly epsilonHigh: number;
  readonly beta: number;
  readonly delta: number | null;
  readonly entropyCoef: number;
  readonly maskTruncatedCompletions: boolean;
  readonly gradientAccumulationSteps: number;
  readonly numItemsInBatch: number;
  readonly loss: number;
  readonly microBatchLosses: readonly number[];
  /** TRL's kl, entropy and clip_ratio/*_mean of each micro-batch. */
  readonly microBatchMetrics: readonly Readonly<Record<string, number>>[];
  readonly gradNorm: number;
  /** Whether `NAME:after:` parameters are there. */
  readonly hasStep: boolean;
  /** The rewards that its own `NAME:advantages` come from; null where they are those of all cases. */
  readonly rewarded: {
    readonly scores: readonly number[];
    readonly overlong: { readonly maxTokens: number; readonly buffer: number } | null;
    readonly numGenerations: number;
    readonly scaleRewards: ScaleRewards;
    readonly advantageEstimator: AdvantageEstimator;
  } | null;
}

export interface GoldenGrpo {
  readonly options: {
    readonly temperature: number;
    readonly maxCompletionLength: number;
  };
  readonly optimizer: GoldenAdamW;
  readonly rollouts: readonly GoldenRollout[];
  readonly cases: readonly GoldenGrpoCase[];
}

export interface GoldenAdvantages {
  readonly name: string;
  readonly numGenerations: number;
  readonly weights: readonly number[];
  readonly rewards: readonly (readonly (number | null)[])[];
  readonly scaled: readonly {
    readonly scaleRewards: ScaleRewards;
    readonly advantageEstimator: AdvantageEstimator;
    readonly advantages: readonly number[];
    readonly sums: readonly (number | null)[];
    readonly reward: number;
    readonly reward_std: number;
    readonly frac_reward_zero_std: number;
    readonly rewards: readonly { readonly mean: number; readonly std: number }[];
  }[];
}

/** Golden models with a file of their own: parameters, gradients and logits. */
export const goldenModels = ['a', 'b', 'llama3', 'qwen2', 'qwen3'] as const;

export interface GoldenGae {
  readonly gamma: number;
  readonly lam: number;
  readonly rewards: readonly number[];
  readonly values: readonly number[];
  readonly advantages: readonly number[];
  readonly returns: readonly number[];
}

export interface GoldenPpoCase {
  readonly name: string;
  readonly klCoef: number;
  readonly klEstimator: KlEstimator;
  readonly whitenRewards: boolean;
  readonly whitenAdvantages: boolean;
  readonly missingEosPenalty: number;
  readonly gamma: number;
  readonly lam: number;
  readonly entropyCoef: number;
  readonly sharedTrunk: boolean;
  readonly updates: number;
  /** Of each update, by TRL's names, and the whole loss. */
  readonly metrics: readonly Readonly<Record<string, number>>[];
  /** Of each update, of policy and critic. */
  readonly gradNorms: readonly (readonly [policy: number, critic: number])[];
  readonly kl: number;
}

export interface GoldenPpo {
  readonly options: {
    readonly temperature: number;
    readonly cliprange: number;
    readonly cliprangeValue: number;
    readonly vfCoef: number;
    readonly maxCompletionLength: number;
  };
  readonly optimizer: GoldenAdamW;
  readonly criticConfig: LlamaConfig;
  readonly rollouts: readonly GoldenRollout[];
  /** Of each rollout, before the penalty for a missing end. */
  readonly scores: readonly number[];
  readonly cases: readonly GoldenPpoCase[];
}

export interface GoldenDistill {
  readonly teacherConfig: LlamaConfig;
  readonly sequences: readonly {
    readonly prompt: readonly number[];
    readonly completion: readonly number[];
  }[];
  readonly cases: readonly {
    readonly name: string;
    readonly beta: number;
    readonly temperature: number;
    readonly top: number | null;
    readonly loss: number;
  }[];
}

export interface GoldenIndex extends Readonly<Record<(typeof goldenModels)[number], GoldenModel>> {
  readonly adamw: {
    readonly options: GoldenAdamW;
    readonly losses: readonly number[];
    readonly gradNorms: readonly number[];
  };
  readonly grpo: GoldenGrpo;
  readonly advantages: readonly GoldenAdvantages[];
  readonly gae: readonly GoldenGae[];
  readonly ppo: GoldenPpo;
  readonly distill: GoldenDistill;
}

export interface GoldenTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

// From dist/test to the sources.
const folder = new URL('../../test/golden/', import.meta.url);

export function readIndex(): GoldenIndex {
  return JSON.parse(readFileSync(new URL('golden.json', folder), 'utf8')) as GoldenIndex;
}

/** Every float32 tensor of a golden file by name. */
export function readTensors(file: string): Map<string, GoldenTensor> {
  const bytes = readFileSync(new URL(file, folder));
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString('utf8', 8, start)) as Record<
    string,
    { shape: number[]; data_offsets: [number, number] }
  >;
  return new Map(
    Object.entries(header).map(([name, { shape, data_offsets }]) => {
      const [from, to] = data_offsets;
      return [
        name,
        { shape, data: new Float32Array(new Uint8Array(bytes.subarray(start + from, start + to)).buffer) },
      ];
    }),
  );
}

/** The tensor of that name; a missing one is an error, never an empty comparison. */
export function tensor(tensors: Map<string, GoldenTensor>, name: string): GoldenTensor {
  const found = tensors.get(name);
  assert.ok(found, `no golden tensor named ${name}`);
  return found;
}

/** Name of the tensor that holds a case's advantages. */
export function advantagesOf({ name, rewarded }: GoldenGrpoCase): string {
  return rewarded ? `${name}:advantages` : 'advantages';
}

/** Norm of the difference over norm of the expected; NaN never passes. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assert.equal(actual.length, expected.length);
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i] - expected[i]) ** 2;
    norm += expected[i] ** 2;
  }
  return norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
}

/** Asserts a relative error of at most `limit`, by default the 1e-4 of the ladder of trust. */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  what: string,
  limit = 1e-4,
): void {
  const error = relativeError(actual, expected);
  assert.ok(error <= limit, `${what}: relative error ${error}, at most ${limit}`);
}
