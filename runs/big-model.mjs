// Makes a model of more than 4 GiB of parameters, checks a product with its last matrix, and generates some tokens.
// Usage: node runs/big-model.mjs [bfloat16]; writes results/big-model.txt or, its matrices packed as bfloat16 numbers that
// they are, results/big-model-bfloat16.txt. Takes machine code and 12 GiB of memory.
import { mkdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { createDevice } from '../dist/src/compute/device/device.js';
import { linear } from '../dist/src/compute/op/linear/linear.js';
import { parameterCount } from '../dist/src/model/config.js';
import { createLlama, touchWeights } from '../dist/src/model/llama.js';
import { philox } from '../dist/src/random.js';
import { createEngine } from '../dist/src/rollout/engine.js';

const config = {
  vocabSize: 8192,
  hiddenSize: 4096,
  intermediateSize: 11008,
  numHiddenLayers: 8,
  numAttentionHeads: 32,
  numKeyValueHeads: 8,
  headDim: 128,
  maxPositionEmbeddings: 256,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  tieWordEmbeddings: false,
  bosTokenId: null,
  eosTokenIds: [],
};
const dtype = process.argv[2] ?? 'float32';
const TOKENS = 16;
const GIB = 2 ** 30;

const lines = [];
const print = (line) => {
  lines.push(line);
  console.log(line);
};
const timed = (what, work) => {
  const began = performance.now();
  const result = work();
  print(`${what}: ${((performance.now() - began) / 1000).toFixed(2)} s`);
  return result;
};

const device = createDevice();
const cpu = os.cpus()[0].model.trim();
print(
  `node runs/big-model.mjs ${dtype}, node ${process.version}, ${device.target.name}, ${device.threads} threads, ${cpu}`,
);
const gib = (4 * parameterCount(config)) / GIB;
print(`${parameterCount(config)} parameters, ${gib.toFixed(2)} GiB`);
const llama = timed('made', () => createLlama(device, config, { trainable: false, dtype }));

/** Noise of standard deviation 0.02, repeated: drawing every number would take minutes. */
const noise = Float32Array.from(
  { length: 1_000_003 },
  (_, i) => (0.0693 * philox(1, i, 0, 0)[0]) / 2 ** 32 - 0.03465,
);
if (dtype === 'bfloat16') {
  const bits = new Uint32Array(noise.buffer);
  for (let i = 0; i < bits.length; i++) bits[i] &= 0xffff0000;
}
timed('filled', () => {
  llama.parameters.forEach(({ value }) => {
    const values = device.floats(value);
    if (value.shape.length === 1) values.fill(1);
    else
      for (let at = 0; at < values.length; at += noise.length)
        values.set(noise.subarray(0, Math.min(noise.length, values.length - at)), at);
  });
  touchWeights(llama);
});

const mark = device.mark();
const x = device.upload(noise.subarray(0, config.hiddenSize), 'f32', [1, config.hiddenSize]);
const y = device.floats(linear({ device, tape: null }, x, llama.head)).slice();
const head = device.floats(llama.head.value);
let error = 0;
for (let row = 0; row < config.vocabSize; row += 61) {
  let sum = 0;
  for (let i = 0; i < config.hiddenSize; i++) sum += noise[i] * head[row * config.hiddenSize + i];
  error = Math.max(error, Math.abs(sum - y[row]));
}
device.rewind(mark);
const largest = y.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const place = `from byte ${llama.head.value.byteOffset} of device memory on`;
print(
  `product with the head, ${place}: ${(error / largest).toExponential(1)} of its largest value off float64`,
);
if (!(error / largest < 1e-5)) throw new Error('the product is wrong');

const tokenizer = { vocabSize: config.vocabSize, bosTokenId: null, eosTokenIds: [] };
const stream = () => ({ push: () => '', end: () => '' });
const words = { ...tokenizer, encode: () => [], decode: () => '', stream, files: {}, chatTemplate: null };
const engine = createEngine({ llama, tokenizer: words }, { maxSequences: 1 });
engine.submit({ promptIds: [1, 2, 3, 4], maxTokens: TOKENS, seed: 1, problem: 0 });
const ids = [];
const step = () => {
  for (const { id } of engine.step().tokens) ids.push(id);
};
timed('first token, weights packed on the way', () => {
  while (ids.length === 0) step();
});
const rest = TOKENS - ids.length;
timed(`${rest} further tokens`, () => {
  while (engine.busy) step();
});
print(`tokens: ${ids.join(' ')}`);
const memory = device.memory();
for (const kind of ['parameters', 'packed', 'activations', 'kvCache', 'total'])
  print(`${kind}: ${(memory[kind].peak / GIB).toFixed(2)} GiB`);
print(`peak of the process: ${(process.resourceUsage().maxRSS / 2 ** 20).toFixed(2)} GiB`);
mkdirSync('results', { recursive: true });
writeFileSync(`results/big-model${dtype === 'float32' ? '' : `-${dtype}`}.txt`, `${lines.join('\n')}\n`);
await device.close();
