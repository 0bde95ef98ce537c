// A whole model past 4 GiB of memory computes what the interpreter computes below, bit for bit; one whose parameters take
// several tensors what it computes with them in one.
import assert from 'node:assert/strict';
import os from 'node:os';
import { test } from 'node:test';
import { createDevice, type Device, type DeviceOptions } from '../src/compute/device/device.js';
import { whyNotX64 } from '../src/compute/target/x64/detect.js';
import { createLlama, initLlama } from '../src/model/llama.js';
import { createEngine } from '../src/rollout/engine.js';
import { generateAll } from '../src/rollout/generate.js';
import { createOptimizer } from '../src/train/optimizer.js';
import { nextTokenLoss } from './golden-engine.js';
import { tinyPolicy } from './support/tiny.js';

const GIB = 2 ** 30;
const adamw = { beta1: 0.9, beta2: 0.95, adamEpsilon: 1e-8, weightDecay: 0.1 };
const skip = whyNotX64() ?? (os.totalmem() < 9 * GIB && 'needs 9 GiB of memory');

/** Two training steps and some completions: losses, norms, gradients and weights as bits, and the tokens. */
async function everything(device: Device) {
  const policy = tinyPolicy(device);
  const { llama } = policy;
  const bits = (values: Float32Array) => new Uint32Array(values.slice().buffer);
  const optimizer = createOptimizer(llama, { ...adamw, maxGradNorm: 1 });
  const sequences = [0, 1, 2].map((s) =>
    Array.from({ length: 9 + 7 * s }, (_, i) => 3 + ((i * (s + 5)) % 19)),
  );
  const steps = [0, 1].map(() => {
    const loss = nextTokenLoss(llama, sequences);
    const gradients = llama.parameters.map((p) => bits(device.floats(p.gradient!)));
    return { loss, gradients, norm: optimizer.step(1e-2) };
  });
  const engine = createEngine(policy, { maxSequences: 4 });
  const requests = [0, 1].map((problem) => ({
    promptIds: [3, 4, 5 + problem],
    n: 3,
    maxTokens: 12,
    seed: 1,
    problem,
  }));
  const completions = await generateAll(engine, requests);
  engine.close();
  return { steps, weights: llama.parameters.map((p) => bits(device.floats(p.value))), completions };
}

/** What `everything` gives on a device of its own after `below` bytes that nobody touches. */
async function after(below: number, options: DeviceOptions) {
  const device = createDevice(options);
  for (let bytes = 0; bytes < below; bytes += GIB) device.tensor('other', [GIB / 4]);
  const offset = device.tensor('other', [1]).byteOffset;
  const result = await everything(device);
  assert.ok(offset > below && device.temporary([1]).byteOffset > below);
  await device.close();
  return result;
}

test('x64: training and generation past 4 and 8 GiB as the interpreter, on 1 and 2 threads', {
  skip,
}, async () => {
  const device = createDevice({ target: 'x64', threads: 1 });
  const { lanes, fusedMulAdd } = device.target;
  await device.close();
  const wanted = await after(0, { target: 'interpreter', threads: 1, interpret: { lanes, fusedMulAdd } });
  assert.ok(wanted.steps[1].loss < wanted.steps[0].loss);
  for (const threads of [1, 2])
    for (const below of [4 * GIB, 8 * GIB])
      assert.deepEqual(await after(below, { target: 'x64', threads }), wanted, `${threads} threads`);
});

test('parameters in several tensors, as beyond 8 GiB: trained, saved and restored as in one', async () => {
  const device = createDevice({ threads: 1 });
  const { llama: whole } = tinyPolicy(device);
  const sequences = [[3, 4, 5, 6, 7, 3, 4, 5, 6, 7]];
  const train = (groupElements?: number) => {
    const llama = createLlama(device, whole.config, { trainable: true, groupElements });
    initLlama(llama, 1);
    let optimizer = createOptimizer(llama, { ...adamw, maxGradNorm: Number.POSITIVE_INFINITY });
    const norms: number[] = [];
    const states: string[] = [];
    for (let step = 0; step < 4; step++) {
      nextTokenLoss(llama, sequences);
      norms.push(optimizer.step(1e-2));
      const saved = new Map([...optimizer.tensors()].map(({ name, data }) => [name, data]));
      states.push([...saved.keys()].join(' '));
      optimizer.free();
      optimizer = createOptimizer(llama, { ...adamw, maxGradNorm: Number.POSITIVE_INFINITY });
      optimizer.restore(step + 1, { read: (name, into) => into.set(saved.get(name)!) });
    }
    return {
      groups: llama.groups.length,
      norms,
      states,
      weights: llama.parameters.map((p) => device.floats(p.value).slice()),
    };
  };
  const one = train();
  assert.deepEqual([one.groups, one.states[0]], [2, 'matrices.mean matrices.square norms.mean norms.square']);
  const several = train(2000);
  assert.equal(several.states[0].split(' ').length, 2 * several.groups);
  assert.match(
    several.states[0],
    /^matrices.mean matrices.square matrices-2.mean .* norms.mean norms.square$/,
  );
  assert.deepEqual(several.weights, one.weights);
  several.norms.forEach((norm, i) => {
    assert.ok(Math.abs(norm / one.norms[i] - 1) < 1e-6, `norm of step ${i}: ${norm}, not ${one.norms[i]}`);
  });
  await device.close();
});
