// Gradient checkpointing: less memory, and what is refused. That gradients are the same: determinism.test.ts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { residualBlock, Tape } from '../src/compute/autograd.js';
import { createDevice } from '../src/compute/device/device.js';
import { linear } from '../src/compute/op/linear/linear.js';
import { createLlama, freeLlama, initLlama, packedLogprobs, packSequences } from '../src/model/llama.js';

const config = {
  vocabSize: 40,
  hiddenSize: 32,
  intermediateSize: 96,
  numHiddenLayers: 8,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 8,
  maxPositionEmbeddings: 64,
  rmsNormEps: 1e-5,
  ropeTheta: 10_000,
  tieWordEmbeddings: false,
  bosTokenId: null,
  eosTokenIds: [],
};

/** Peak of activations in one forward and backward pass, or in a forward pass alone. */
async function peakOf(layers: number, checkpointing: boolean, learn = true): Promise<number> {
  const device = createDevice({ threads: 1 });
  const llama = createLlama(device, { ...config, numHiddenLayers: layers }, { trainable: true });
  initLlama(llama, 1);
  const sequences = Array.from({ length: 16 }, (_, s) => Array.from({ length: 60 }, (_, i) => (s + i) % 40));
  const tape = learn ? new Tape(device, { checkpointing }) : null;
  const { logprob } = packedLogprobs(
    { device, tape },
    llama,
    packSequences(llama, sequences),
    sequences.flat(),
  );
  if (tape) device.fill(tape.contribute(logprob).tensor, -1);
  tape?.backward();
  const { peak } = device.memory().activations;
  freeLlama(llama);
  await device.close();
  return peak;
}

test('with checkpointing a layer more costs its input and no more', async () => {
  const input = 4 * 16 * 60 * config.hiddenSize;
  const [few, many] = [await peakOf(4, true), await peakOf(8, true)];
  assert.ok(many - few <= 4 * input + 4096, `4 layers more take ${many - few} bytes`);
  const [kept, all] = [await peakOf(4, false), await peakOf(8, false)];
  assert.ok(all - kept > 10 * (many - few), `${all - kept} without`);
  assert.ok(many < 0.4 * all, `${many} with, ${all} without`);
});

test('in a forward pass alone a layer more costs its input and no more', async () => {
  const input = 4 * 16 * 60 * config.hiddenSize;
  const [few, many] = [await peakOf(4, false, false), await peakOf(8, false, false)];
  assert.ok(many - few <= 4 * input + 4096, `4 layers more take ${many - few} bytes`);
});

test('a block whose input does not share the gradient of its result is refused in backward', async () => {
  const device = createDevice({ threads: 1 });
  const tape = new Tape(device, { checkpointing: true });
  const x = device.upload([1, 2, 3, 4], 'f32', [2, 2]);
  const value = device.upload([1, 0, 0, 1], 'f32', [2, 2]);
  const w = { name: 'w', value, gradient: null, version: 0, packed: new Map() };
  const y = residualBlock({ device, tape }, x, (c, into) => linear(c, x, w, undefined, into));
  device.fill(tape.contribute(y).tensor, 1);
  assert.throws(() => tape.backward(), /its input must share the gradient/);
  await device.close();
});
