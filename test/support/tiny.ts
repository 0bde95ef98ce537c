// A tiny policy with random weights, for tests that need a model but not a good one.
import type { Device } from '../../src/compute/device/device.js';
import type { LlamaConfig } from '../../src/model/config.js';
import { freeLlama, touchWeights } from '../../src/model/llama.js';
import { buildCharTokenizer } from '../../src/text/char-tokenizer.js';
import { newModelConfig } from '../../src/train/new-model.js';
import { newPolicy, type Policy } from '../../src/train/policy.js';
import { noise } from './op.js';

/** Models with biases on q, k and v, and with norms of q and k, beside a plain one. */
export const tinyKinds: Readonly<Record<string, Partial<LlamaConfig>>> = {
  llama: {},
  qwen2: { qkvBias: true },
  qwen3: { qkNorm: true },
};

/** Its vectors are random too: biases of 0 and norm weights of 1 would hide an error. */
export function tinyPolicyOf(device: Device, kind: Partial<LlamaConfig>): Policy {
  const { llama, tokenizer } = tinyPolicy(device);
  const policy = newPolicy({ ...llama.config, ...kind }, tokenizer, device, 1);
  freeLlama(llama);
  policy.llama.parameters.forEach(({ value }, i) => {
    if (value.shape.length > 1) return;
    const values = device.floats(value);
    for (const [j, x] of noise(value.size, i, 0.5).entries()) values[j] += x;
  });
  touchWeights(policy.llama);
  return policy;
}

export function tinyPolicy(device: Device, seed = 1, context = 96): Policy {
  const tokenizer = buildCharTokenizer({ characters: '0123456789+-*/=?<>(), ;' });
  const sizes = {
    dModel: 20,
    layers: 2,
    heads: 4,
    kvHeads: 2,
    headDim: 6,
    hidden: 28,
    context,
    tieEmbeddings: false,
    ropeTheta: 10000,
  };
  return newPolicy(newModelConfig(sizes, tokenizer), tokenizer, device, seed);
}
