// Generating from matrices, keys and values that are kept as bfloat16: what rounds nothing changes no bit, what rounds does
// so alike however a sequence is computed.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { bfloat16 } from '../../test/support/op.js';
import { tinyPolicy } from '../../test/support/tiny.js';
import { writeModelFolder } from '../checkpoint/folder.js';
import { createDevice, type Device } from '../compute/device/device.js';
import type { Dtype } from '../compute/kernel/bfloat16.js';
import { createLlama, followWeights, packedLogprobs, packSequences, touchWeights } from '../model/llama.js';
import { loadPolicy, type Policy, policyFiles } from '../train/policy.js';
import { createEngine, type EngineOptions } from './engine.js';
import { generateAll } from './generate.js';
import type { Completion, GenerateRequest } from './request.js';

const requests: readonly GenerateRequest[] = Array.from({ length: 20 }, (_, i) => ({
  promptIds: Array.from({ length: 1 + (i % 3 === 0 ? 35 : i) }, (_, j) => (j * 3 + (i % 2)) % 23),
  n: 1 + (i % 2),
  maxTokens: 20,
  temperature: 0.8,
  seed: 7,
  problem: i,
}));

async function complete(
  policy: Policy,
  options: EngineOptions,
  asked: readonly GenerateRequest[] = requests,
): Promise<Completion[]> {
  const engine = createEngine(policy, options);
  try {
    return (await generateAll(engine, asked)).flat();
  } finally {
    engine.close();
  }
}

const essence = ({ ids, logprobs }: Completion) => ({ ids, logprobs });

/** The tiny model with bfloat16 numbers in its matrices, and a copy that keeps them so. */
function rounded(device: Device): { plain: Policy; kept: Policy } {
  const plain = tinyPolicy(device);
  const { llama } = plain;
  for (const { value } of llama.parameters)
    if (value.shape.length === 2) device.floats(value).set(bfloat16(Float64Array.from(device.floats(value))));
  touchWeights(llama);
  const copy = createLlama(device, llama.config, { trainable: false, dtype: 'bfloat16' });
  followWeights(llama, copy);
  return { plain, kept: { ...plain, llama: copy } };
}

test('matrices of bfloat16 numbers give the same bits however they are kept, in half the memory', async () => {
  for (const threads of [1, 2]) {
    const device = createDevice({ threads });
    const { plain, kept } = rounded(device);
    const before = device.memory().packed.current;
    const wanted = await complete(plain, { maxSequences: 8 });
    const between = device.memory().packed.current;
    const got = await complete(kept, { maxSequences: 8 });
    assert.deepEqual(got.map(essence), wanted.map(essence));
    assert.equal(2 * (device.memory().packed.current - between), between - before);
    await device.close();
  }
});

test('keys and values as bfloat16: the same alone, together, after a prefix hit and on two threads', async () => {
  const kvCacheDtype: Dtype = 'bfloat16';
  const all: ReturnType<typeof essence>[][] = [];
  for (const threads of [1, 2]) {
    const device = createDevice({ threads });
    const policy = tinyPolicy(device);
    const options: EngineOptions[] = [
      { maxSequences: 1 },
      { maxSequences: 16, prefillTokens: 32 },
      { maxSequences: 16, prefixCache: true },
    ];
    for (const o of options) {
      const engine = createEngine(policy, { ...o, kvCacheDtype });
      for (let round = 0; round < 2; round++)
        all.push((await generateAll(engine, requests)).flat().map(essence));
      engine.close();
    }
    await device.close();
  }
  for (const later of all.slice(1)) assert.deepEqual(later, all[0]);
});

test('keys and values as bfloat16 are near the model, in less memory', async () => {
  const device = createDevice({ threads: 2 });
  const policy = tinyPolicy(device);
  const bytes = (kvCacheDtype: Dtype) => {
    const engine = createEngine(policy, { maxSequences: 4, kvCacheDtype });
    const { current } = device.memory().kvCache;
    engine.close();
    return current;
  };
  // Half of the keys; values of six dimensions fill whole vectors either way.
  assert.ok(bytes('bfloat16') < 0.9 * bytes('float32'));
  const completions = await complete(policy, { maxSequences: 16, kvCacheDtype: 'bfloat16' });
  let off = 0;
  for (const { promptIds, ids, logprobs } of completions) {
    const mark = device.mark();
    const batch = packSequences(policy.llama, [[...promptIds, ...ids.slice(0, -1)]]);
    const rows = ids.map((_, i) => promptIds.length - 1 + i);
    const { logprob } = packedLogprobs({ device, tape: null }, policy.llama, batch, ids, { rows });
    device.floats(logprob).forEach((wanted, i) => {
      off = Math.max(off, Math.abs(wanted - logprobs[i]));
    });
    device.rewind(mark);
  }
  assert.ok(off > 1e-7 && off < 0.01, `${off}`);
  await device.close();
});

test('a model is packed as its files keep it unless the options say how; one to train is float32', async () => {
  const device = createDevice({ threads: 1 });
  const { plain } = rounded(device);
  const folder = mkdtempSync(join(tmpdir(), 'retort-'));
  try {
    for (const [dtype, stored] of [
      ['BF16', 'bfloat16'],
      ['F32', 'float32'],
      ['F16', 'float32'],
    ] as const) {
      const dir = join(folder, dtype);
      writeModelFolder(dir, { ...policyFiles(plain), dtype });
      const keptAs = (options: { trainable: boolean; dtype?: Dtype }) =>
        new Set(loadPolicy(dir, device, options).llama.operands.map((w) => w.dtype));
      assert.deepEqual(keptAs({ trainable: false }), new Set([stored]));
      assert.deepEqual(keptAs({ trainable: true }), new Set(['float32']));
      for (const told of ['float32', 'bfloat16'] as const)
        assert.deepEqual(keptAs({ trainable: false, dtype: told }), new Set([told]));
      assert.throws(
        () => loadPolicy(dir, device, { trainable: false, dtype: 'bf16' as Dtype }),
        /dtype of a model: got "bf16"; use float32 or bfloat16/,
      );
      assert.throws(
        () => loadPolicy(dir, device, { trainable: true, dtype: 'bfloat16' }),
        /dtype of a model to train: got "bfloat16"; a trained model takes float32/,
      );
    }
    const odd = { kvCacheDtype: 'float16' as Dtype };
    assert.throws(() => createEngine(plain, odd), /kvCacheDtype: got "float16"; use float32 or bfloat16/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  await device.close();
});
