// A whole model gives the same bits for any number of threads, in any batch, and token by token over a cache.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { Device } from '../src/compute/device/device.js';
import { planAttention } from '../src/compute/op/attention/attention.js';
import { tileSizes } from '../src/compute/op/attention/kernel.js';
import { rowBlock } from '../src/compute/op/linear/kernel.js';
import { linear } from '../src/compute/op/linear/linear.js';
import type { LlamaConfig } from '../src/model/config.js';
import {
  createLlama,
  forward,
  freeLlama,
  initLlama,
  type Llama,
  packedLogits,
  packSequences,
} from '../src/model/llama.js';
import { philox } from '../src/random.js';
import { attendCached, blocksFor, createKvCache } from '../src/rollout/kv-cache.js';
import { createOptimizer } from '../src/train/optimizer.js';
import { nextTokenLoss } from './golden-engine.js';
import { type TestDevice, testDevices } from './support/op.js';

const devices = testDevices();
const threaded = devices.filter(({ name }) => name.includes('threads'));
const targets = [...new Set(threaded.map(({ agree }) => agree))];
const groups = (of: readonly TestDevice[]) => targets.map((t) => of.filter(({ agree }) => agree === t));
after(() => Promise.all(devices.map(({ device }) => device.close())));

const tiny: LlamaConfig = {
  vocabSize: 33,
  hiddenSize: 20,
  intermediateSize: 27,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 6,
  maxPositionEmbeddings: 40,
  rmsNormEps: 1e-5,
  ropeTheta: 10_000,
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenIds: [0],
};
/** So large that every launch that matters is cut into four parts. */
const small: LlamaConfig = {
  ...tiny,
  vocabSize: 261,
  hiddenSize: 132,
  intermediateSize: 300,
  headDim: 34,
  tieWordEmbeddings: false,
};

const draw = (below: number, ...key: [number, number]) => philox(1, ...key, 0)[0] % below;
const makeSequences = ({ vocabSize, maxPositionEmbeddings }: LlamaConfig, count: number): number[][] =>
  Array.from({ length: count }, (_, s) =>
    Array.from({ length: 2 + draw(maxPositionEmbeddings - 1, s, 999) }, (_, i) => draw(vocabSize, s, i)),
  );

function withModel<T>(device: Device, config: LlamaConfig, body: (llama: Llama) => T): T {
  const llama = createLlama(device, config, { trainable: true });
  initLlama(llama, 3);
  const result = body(llama);
  freeLlama(llama);
  return result;
}

/** Three steps: each loss, gradient norm and every gradient; at last every weight. */
function train(device: Device, config: LlamaConfig, sequences: readonly (readonly number[])[]) {
  return withModel(device, config, (llama) => {
    const optimizer = createOptimizer(llama, {
      beta1: 0.9,
      beta2: 0.95,
      adamEpsilon: 1e-8,
      weightDecay: 0.1,
      maxGradNorm: 1,
    });
    const steps = [0, 1, 2].map((i) => {
      const loss = nextTokenLoss(llama, sequences.slice(i));
      const gradients = llama.parameters.map((p) => device.floats(p.gradient!).slice());
      return { loss, gradients, norm: optimizer.step(1e-2) };
    });
    const weights = llama.parameters.map((p) => device.floats(p.value).slice());
    optimizer.free();
    return { steps, weights };
  });
}

for (const [name, config, count, on] of [
  ...groups(devices).map((on) => ['tiny model, interpreter too', tiny, 4, on] as const),
  ...groups(threaded).map((on) => ['small model', small, 24, on] as const),
])
  test(`${name}, ${on[0].agree}: gradients and three AdamW steps do not depend on the threads`, () => {
    const sequences = makeSequences(config, count);
    const first = train(on[0].device, config, sequences);
    const losses = first.steps.map(({ loss }) => loss);
    assert.ok(losses[2] < losses[0] && losses.every(Number.isFinite), `it learns: ${losses}`);
    for (const { name: where, device } of on.slice(1)) {
      const mark = device.memory();
      assert.deepEqual(train(device, config, sequences), first, where);
      assert.deepEqual(device.memory().parameters.current, mark.parameters.current);
    }
  });

for (const { name, device } of devices)
  test(`gradients with checkpointing are the same, bit for bit: ${name}`, () => {
    for (const config of [
      tiny,
      { ...tiny, numHiddenLayers: 3, tieWordEmbeddings: false },
      { ...tiny, qkvBias: true, qkNorm: true },
    ]) {
      const sequences = makeSequences(config, 4);
      const gradients = (checkpointing: boolean) =>
        withModel(device, config, (llama) => {
          const loss = nextTokenLoss(llama, sequences, { checkpointing });
          // A second pass adds to what the first one gave.
          nextTokenLoss(llama, sequences.slice(1), { checkpointing });
          return { loss, gradients: llama.parameters.map((p) => device.floats(p.gradient!).slice()) };
        });
      assert.deepEqual(gradients(true), gradients(false));
    }
  });

test('the small model really runs in four parts', () => {
  const { device } = threaded[2];
  const parts = new Map<string, number>();
  const { launch } = device;
  device.launch = (compiled, items, buffers, scalars, grain = 1) => {
    const cut = Math.max(1, Math.min(device.threads, Math.floor(items / grain)));
    parts.set(compiled.kernel.name, Math.max(cut, parts.get(compiled.kernel.name) ?? 0));
    launch.call(device, compiled, items, buffers, scalars, grain);
  };
  train(device, small, makeSequences(small, 24));
  device.launch = launch;
  const cut = [...parts].filter(([, most]) => most === 4).map(([name]) => name);
  const attend = `attend-${tileSizes(device.target)[0]}`;
  const names = ['matmul', 'matmul-columns', attend, 'attention-backward', 'rmsnorm', 'adamw'];
  for (const name of names) assert.ok(cut.includes(name), `${name} ran in ${parts.get(name)} parts`);
});

/** Logits of every position of a sequence, computed by itself. */
function logitsOf(llama: Llama, sequences: readonly (readonly number[])[]): Float32Array {
  const { device } = llama;
  const mark = device.mark();
  const logits = packedLogits({ device, tape: null }, llama, packSequences(llama, sequences));
  const got = device.floats(logits).slice();
  device.rewind(mark);
  return got;
}

for (const { name, device } of threaded)
  test(`a batch large enough to be computed by stretches of rows has each sequence's bits: ${name}`, () => {
    withModel(device, tiny, (llama) => {
      const fewest = 4 * rowBlock(device.target) * device.threads;
      // Of 2 to 40 tokens.
      const sequences = makeSequences(tiny, Math.ceil(fewest / 10));
      const stretched = spyStretches(device, () => logitsOf(llama, sequences));
      assert.equal(stretched.count, 2 * tiny.numHiddenLayers);
      let start = 0;
      sequences.forEach((sequence, i) => {
        const from = start;
        start += sequence.length * tiny.vocabSize;
        if (i % 7 > 0) return;
        const alone = spyStretches(device, () => logitsOf(llama, [sequence]));
        assert.equal(alone.count, 0);
        assert.deepEqual(alone.result, stretched.result.slice(from, start), `sequence ${i}`);
      });
    });
  });

/** How many bodies were really run by stretches. */
function spyStretches<T>(device: Device, body: () => T): { count: number; result: T } {
  const { inStretches } = device;
  let count = 0;
  device.inStretches = (rows, stretch, launches) =>
    inStretches.call(device, rows, stretch, () => {
      if (device.isRecording) count++;
      return launches();
    }) as never;
  const result = body();
  device.inStretches = inStretches;
  return { count, result };
}

for (const { name, device } of devices)
  test(`a row's logits are the same alone, packed, asked for by themselves and token by token: ${name}`, () => {
    withModel(device, tiny, (llama) => {
      const sequences = makeSequences(tiny, 5);
      const packed = logitsOf(llama, sequences);
      let start = 0;
      const wanted = sequences.map(({ length }) => {
        const from = start;
        start += length * tiny.vocabSize;
        return packed.slice(from, start);
      });
      sequences.forEach((sequence, i) => {
        assert.deepEqual(logitsOf(llama, [sequence]), wanted[i], `sequence ${i} alone`);
      });

      const mark = device.mark();
      const context = { device, tape: null };
      const last = sequences.map((_, i) => sequences.slice(0, i + 1).flat().length - 1);
      const picked = packedLogits(context, llama, packSequences(llama, sequences), last);
      wanted.forEach((all, i) => {
        const row = device.floats(picked).slice(i * tiny.vocabSize, (i + 1) * tiny.vocabSize);
        assert.deepEqual(row, all.slice(-tiny.vocabSize), `last row of sequence ${i}`);
      });
      device.rewind(mark);

      const cache = createKvCache(llama, 'float32', blocksFor(tiny.maxPositionEmbeddings));
      const [sequence] = sequences;
      const table = cache.take(blocksFor(sequence.length));
      sequence.forEach((id, position) => {
        const step = device.mark();
        const plan = planAttention(device, [{ firstRow: 0, rows: 1, position, table }]);
        const rows = { ids: device.upload([id], 'i32'), positions: device.upload([position], 'i32') };
        const hidden = forward(context, llama, rows, attendCached(llama, cache, plan));
        const logits = device.floats(linear(context, hidden, llama.head)).slice();
        const from = position * tiny.vocabSize;
        assert.deepEqual(logits, wanted[0].slice(from, from + tiny.vocabSize), `position ${position}`);
        device.rewind(step);
      });
      cache.close();
    });
  });
