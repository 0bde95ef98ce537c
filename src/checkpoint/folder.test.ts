// Model folders: stories260K in and out, shards, and every way in which a folder can be wrong.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { noStories, stories } from '../../test/support/shared.js';
import { RetortError } from '../errors.js';
import { elementCount, type LlamaConfig, parameterCount, parameterShapes } from '../model/config.js';
import { parseLlamaConfig } from './config-json.js';
import { checkVocabulary, readModelFolder, writeModelFolder } from './folder.js';
import { type NamedTensor, writeSafetensors } from './safetensors.js';
import type { StoredModel } from './stored-model.js';

const scratch = fs.mkdtempSync(join(tmpdir(), 'retort-folder-'));
after(() => fs.rmSync(scratch, { recursive: true, force: true }));
const dir = join(scratch, 'model');
beforeEach(() => fs.rmSync(dir, { recursive: true, force: true }));

const config: LlamaConfig = {
  vocabSize: 10,
  hiddenSize: 6,
  intermediateSize: 5,
  numHiddenLayers: 1,
  numAttentionHeads: 2,
  numKeyValueHeads: 1,
  headDim: 4,
  maxPositionEmbeddings: 16,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  tieWordEmbeddings: false,
  bosTokenId: null,
  eosTokenIds: [1, 2],
};

function readAll(folder: StoredModel): Map<string, Float32Array> {
  const values = new Map<string, Float32Array>();
  for (const { name, shape } of folder.parameters) {
    const into = new Float32Array(elementCount(shape));
    folder.read(name, into);
    values.set(name, into);
  }
  return values;
}

function tensorsOf(
  folder: StoredModel,
): Array<{ name: string; shape: readonly number[]; data: Float32Array }> {
  const values = readAll(folder);
  return folder.parameters.map(({ name, shape }) => ({ name, shape, data: values.get(name)! }));
}

/** Writes a small valid folder and gives its tensors. */
function writeSmall(): (NamedTensor & { data: Float32Array })[] {
  const shapes: Array<[string, number[]]> = [
    ['model.embed_tokens.weight', [10, 6]],
    ['model.layers.0.input_layernorm.weight', [6]],
    ['model.layers.0.self_attn.q_proj.weight', [8, 6]],
    ['model.layers.0.self_attn.k_proj.weight', [4, 6]],
    ['model.layers.0.self_attn.v_proj.weight', [4, 6]],
    ['model.layers.0.self_attn.o_proj.weight', [6, 8]],
    ['model.layers.0.post_attention_layernorm.weight', [6]],
    ['model.layers.0.mlp.gate_proj.weight', [5, 6]],
    ['model.layers.0.mlp.up_proj.weight', [5, 6]],
    ['model.layers.0.mlp.down_proj.weight', [6, 5]],
    ['model.norm.weight', [6]],
    ['lm_head.weight', [10, 6]],
  ];
  const tensors = shapes.map(([name, shape], t) => ({
    name,
    shape,
    data: Float32Array.from({ length: elementCount(shape) }, (_, i) => t + i / 7),
  }));
  writeModelFolder(dir, { config, tensors });
  return tensors;
}

const refused = (message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof RetortError, String(error));
  assert.match(error.message, message);
  return true;
};

test('stories260K is read, and written again with the same bytes of weights', { skip: noStories }, () => {
  const folder = readModelFolder(stories as string);
  assert.equal(folder.config.headDim, 8);
  assert.deepEqual(folder.config.eosTokenIds, [2]);
  const tensors = tensorsOf(folder);
  assert.equal(
    tensors.reduce((sum, { data }) => sum + data.length, 0),
    260032,
  );
  writeModelFolder(dir, { config: folder.config, tensors, sampling: { temperature: 0.6 } });
  const again = readModelFolder(dir);
  assert.deepEqual(again.config, folder.config);
  assert.deepEqual(readAll(again), readAll(folder));
  const generation = JSON.parse(fs.readFileSync(join(dir, 'generation_config.json'), 'utf8'));
  assert.deepEqual(generation, { bos_token_id: 1, eos_token_id: 2, do_sample: true, temperature: 0.6 });
  folder.close();
  again.close();
});

test('an untied model with a head dimension of its own survives, and a folder with files is not overwritten', () => {
  const tensors = writeSmall();
  const folder = readModelFolder(dir);
  assert.deepEqual(folder.config, config);
  assert.deepEqual(
    [...readAll(folder).values()],
    tensors.map(({ data }) => data),
  );
  folder.close();
  assert.throws(() => writeModelFolder(dir, { config, tensors: [] }), refused(/it holds other files/));
});

const scaling = { factor: 32, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositionEmbeddings: 8192 };
const families: [name: string, change: Partial<LlamaConfig>, architecture: string][] = [
  ['llama', { ropeScaling: scaling, ropeTheta: 500000 }, 'LlamaForCausalLM'],
  ['qwen2', { qkvBias: true, tieWordEmbeddings: true }, 'Qwen2ForCausalLM'],
  ['qwen3', { qkNorm: true, headDim: 8 }, 'Qwen3ForCausalLM'],
];

for (const [name, change, architecture] of families)
  test(`${name}: written and read, in 32 and in 16 bits`, () => {
    const whole: LlamaConfig = { ...config, ...change };
    const tensors = parameterShapes(whole).map(({ name, shape }, t) => ({
      name,
      shape,
      data: Float32Array.from({ length: elementCount(shape) }, (_, i) => t + i / 8),
    }));
    for (const [dtype, torch] of [
      ['F32', 'float32'],
      ['F16', 'float16'],
      ['BF16', 'bfloat16'],
    ] as const) {
      fs.rmSync(dir, { recursive: true, force: true });
      const sampling = { temperature: 0, topK: 20, topP: 0.95, minP: 0, repetitionPenalty: 1.1 };
      // Each tensor is asked for once, when its turn comes.
      const asked: string[] = [];
      const given = tensors.map(({ data, ...rest }) => ({
        ...rest,
        data() {
          asked.push(rest.name);
          return data;
        },
      }));
      writeModelFolder(dir, { config: whole, tensors: given, sampling, dtype });
      assert.deepEqual(
        asked,
        tensors.map(({ name }) => name),
      );
      const folder = readModelFolder(dir);
      assert.deepEqual(folder.config, whole);
      assert.deepEqual(folder.sampling, sampling);
      assert.equal(folder.dtype, dtype === 'BF16' ? 'bfloat16' : 'float32');
      for (const { name, data } of tensors) {
        const into = new Float32Array(new SharedArrayBuffer(4 * data.length));
        folder.read(name, into);
        const worst = Math.max(...into.map((x, i) => Math.abs(x - data[i]!) / Math.max(1, data[i]!)));
        assert.ok(worst <= { F32: 0, F16: 2 ** -11, BF16: 2 ** -8 }[dtype], `${name}: ${worst}`);
      }
      folder.close();
      const json = JSON.parse(fs.readFileSync(join(dir, 'config.json'), 'utf8'));
      assert.deepEqual(
        [json.model_type, json.architectures, json.torch_dtype],
        [name, [architecture], torch],
      );
    }
  });

test('config.json as published models have it', () => {
  const parse = (json: object) => parseLlamaConfig(JSON.stringify(json), 'config.json');
  const common = {
    hidden_act: 'silu',
    initializer_range: 0.02,
    rms_norm_eps: 1e-6,
    torch_dtype: 'bfloat16',
    transformers_version: '4.51.0',
    use_cache: true,
  };
  // Llama 3.2 1B, Qwen2.5 0.5B, Qwen3 0.6B, DeepSeek-R1-Distill-Qwen 1.5B, SmolLM2 135M, transformers 5's way of rope.
  const llama = parse({
    ...common,
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    attention_bias: false,
    attention_dropout: 0,
    bos_token_id: 128000,
    eos_token_id: [128001, 128008, 128009],
    head_dim: 64,
    hidden_size: 2048,
    intermediate_size: 8192,
    max_position_embeddings: 131072,
    mlp_bias: false,
    num_attention_heads: 32,
    num_hidden_layers: 16,
    num_key_value_heads: 8,
    pretraining_tp: 1,
    rms_norm_eps: 1e-5,
    rope_scaling: {
      factor: 32.0,
      high_freq_factor: 4.0,
      low_freq_factor: 1.0,
      original_max_position_embeddings: 8192,
      rope_type: 'llama3',
    },
    rope_theta: 500000,
    tie_word_embeddings: true,
    vocab_size: 128256,
  });
  assert.deepEqual(llama.ropeScaling, scaling);
  assert.deepEqual(llama.eosTokenIds, [128001, 128008, 128009]);
  assert.equal(parameterCount(llama), 1_235_814_400);
  const qwen2 = {
    ...common,
    architectures: ['Qwen2ForCausalLM'],
    model_type: 'qwen2',
    bos_token_id: 151643,
    eos_token_id: 151645,
    hidden_size: 896,
    intermediate_size: 4864,
    max_position_embeddings: 32768,
    max_window_layers: 21,
    num_attention_heads: 14,
    num_hidden_layers: 24,
    num_key_value_heads: 2,
    rope_theta: 1000000,
    sliding_window: 32768,
    tie_word_embeddings: true,
    use_sliding_window: false,
    vocab_size: 151936,
  };
  assert.equal(parameterCount(parse(qwen2)), 494_032_768);
  const distilled = {
    ...qwen2,
    hidden_size: 1536,
    intermediate_size: 8960,
    num_attention_heads: 12,
    num_hidden_layers: 28,
    tie_word_embeddings: false,
    use_mrope: false,
    rope_theta: 10000,
  };
  assert.equal(parameterCount(parse(distilled)), 1_777_088_000);
  const qwen3 = parse({
    ...common,
    architectures: ['Qwen3ForCausalLM'],
    model_type: 'qwen3',
    attention_bias: false,
    bos_token_id: 151643,
    eos_token_id: 151645,
    head_dim: 128,
    hidden_size: 1024,
    intermediate_size: 3072,
    layer_types: Array.from({ length: 28 }, () => 'full_attention'),
    max_position_embeddings: 40960,
    num_attention_heads: 16,
    num_hidden_layers: 28,
    num_key_value_heads: 8,
    rope_parameters: { rope_type: 'default', rope_theta: 1000000 },
    sliding_window: null,
    tie_word_embeddings: true,
    use_sliding_window: false,
    vocab_size: 151936,
  });
  assert.deepEqual([qwen3.ropeTheta, qwen3.qkNorm, qwen3.ropeScaling], [1000000, true, undefined]);
  assert.equal(parameterCount(qwen3), 596_049_920);
  const smol = parse({
    ...common,
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    bos_token_id: 0,
    eos_token_id: 0,
    hidden_size: 576,
    intermediate_size: 1536,
    is_llama_config: true,
    max_position_embeddings: 8192,
    num_attention_heads: 9,
    num_hidden_layers: 30,
    num_key_value_heads: 3,
    rope_interleaved: false,
    rope_scaling: null,
    rope_theta: 100000,
    tie_word_embeddings: true,
    vocab_size: 49152,
  });
  assert.equal(parameterCount(smol), 134_515_008);
});

test('shards with an index', () => {
  const tensors = writeSmall();
  fs.rmSync(join(dir, 'model.safetensors'));
  const shard = (i: number) => `model-0000${i}-of-00002.safetensors`;
  writeSafetensors(join(dir, shard(1)), tensors.slice(0, 5));
  writeSafetensors(join(dir, shard(2)), tensors.slice(5));
  const map = Object.fromEntries(tensors.map(({ name }, i) => [name, shard(i < 5 ? 1 : 2)]));
  const write = (weight_map: object) =>
    fs.writeFileSync(join(dir, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map }));
  write(map);
  const folder = readModelFolder(dir);
  assert.deepEqual(
    [...readAll(folder).values()],
    tensors.map(({ data }) => data),
  );
  folder.close();
  write({ ...map, 'lm_head.weight': shard(1) });
  assert.throws(() => readModelFolder(dir), refused(/lm_head\.weight is not in its shard model-00001/));
  write({ ...map, 'lm_head.weight': '../x.safetensors' });
  assert.throws(() => readModelFolder(dir), refused(/shard of lm_head\.weight: got "\.\.\/x/));
  write({ ...map, 'lm_head.weight': 'x.safetensors' });
  assert.throws(() => readModelFolder(dir), refused(/x\.safetensors: there is no such file/));
  fs.writeFileSync(join(dir, 'model.safetensors.index.json'), '{"weight_map":[]}');
  assert.throws(() => readModelFolder(dir), refused(/index\.json: field weight_map/));
});

const llama3 = {
  rope_type: 'llama3',
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 32,
};

test('config.json fields that Retort cannot honour are named', () => {
  writeSmall();
  const path = join(dir, 'config.json');
  const good = JSON.parse(fs.readFileSync(path, 'utf8'));
  const cases: Array<[object, RegExp]> = [
    [{ model_type: 'mamba' }, /field model_type: got "mamba"; Retort runs llama, qwen2, qwen3/],
    [{ model_type: undefined }, /field model_type/],
    [{ architectures: ['LlamaForSequenceClassification'] }, /field architectures/],
    [{ attention_bias: true }, /field attention_bias: got true/],
    [{ mlp_bias: true }, /field mlp_bias: got true/],
    [{ rope_scaling: { rope_type: 'llama3', factor: 8 } }, /field rope_scaling\.low_freq_factor is missing/],
    [{ rope_scaling: { type: 'linear', factor: 8 } }, /field rope_scaling: got .*linear/],
    [
      { rope_parameters: { full_attention: { rope_type: 'default' } } },
      /field rope_parameters: got .*full_att/,
    ],
    [
      { rope_scaling: { ...llama3, high_freq_factor: 1 } },
      /ropeScaling\.highFreqFactor: got 1; it must be above/,
    ],
    [{ model_type: 'qwen2' }, /field architectures: got \["LlamaForCausalLM"\]; .*Qwen2ForCausalLM/],
    [{ use_sliding_window: true }, /field use_sliding_window: got true/],
    [{ layer_types: ['full_attention', 'sliding_attention'] }, /field layer_types: got "sliding_attention"/],
    [{ rope_scaling: { factor: 8 } }, /field rope_scaling/],
    [{ rope_parameters: { rope_type: 'yarn' } }, /field rope_parameters: got .*yarn/],
    [{ partial_rotary_factor: 0.5 }, /partial_rotary_factor/],
    [{ hidden_act: 'gelu' }, /field hidden_act/],
    [{ quantization_config: { bits: 4 } }, /quantization_config/],
    [{ hidden_size: '6' }, /field hidden_size/],
    [{ hidden_size: -6 }, /config\.json: hiddenSize: got -6/],
    [{ hidden_size: 7, head_dim: null }, /config\.json: headDim: got 3\.5/],
    [{ num_key_value_heads: 3 }, /numKeyValueHeads: got 3/],
    [{ eos_token_id: 10 }, /eosTokenIds: got 10/],
    [
      { vocab_size: 11 },
      /shape of tensor model\.embed_tokens\.weight.*got \[10,6\]; config\.json asks for \[11,6\]/,
    ],
    [{ intermediate_size: 6 }, /shape of tensor model\.layers\.0\.mlp\.gate_proj\.weight/],
    [{ num_hidden_layers: 2 }, /has no tensor model\.layers\.1\.input_layernorm\.weight/],
  ];
  for (const [change, message] of cases) {
    fs.writeFileSync(path, JSON.stringify({ ...good, ...change }));
    assert.throws(() => readModelFolder(dir), refused(message), JSON.stringify(change));
  }
  fs.writeFileSync(
    path,
    JSON.stringify({ ...good, rope_parameters: { rope_type: 'default', rope_theta: 500 } }),
  );
  const folder = readModelFolder(dir);
  assert.equal(folder.config.ropeTheta, 500);
  folder.close();
});

test('missing files and wrong tensors', () => {
  const tensors = writeSmall();
  const weights = join(dir, 'model.safetensors');
  const withTensors = (list: NamedTensor[], message: RegExp) => {
    writeSafetensors(weights, list);
    assert.throws(() => readModelFolder(dir), refused(message));
  };
  withTensors(tensors.slice(0, -1), /has no tensor lm_head\.weight \(or tie_word_embeddings/);
  const bias = { name: 'model.layers.0.self_attn.q_proj.bias', shape: [8], data: new Float32Array(8) };
  withTensors([...tensors, bias], /got "model\.layers\.0\.self_attn\.q_proj\.bias"; a model of this config/);
  const ints = { name: 'model.norm.weight', shape: [6], data: new Int32Array(6) };
  withTensors(
    tensors.map((one) => (one.name === ints.name ? ints : one)),
    /model\.norm\.weight .*got "I32"/,
  );
  const flat = { name: 'model.norm.weight', shape: [6, 1], data: new Float32Array(6) };
  withTensors(
    tensors.map((one) => (one.name === flat.name ? flat : one)),
    /got \[6,1\]; config\.json asks for \[6\]/,
  );
  fs.truncateSync(weights, fs.statSync(weights).size - 4);
  assert.throws(() => readModelFolder(dir), refused(/point outside the file/));
  fs.rmSync(weights);
  assert.throws(() => readModelFolder(dir), refused(/model\.safetensors: there is no such file/));
  fs.rmSync(join(dir, 'config.json'));
  assert.throws(
    () => readModelFolder(dir),
    refused(/config\.json: there is no such file.*Hugging Face layout/),
  );
});

test('weights that are not finite are named', () => {
  const tensors = writeSmall();
  for (const bad of [Number.NaN, Number.NEGATIVE_INFINITY]) {
    const data = new Float32Array(60);
    data[41] = bad;
    writeSafetensors(join(dir, 'model.safetensors'), [
      ...tensors.slice(0, -1),
      { name: 'lm_head.weight', shape: [10, 6], data },
    ]);
    const folder = readModelFolder(dir);
    assert.throws(() => readAll(folder), refused(/value 41 of tensor lm_head\.weight: got (NaN|-Infinity)/));
    folder.close();
  }
});

test('a tied model may hold its head twice; a folder on a missing path names it', () => {
  const tensors = writeSmall().slice(0, -1);
  fs.rmSync(dir, { recursive: true });
  writeModelFolder(dir, { config: { ...config, tieWordEmbeddings: true }, tensors });
  const head = { ...tensors[0]!, name: 'lm_head.weight' };
  writeSafetensors(join(dir, 'model.safetensors'), [...tensors, head]);
  readModelFolder(dir).close();
  assert.throws(
    () => readModelFolder(join(scratch, 'nowhere')),
    refused(/nowhere\/config\.json: there is no such file/),
  );
});

test('writing refuses missing, strange and misshapen tensors', () => {
  const tensors = writeSmall();
  const other = join(scratch, 'other');
  const write = (list: typeof tensors) => () => writeModelFolder(other, { config, tensors: list });
  assert.throws(write(tensors.slice(1)), refused(/tensor model\.embed_tokens\.weight is missing/));
  assert.throws(
    write([...tensors, { ...tensors[0]!, name: 'x' }]),
    refused(/got "x"; the model has no such/),
  );
  assert.throws(
    write([{ ...tensors[0]!, shape: [6, 10] }, ...tensors.slice(1)]),
    refused(/shape of tensor model\.embed/),
  );
  assert.equal(fs.existsSync(other), false);
});

test('a tokenizer of another model is refused, a padded vocabulary is not', () => {
  const check = (tokenizer: number, model: number) => () =>
    checkVocabulary({ vocabSize: tokenizer }, { ...config, vocabSize: model });
  assert.throws(check(513, 512), refused(/model is 512, of the tokenizer: got 513/));
  assert.throws(check(60, 512), refused(/model is 512, of the tokenizer: got 60/));
  assert.throws(check(512, 32000), refused(/32000/));
  for (const [tokenizer, model] of [
    [512, 512],
    [60, 64],
    [32011, 32064],
    [151665, 151936],
  ])
    check(tokenizer!, model!)();
});
