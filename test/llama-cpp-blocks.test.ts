// Quantized blocks against ggml's own functions, called through koffi; skipped where either is not installed.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { writeModelFolder } from '../src/checkpoint/folder.js';
import { openGguf } from '../src/checkpoint/gguf.js';
import { dequantizers, quantizers } from '../src/checkpoint/gguf-blocks.js';
import { blockTypes } from '../src/checkpoint/gguf-format.js';
import { narrow } from '../src/checkpoint/half.js';
import { openModel } from '../src/checkpoint/open-model.js';
import { whyNotX64 } from '../src/compute/target/x64/detect.js';
import { elementCount, parameterShapes } from '../src/model/config.js';
import { exportModel } from '../src/publish/export.js';
import { createTokenizer } from '../src/text/tokenizer.js';
import { libraries, noLlamaCpp } from './support/llama-cpp.js';
import { noise } from './support/op.js';
import { sentencePieceLike } from './support/tokenizers.js';

const sizes = {
  hiddenSize: 256,
  intermediateSize: 288,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 64,
  maxPositionEmbeddings: 64,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  tieWordEmbeddings: false,
};

/** Rows of numbers of many sizes, some of them 0, some blocks all 0. */
function numbers(count: number): Float32Array {
  const values = new Float32Array(noise(count, 9));
  values.forEach((x, i) => {
    const block = Math.floor(i / 256);
    values[i] = block % 7 === 3 ? 0 : x * 10 ** ((block % 9) - 5);
  });
  return values;
}

describe('ggml', { skip: noLlamaCpp || (whyNotX64('avx2') && 'koffi calls it on x86-64 Linux only') }, () => {
  const koffi = createRequire(import.meta.url)('koffi') as {
    load(path: string): { func(signature: string): (...args: unknown[]) => unknown };
    proto(signature: string): unknown;
    pointer(type: unknown): unknown;
    register(callback: () => void, type: unknown): unknown;
  };
  const ggml = koffi.load(`${libraries}/libggml-base.so`);
  const quantize = ggml.func(
    'size_t ggml_quantize_chunk(int type, const float *src, _Out_ void *dst, int64_t start, int64_t rows, int64_t columns, const float *imatrix)',
  );
  const count = 256 * 40;
  const values = numbers(count);

  for (const [name, dequantize] of Object.entries(dequantizers))
    test(`${name} is dequantized bit for bit`, () => {
      const { id, elements, bytes } = blockTypes.find((type) => type.name === name)!;
      const quantized = new Uint8Array((count / elements) * bytes);
      assert.equal(quantize(id, values, quantized, 0, count / 256, 256, null), quantized.length);
      const theirs = new Float32Array(count);
      ggml.func(
        `void dequantize_row_${name.toLowerCase().replace('_k', '_K')}(const void *x, _Out_ float *y, int64_t k)`,
      )(quantized, theirs, count);
      const ours = new Float32Array(count);
      dequantize(quantized, ours);
      assert.deepEqual(ours, theirs);
      const [greatest, worst] = [
        Math.max(...values),
        Math.max(...ours.map((x, i) => Math.abs(x - values[i]!))),
      ];
      assert.ok(worst > 0 && worst < greatest / 8, `${worst} of ${greatest}`);
    });

  test('a file that llama.cpp quantized to Q4_K_M holds the weights', () => {
    const libllama = koffi.load(
      `${libraries}/${fs.readdirSync(libraries).find((name) => name.startsWith('libllama.'))}`,
    );
    // A large struct is returned through a pointer to it, given as a hidden first argument.
    const defaults = libllama.func('void llama_model_quantize_default_params(_Out_ void *params)');
    const quantizeModel = libllama.func(
      'uint32_t llama_model_quantize(const char *from, const char *to, void *params)',
    );
    const logger = koffi.pointer(koffi.proto('void quiet(int level, const char *text, void *data)'));
    const quiet = koffi.register(() => {}, logger);
    libllama.func('void llama_log_set(void *callback, void *data)')(quiet, null);
    const params = Buffer.alloc(1024);
    defaults(params);
    params.writeInt32LE(1, 0); // nthread: the callback works on this thread alone
    params.writeInt32LE(15, 4); // ftype: LLAMA_FTYPE_MOSTLY_Q4_K_M
    const dir = fs.mkdtempSync(join(tmpdir(), 'retort-quantized-'));
    try {
      const [whole, small] = [join(dir, 'whole.gguf'), join(dir, 'small.gguf')];
      const tokenizer = createTokenizer(sentencePieceLike(), { source: 'x' });
      const config = { ...sizes, vocabSize: tokenizer.vocabSize, bosTokenId: 1, eosTokenIds: [2] };
      const tensors = parameterShapes(config).map(({ name, shape }, i) => ({
        name,
        shape,
        data: new Float32Array(noise(elementCount(shape), i)),
      }));
      writeModelFolder(join(dir, 'model'), { config, tensors, tokenizer });
      exportModel({ model: join(dir, 'model'), out: whole, format: 'gguf' });
      assert.equal(quantizeModel(whole, small, params), 0);
      const file = openGguf(small);
      const types = new Set([...file.tensors.values()].map(({ type }) => type.name));
      file.close();
      // Rows that are no whole super-blocks fall back to Q5_0 and Q8_0.
      assert.deepEqual([...types].sort(), ['F32', 'Q4_K', 'Q5_0', 'Q6_K', 'Q8_0']);
      const model = openModel(small);
      assert.deepEqual(model.config, config);
      for (const { name, shape, data } of tensors) {
        const read = new Float32Array(data.length);
        model.read(name, read);
        const worst = Math.max(...read.map((x, i) => Math.abs(x - data[i]!)));
        assert.ok(worst <= (shape.length === 1 ? 0 : 0.12), `${name}: ${worst}`);
      }
      model.close();
    } finally {
      fs.rmSync(dir, { recursive: true, force: true });
    }
  });

  test('Q8_0 and F16 are written bit for bit', () => {
    const theirs = new Uint8Array((count / 32) * 34);
    quantize(8, values, theirs, 0, count / 256, 256, null);
    assert.deepEqual(quantizers.Q8_0!(values), theirs);
  });

  test('16-bit numbers are narrowed bit for bit', () => {
    const convert = (name: string, from: Float32Array) => {
      const into = new Uint16Array(from.length);
      ggml.func(`void ggml_fp32_to_${name}_row(const float *x, _Out_ uint16_t *y, int64_t n)`)(
        from,
        into,
        from.length,
      );
      return into;
    };
    // Every pattern of the upper 17 bits, with lower bits at, below and above the middle between two float16.
    const bits = Uint32Array.from(
      { length: 3 << 17 },
      (_, i) => (Math.floor(i / 3) << 15) + [0, 0x1000, 0x7fff][i % 3]!,
    );
    const floats = new Float32Array(bits.buffer).filter((x) => !Number.isNaN(x));
    assert.ok(floats.length > 350_000);
    assert.deepEqual(narrow('F16', floats), convert('fp16', floats));
    assert.deepEqual(narrow('BF16', floats), convert('bf16', floats));
  });
});
