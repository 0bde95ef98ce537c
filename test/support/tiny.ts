// A tiny policy with random weights, for tests that need a model but not a good one.
import type { Device } from '../../src/compute/device/device.js';
import { buildCharTokenizer } from '../../src/text/char-tokenizer.js';
import { newModelConfig } from '../../src/train/new-model.js';
import { newPolicy, type Policy } from '../../src/train/policy.js';

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
