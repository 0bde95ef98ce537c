// Top logits: what is kept of a row, the file and its faults, and how near it comes to the whole distribution.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { createDevice } from '../compute/device/device.js';
import { topOf } from '../compute/op/divergence/reference.js';
import { RetortError } from '../errors.js';
import type { LlamaConfig } from '../model/config.js';
import { createLlama, freeLlama, initLlama } from '../model/llama.js';
import type { Example } from '../text/dataset.js';
import { meanDivergence, runningTeacher } from './divergence-loss.js';
import {
  decodeTopLogits,
  encodeTopLogits,
  likeliest,
  makeTopLogits,
  readTopLogits,
  storedTeacher,
  type TopLogits,
  topLogitsName,
  writeTopLogits,
} from './top-logits.js';

test('the likeliest of a row, and the mass of the others', () => {
  const row = fc.array(fc.float({ min: -20, max: 20, noNaN: true }), { minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(row, fc.nat(39), fc.constantFrom(0.5, 1, 2), (values, at, temperature) => {
      const logits = Float32Array.from(values);
      const k = Math.min(values.length, at + 1);
      const { ids, logprobs, rest } = likeliest(logits, k, temperature);
      assert.deepEqual(ids, topOf(logits, k));
      const sum = logprobs.reduce((total, x) => total + Math.exp(x), Math.exp(rest));
      assert.ok(Math.abs(sum - 1) < 1e-6, `they add up to ${sum}`);
      assert.ok(k < values.length || rest === -50);
    }),
  );
});

function some(vocabSize: number, lengths: readonly number[], k: number): TopLogits {
  const tokens = lengths.reduce((a, b) => a + b, 0);
  const ids = Array.from({ length: tokens * k }, (_, i) => (i * 7) % vocabSize);
  return {
    ...{ format: 1, of: 'x', vocabSize, k, temperature: 0.5, sequences: lengths.length, tokens },
    lengths: Uint32Array.from(lengths),
    ids: vocabSize <= 65536 ? Uint16Array.from(ids) : Uint32Array.from(ids),
    logprobs: Uint16Array.from({ length: tokens * k }, (_, i) => 0x8000 + i),
    rest: Uint16Array.from({ length: tokens }, (_, i) => 0xc000 + i),
  };
}

test('a file gives back what was written, with small and large vocabularies', () => {
  for (const top of [some(27, [3, 0, 5], 4), some(100_000, [1, 2], 3), some(65_536, [], 1)])
    assert.deepEqual(decodeTopLogits(encodeTopLogits(top), 'f'), top);
});

test('a cut, lengthened or changed file is refused by name, never read wrongly', () => {
  const bytes = encodeTopLogits(some(27, [3, 2], 4));
  const refused = (changed: Uint8Array) =>
    assert.throws(
      () => decodeTopLogits(changed, 'the-file'),
      (e: unknown) => e instanceof RetortError && e.code === 'bad-data' && e.message.includes('the-file'),
    );
  for (let end = 0; end < bytes.length; end++) refused(bytes.slice(0, end));
  refused(Buffer.concat([bytes, Buffer.from([0])]));
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const changed = bytes.slice();
      changed[at] ^= change;
      refused(changed);
    }),
  );
  // Wrong inside a fitting checksum.
  const wrong = (change: Partial<TopLogits>) =>
    refused(encodeTopLogits({ ...some(27, [3, 2], 4), ...change }));
  wrong({ ids: new Uint16Array(20).fill(27) });
  wrong({ lengths: Uint32Array.from([3, 3]) });
  wrong({ lengths: Uint32Array.from([3]) });
  wrong({ rest: new Uint16Array(4) });
});

const config = (hiddenSize: number): LlamaConfig => ({
  ...{ vocabSize: 24, hiddenSize, intermediateSize: 16, numHiddenLayers: 1, numAttentionHeads: 2 },
  ...{ numKeyValueHeads: 2, headDim: 4, maxPositionEmbeddings: 32, rmsNormEps: 1e-5, ropeTheta: 10000 },
  ...{ tieWordEmbeddings: false, bosTokenId: null, eosTokenIds: [] },
});

test('learned from a file is nearly what is learned from the teacher: exactly its k + 1 outcomes with all tokens kept', async () => {
  const device = createDevice({ threads: 1 });
  const teacher = createLlama(device, config(12), { trainable: false });
  const student = createLlama(device, config(8), { trainable: true });
  initLlama(teacher, 1);
  initLlama(student, 2);
  for (const { value } of teacher.groups)
    for (const [i, x] of device.floats(value).entries()) device.floats(value)[i] = 6 * x;
  const examples: Example[] = [4, 9, 1].map((length, s) => ({
    promptIds: [s, 3],
    completionIds: Array.from({ length }, (_, i) => (5 * i + s) % 24),
  }));
  const o = { beta: 0, temperature: 1, batchTokens: 8, gradientCheckpointing: false };
  const whole = await meanDivergence(student, runningTeacher(teacher), examples, o, false);
  const folder = mkdtempSync(join(tmpdir(), 'retort-top-'));
  let before = 0;
  for (const k of [1, 4, 12, 24]) {
    const of = topLogitsName('t', examples, k, 1);
    const made = await makeTopLogits(teacher, examples, { of, k, temperature: 1, batchTokens: 8 });
    const path = join(folder, `${k}.bin`);
    assert.equal(readTopLogits(path), null);
    writeTopLogits(path, made);
    const top = readTopLogits(path) as TopLogits;
    assert.deepEqual(top, made);
    const loss = await meanDivergence(
      student,
      storedTeacher(top, examples),
      [...examples].reverse(),
      o,
      false,
    );
    // Outcomes taken together hide some of the divergence, ever less of it.
    assert.ok(loss > before - 1e-4 && loss < whole + 1e-3, `${k}: ${loss} of ${whole}`);
    before = loss;
  }
  assert.ok(Math.abs(before - whole) < 1e-3 * whole, 'all of them, rounded to float16');
  for (const llama of [teacher, student]) freeLlama(llama);
  await device.close();
  rmSync(folder, { recursive: true });
});

test('the name of a file tells teacher, sequences, k and temperature apart', () => {
  const examples: Example[] = [{ promptIds: [1], completionIds: [2, 3] }];
  const moved: Example[] = [{ promptIds: [1, 2], completionIds: [3] }];
  const names = [
    topLogitsName('t', examples, 4, 1),
    topLogitsName('u', examples, 4, 1),
    topLogitsName('t', moved, 4, 1),
    topLogitsName('t', examples, 5, 1),
    topLogitsName('t', examples, 4, 2),
  ];
  assert.equal(new Set(names).size, names.length);
});
