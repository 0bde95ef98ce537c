// Model folders: stories260K in and out, shards, and every way in which a folder can be wrong.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { noStories, stories } from '../../test/support/shared.js';
import { RetortError } from '../errors.js';
import { elementCount, type LlamaConfig } from '../model/config.js';
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
