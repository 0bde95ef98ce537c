// GGUF files: what is written is read back, models in and out, and every way in which a file can be wrong.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { noise } from '../../test/support/op.js';
import { RetortError } from '../errors.js';
import { elementCount, type LlamaConfig, parameterShapes } from '../model/config.js';
import { type GgufTensorSource, gguf, openGguf, writeGguf } from './gguf.js';
import type { GgufValue } from './gguf-format.js';
import { type GgufType, modelMetadata, modelTensors, readGgufModel } from './gguf-model.js';

const scratch = fs.mkdtempSync(join(tmpdir(), 'retort-gguf-'));
after(() => fs.rmSync(scratch, { recursive: true, force: true }));
const path = join(scratch, 'x.gguf');

const refused = (message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof RetortError, String(error));
  assert.match(error.message, message);
  return true;
};

const config: LlamaConfig = {
  vocabSize: 10,
  hiddenSize: 32,
  intermediateSize: 48,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 6,
  maxPositionEmbeddings: 64,
  rmsNormEps: 1e-5,
  ropeTheta: 500000,
  tieWordEmbeddings: false,
  bosTokenId: 1,
  eosTokenIds: [2, 3],
};
const llama3 = { factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositionEmbeddings: 8192 };

/** Every configuration that a GGUF file can hold, in small. */
const configs: Readonly<Record<string, LlamaConfig>> = {
  llama: config,
  'llama, tied, with scaled rotary embedding': {
    ...config,
    headDim: 32,
    tieWordEmbeddings: true,
    ropeScaling: llama3,
  },
  qwen2: { ...config, headDim: 8, qkvBias: true },
  qwen3: { ...config, headDim: 10, qkNorm: true, rmsNormEps: 1e-6 },
};

function weights(config: LlamaConfig): Map<string, Float32Array> {
  return new Map(
    parameterShapes(config).map(({ name, shape }, i) => [
      name,
      new Float32Array(noise(elementCount(shape), i)),
    ]),
  );
}

/** Writes a model with the ids of its tokens, but without a tokenizer. */
function writeModel(config: LlamaConfig, type: GgufType): Map<string, Float32Array> {
  const values = weights(config);
  const source = {
    config,
    parameters: parameterShapes(config),
    read: (name: string, into: Float32Array) => into.set(values.get(name)!),
  };
  const metadata = modelMetadata(config, {
    type,
    name: 'x',
    sampling: { temperature: 0.6, topK: 20, minP: 0, repetitionPenalty: 1.05 },
  });
  metadata.set('tokenizer.ggml.bos_token_id', gguf.u32(1));
  metadata.set('tokenizer.ggml.eos_token_id', gguf.u32(2));
  metadata.set('tokenizer.ggml.eot_token_id', gguf.u32(3));
  writeGguf(path, metadata, modelTensors(source, type));
  return values;
}

function readAll(path: string) {
  const model = readGgufModel(path);
  const values = new Map<string, Float32Array>();
  for (const { name, shape } of model.parameters) {
    const into = new Float32Array(elementCount(shape));
    model.read(name, into);
    values.set(name, into);
  }
  model.close();
  return { model, values };
}

test('a file whose matrices are all BF16 says so, any other is float32', () => {
  writeModel(config, 'F16');
  const { tensors } = openGguf(path);
  const bytes = fs.readFileSync(path);
  const dtypeNow = () => {
    fs.writeFileSync(path, bytes);
    const model = readGgufModel(path);
    model.close();
    return model.dtype;
  };
  assert.equal(dtypeNow(), 'float32');
  const matrices = [...tensors.values()].filter(({ type }) => type.name === 'F16');
  for (const [i, { name, shape }] of matrices.entries()) {
    // The name behind its length, how many dimensions, each of them, and the type: 1 is F16, 30 BF16.
    const length = Buffer.alloc(8);
    length.writeUInt32LE(name.length);
    const named = Buffer.concat([length, Buffer.from(name)]);
    const type = bytes.indexOf(named) + named.length + 4 + 8 * shape.length;
    assert.equal(bytes.readUInt32LE(type), 1);
    bytes.writeUInt32LE(30, type);
    if (i % 5 === 0 || i === matrices.length - 1)
      assert.equal(dtypeNow(), i === matrices.length - 1 ? 'bfloat16' : 'float32');
  }
});

test('metadata of every type and tensors are read back', () => {
  const metadata = new Map<string, GgufValue>([
    ['a', { type: 'uint8', value: 255 }],
    ['b', { type: 'int8', value: -128 }],
    ['c', { type: 'uint16', value: 65535 }],
    ['d', { type: 'int16', value: -32768 }],
    ['e', { type: 'uint32', value: 2 ** 32 - 1 }],
    ['f', { type: 'int32', value: -(2 ** 31) }],
    ['g', { type: 'float32', value: 0.5 }],
    ['h', gguf.bool(true)],
    ['i', gguf.string('żółw 🐢\n')],
    ['j', { type: 'uint64', value: 2 ** 53 - 1 }],
    ['k', { type: 'int64', value: -(2 ** 53) + 1 }],
    ['l', { type: 'float64', value: Math.PI }],
    ['m', gguf.strings(['', 'x', '世界'])],
    ['n', { type: 'array', of: 'bool', value: [true, false] }],
    ['o', gguf.strings([])],
  ]);
  const numbers = ['uint8', 'uint64', 'int32', 'float32', 'float64'] as const;
  for (const of of numbers)
    metadata.set(`array of ${of}`, { type: 'array', of, value: Float64Array.of(0, 1, 7) });
  const tensor = (
    name: string,
    shape: number[],
    type: GgufType,
  ): GgufTensorSource & { values: Float32Array } => {
    const values = new Float32Array(noise(elementCount(shape), shape.length));
    return { name, shape, type, values, data: () => values };
  };
  const tensors = [
    tensor('one', [7], 'F32'),
    tensor('two', [3, 5], 'F32'),
    tensor('three', [2, 3, 64], 'F32'),
  ];
  writeGguf(path, metadata, tensors);
  const file = openGguf(path);
  assert.deepEqual(file.metadata, metadata);
  for (const { name, shape, values } of tensors) {
    assert.deepEqual(file.tensors.get(name)!.shape, shape);
    // Into shared memory, as models have it.
    const into = new Float32Array(new SharedArrayBuffer(4 * values.length));
    file.read(name, into);
    assert.deepEqual([...into], [...values]);
  }
  assert.throws(() => file.read('four', new Float32Array(1)), refused(/got "four"; the file has no tensor/));
  assert.throws(
    () => file.read('one', new Float32Array(6)),
    refused(/memory for tensor one .*got 6; it has 7/),
  );
  file.close();
});

for (const [name, config] of Object.entries(configs))
  test(`${name}: configuration, sampling and weights survive`, () => {
    const values = writeModel(config, 'F32');
    const read = readAll(path);
    assert.deepEqual(read.model.config, config);
    assert.deepEqual(read.model.sampling, {
      temperature: 0.6,
      topK: 20,
      minP: 0,
      repetitionPenalty: 1.05,
    });
    assert.deepEqual(read.values, values);
    // Half of the bits: as near as float16 is; vectors keep all.
    writeModel(config, 'F16');
    for (const [name, got] of readAll(path).values)
      got.forEach((value, i) => {
        const exact = values.get(name)![i]!;
        assert.ok(Math.abs(value - exact) <= (/norm|bias/.test(name) ? 0 : 2 ** -12), `${name}[${i}]`);
      });
    // A 127th of the greatest of 32, halved; rows that are no whole blocks are stored as F16.
    writeModel(config, 'Q8_0');
    for (const [name, got] of readAll(path).values)
      got.forEach((value, i) => {
        assert.ok(Math.abs(value - values.get(name)![i]!) <= 0.5 / 127 + 2 ** -11, `${name}[${i}]`);
      });
  });

test('q and k of the architecture llama have the halves of each head interleaved', () => {
  const values = writeModel(config, 'F32');
  const file = openGguf(path);
  const got = new Float32Array(24 * 32);
  file.read('blk.1.attn_q.weight', got);
  file.close();
  const expected = values.get('model.layers.1.self_attn.q_proj.weight')!;
  const row = (from: Float32Array, i: number) => [...from.subarray(i * 32, (i + 1) * 32)];
  for (const [to, from] of [0, 3, 1, 4, 2, 5].entries())
    assert.deepEqual(row(got, 6 + to), row(expected, 6 + from));
});

test('what a model cannot be is named', () => {
  const cases: [change: (m: Map<string, GgufValue>, t: GgufTensorSource[]) => void, message: RegExp][] = [
    [
      (m) => m.set('general.architecture', gguf.string('mamba')),
      /general\.architecture: got "mamba"; Retort runs llama, qwen2, qwen3/,
    ],
    [(m) => m.delete('general.architecture'), /the key general\.architecture is missing/],
    [(m) => m.delete('llama.block_count'), /the key llama\.block_count is missing/],
    [
      (m) => m.set('llama.block_count', gguf.f32(1.5)),
      /llama\.block_count: got 1\.5; it must be a whole number/,
    ],
    [(m) => m.set('llama.block_count', gguf.u32(3)), /has no tensor blk\.2\.attn_norm\.weight/],
    [
      (m) => m.set('llama.embedding_length', gguf.u32(64)),
      /shape of tensor token_embd\.weight .*got \[10,32\]; .*\[10,64\]/,
    ],
    [
      (m) => m.set('llama.attention.head_count', gguf.i32s([4, 4])),
      /head_count: got "an array"; it must be a number, the same/,
    ],
    [(m) => m.set('llama.attention.head_count_kv', gguf.u32(3)), /numKeyValueHeads: got 3/],
    [
      (m) => m.set('llama.attention.value_length', gguf.u32(8)),
      /value_length: got 8; .*values as long as keys \(6\)/,
    ],
    [(m) => m.set('llama.rope.dimension_count', gguf.u32(4)), /dimension_count: got 4; .*whole heads/],
    [(m) => m.set('llama.rope.scaling.factor', gguf.f32(4)), /scaling\.factor: got 4/],
    [(m) => m.set('llama.attention.sliding_window', gguf.u32(9)), /sliding_window: got 9/],
    [(m) => m.set('llama.expert_count', gguf.u32(8)), /expert_count: got 8; .*no experts/],
    [(m) => m.set('tokenizer.ggml.eos_token_id', gguf.u32(10)), /eosTokenIds: got 10/],
    [(_, t) => t.shift(), /has no tensor token_embd\.weight/],
    [
      (_, t) => t.push({ ...t[1]!, name: 'blk.0.attn_q.bias' }),
      /got "blk\.0\.attn_q\.bias"; a model of this architecture/,
    ],
    [
      (_, t) =>
        t.push({ ...t[1]!, name: 'rope_freqs.weight', shape: [3], data: () => Float32Array.of(1, 2, 3) }),
      /tensor rope_freqs\.weight: got \[1,2,3\]; they are not those of Llama 3\.1/,
    ],
    [
      (_, t) => t.splice(0, 1, { ...t[0]!, data: () => new Float32Array(320).fill(Number.NaN) }),
      /value 0 of tensor model\.embed_tokens\.weight: got NaN/,
    ],
  ];
  const values = weights(config);
  const source = {
    config,
    parameters: parameterShapes(config),
    read: (name: string, into: Float32Array) => into.set(values.get(name)!),
  };
  for (const [change, message] of cases) {
    const metadata = modelMetadata(config, { type: 'F32', name: 'x', sampling: {} });
    const tensors = modelTensors(source, 'F32');
    change(metadata, tensors);
    writeGguf(path, metadata, tensors);
    assert.throws(() => readAll(path), refused(message), String(message));
  }
});

test('what a GGUF file cannot say is refused when it is written', () => {
  const metadata = (config: LlamaConfig) => () =>
    modelMetadata(config, { type: 'F32', name: 'x', sampling: {} });
  assert.throws(
    metadata({ ...config, qkvBias: true, headDim: 8, ropeScaling: llama3 }),
    refused(/qwen2 cannot hold scaled/),
  );
  assert.throws(
    metadata({ ...config, qkvBias: true, headDim: 10 }),
    refused(/got 40; llama\.cpp needs hiddenSize \(32\)/),
  );
  assert.throws(
    metadata({ ...config, qkvBias: true, qkNorm: true }),
    refused(/no known architecture has both/),
  );
});

test('files that are no GGUF files, or cut', () => {
  writeModel(config, 'F32');
  const whole = fs.readFileSync(path);
  const opened = (bytes: Uint8Array) => () => {
    fs.writeFileSync(path, bytes);
    openGguf(path).close();
  };
  const patched = (at: number, value: number) => {
    const bytes = Buffer.from(whole);
    bytes.writeUInt32LE(value, at);
    return bytes;
  };
  assert.throws(opened(Buffer.alloc(0)), refused(/0 bytes, too few/));
  assert.throws(opened(patched(0, 0)), refused(/does not begin with the letters GGUF/));
  assert.throws(opened(patched(4, 1)), refused(/got GGUF version 1/));
  assert.throws(opened(patched(4, 0x03000000)), refused(/got GGUF version 50331648/));
  assert.throws(opened(patched(8, 2 ** 31)), refused(/claims 2147483648 tensors/));
  assert.throws(opened(patched(20, 1)), refused(/claims \d+ keys/));
  assert.throws(opened(patched(24, 70000)), refused(/claims 70000 bytes/));
  for (const length of [100, 1000, 2000])
    assert.throws(opened(whole.subarray(0, length)), refused(/truncated|needs|more than the rest/));
  assert.throws(opened(whole.subarray(0, whole.length - 32)), refused(/output\.weight" needs/));
  assert.throws(() => openGguf(scratch), refused(/it is not a file/));
  assert.throws(() => openGguf(join(scratch, 'no.gguf')), refused(/no such file/));
});
