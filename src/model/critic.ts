// A critic: a model of the Llama family whose head gives one number, the value of what was read so far.
//
// It has a trunk of its own, or shares that of a policy. The head is `score.weight` [1, hiddenSize], as in Hugging Face's
// LlamaForSequenceClassification of one label; it begins at zero, so every value begins at 0. A trunk has no head of
// logits: with embeddings that are not tied, a critic is smaller than the policy by that.
import type { Context, Parameter } from '../compute/autograd.js';
import type { Device } from '../compute/device/device.js';
import { linear } from '../compute/op/linear/linear.js';
import type { Tensor } from '../compute/tensor.js';
import type { LlamaConfig } from './config.js';
import { createLlama, freeLlama, type Llama, type Trainable, touchWeights } from './llama.js';

export const SCORE = 'score.weight';

export interface Critic extends Trainable {
  readonly trunk: Llama;
  /** Whether the trunk is the policy's: then groups, operands and parameters are the head's alone. */
  readonly shared: boolean;
  /** [1, hiddenSize] */
  readonly score: Parameter;
}

/** What a critic's trunk is, of a model's sizes: it has no head of logits. */
export function trunkConfig(config: LlamaConfig): LlamaConfig {
  return { ...config, tieWordEmbeddings: true };
}

/** Allocates a critic with a trunk of its own, whose weights are zero until they are copied or read. */
export function createCritic(device: Device, config: LlamaConfig): Critic {
  return withHead(createLlama(device, trunkConfig(config), { trainable: true }), false);
}

/** A critic on a policy's trunk. */
export function shareTrunk(policy: Llama): Critic {
  return withHead(policy, true);
}

function withHead(trunk: Llama, shared: boolean): Critic {
  const { device, config } = trunk;
  const shape = [1, config.hiddenSize];
  const value = device.tensor('parameters', shape);
  const gradient = device.tensor('gradients', shape);
  for (const t of [value, gradient]) device.fill(t, 0);
  const score: Parameter = { name: SCORE, value, gradient, version: 0, packed: new Map() };
  const head = { groups: [{ decay: true, value, gradient }], operands: [score], parameters: [score] };
  if (shared) return { device, trunk, shared, score, ...head };
  return {
    device,
    trunk,
    shared,
    score,
    groups: [...trunk.groups, ...head.groups],
    operands: [...trunk.operands, ...head.operands],
    parameters: [...trunk.parameters, ...head.parameters],
  };
}

/** Gives back the memory of what is the critic's own. */
export function freeCritic({ device, trunk, shared, score }: Critic): void {
  for (const t of [score.value, score.gradient]) if (t) device.free(t);
  for (const { tensor } of score.packed.values()) device.free(tensor);
  if (!shared) freeLlama(trunk);
}

/** Copies a policy's trunk, of the same sizes. */
export function followTrunk(policy: Llama, { trunk }: Critic): void {
  const source = new Map(policy.parameters.map((p) => [p.name, p.value]));
  const { device } = trunk;
  for (const { name, value } of trunk.parameters)
    device.floats(value).set(device.floats(source.get(name) as Tensor));
  touchWeights(trunk);
}

/** Values f32[n] of hidden states [n, hiddenSize] of the trunk. */
export function valuesOf(c: Context, { score }: Critic, hidden: Tensor): Tensor {
  return linear(c, hidden, score);
}
