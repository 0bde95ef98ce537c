// Rehearsals: a run's own steps, played through on a device that counts, or in smaller on the real one.
import type { Device } from '../../compute/device/device.js';
import { DryDevice } from '../../compute/device/dry.js';
import type { MemoryKind } from '../../compute/device/memory.js';
import { RetortError } from '../../errors.js';
import type { LlamaConfig } from '../../model/config.js';
import {
  createLlama,
  type Llama,
  type ModelOptions,
  type Trainable,
  touchWeights,
} from '../../model/llama.js';

export type Phase = 'evaluation' | 'rollout' | 'update';

/** How much of a run is played. */
export interface Extent {
  /** From 1. */
  readonly steps: number;
  /** Whether the run's evaluations are played too, once. */
  readonly evaluate: boolean;
  readonly signal?: AbortSignal;
}

export interface Rehearsal {
  /**
   * Plays the run: allocates what it allocates, launches what it launches, and gives all back. On a dry device nothing
   * is computed; on another one the weights are no model's, and neither are the completions. No reward is asked.
   * @param done told when a part of the run is over
   */
  play(device: Device, extent: Extent, done: (phase: Phase, step: number) => void): Promise<void>;
  /** The same with less to do, for measuring; null where there is no less. */
  smaller(): Rehearsal | null;
  /** Ways to do the same with less memory of a kind, those first that cost least: options to change. */
  lighter(kind: MemoryKind): readonly ChangedOptions[];
  /** The same with other options. */
  with(options: ChangedOptions): Rehearsal;
}

export type ChangedOptions = Readonly<Record<string, number | boolean>>;

/** A model to play with: it never ends a sequence by itself. */
export function stageModel(device: Device, config: LlamaConfig, options: ModelOptions): Llama {
  const llama = createLlama(device, { ...config, eosTokenIds: [] }, options);
  fillStaged(llama);
  return llama;
}

/** Weights to play with: small and all the same, so that nothing overflows and no number is so small that the processor takes longer for it. */
export function fillStaged(trained: Trainable): void {
  if (trained.device instanceof DryDevice) return;
  for (const { value, decay } of trained.groups) trained.device.fill(value, decay ? 0.01 : 1);
  touchWeights(trained);
}

/** @throws RetortError interrupted where the signal is aborted */
export function stopIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new RetortError('interrupted', 'planning was interrupted');
}

/** A half, rounded up, but not below `least`; null where there is no less. */
export function halved(value: number, least: number): number | null {
  const half = Math.max(least, Math.ceil(value / 2));
  return half < value ? half : null;
}
