// A model as a GGUF file: its metadata as a configuration and the other way round, its tensors by Hugging Face's names.
// Names and the order of the rows of q and k are those of llama.cpp's converter (conversion/llama.py).
import { RetortError, refuse } from '../errors.js';
import {
  elementCount,
  type Llama3RopeScaling,
  type LlamaConfig,
  type ParameterShape,
  parameterShapes,
  ropeFactors,
  validateConfig,
} from '../model/config.js';
import { remedyOf } from '../remedy.js';
import { familyNamed, familyOf } from './config-json.js';
import { type GgufFile, type GgufTensorSource, gguf, openGguf, readableTypes } from './gguf.js';
import type { GgufMetadata, GgufTensor, GgufValue } from './gguf-format.js';
import { endTokens, metadataReader, shortestFloat } from './gguf-metadata.js';
import {
  checkFinite,
  type SamplingDefaults,
  type StoredModel,
  samplingValues,
  storedDtype,
} from './stored-model.js';

/** How the matrices of an exported file are stored; vectors are always F32. */
export type GgufType = 'F32' | 'F16' | 'Q8_0';

const inLayer: Readonly<Record<string, string>> = {
  input_layernorm: 'attn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'self_attn.o_proj': 'attn_output',
  post_attention_layernorm: 'ffn_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
};

const outside: Readonly<Record<string, string>> = {
  'model.embed_tokens.weight': 'token_embd.weight',
  'model.norm.weight': 'output_norm.weight',
  'lm_head.weight': 'output.weight',
};

const ROPE_FACTORS = 'rope_freqs.weight';

function ggufName(name: string): string {
  const match = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name);
  return match ? `blk.${match[1]}.${inLayer[match[2]!]}.${match[3]}` : outside[name]!;
}

/**
 * Heads whose rows change their order, or 0. In files of the architecture llama the two halves of a head of q and k,
 * which the rotation turns against each other, are interleaved; in those of Qwen they lie as in Hugging Face's.
 */
function headsInterleaved(name: string, config: LlamaConfig): number {
  if (familyOf(config).modelType !== 'llama') return 0;
  if (name.includes('.q_proj.')) return config.numAttentionHeads;
  return name.includes('.k_proj.') ? config.numKeyValueHeads : 0;
}

/** Reorders the rows of each head in place: `interleave` from halves to pairs, else back. */
function reorderHeads(values: Float32Array, heads: number, headDim: number, interleave: boolean): void {
  const columns = values.length / (heads * headDim);
  const half = headDim / 2;
  for (let head = 0; head < heads; head++) {
    const rows = values.subarray(head * headDim * columns, (head + 1) * headDim * columns);
    const before = rows.slice();
    for (let i = 0; i < headDim; i++) {
      const [inPairs, inHalves] = [i, (i % 2) * half + (i >> 1)];
      const [from, to] = interleave ? [inHalves, inPairs] : [inPairs, inHalves];
      rows.set(before.subarray(from * columns, (from + 1) * columns), to * columns);
    }
  }
}

/**
 * Opens a GGUF file as a model and checks it, before anything of the model's size is allocated.
 * @throws RetortError `bad-model` naming the file, and the key or tensor that does not fit.
 */
export function readGgufModel(path: string): StoredModel & { readonly metadata: GgufMetadata } {
  const file = openGguf(path);
  try {
    const config = configOf(file);
    const parameters = parameterShapes(config);
    for (const parameter of parameters) checkParameter(parameter, file);
    checkStrangers(file, parameters);
    return {
      path,
      config,
      parameters,
      metadata: file.metadata,
      sampling: samplingOf(file),
      dtype: storedDtype(parameters, (name) => file.tensors.get(ggufName(name))!.type.name),
      read(name, into) {
        file.read(ggufName(name), into);
        const heads = headsInterleaved(name, config);
        if (heads > 0) reorderHeads(into, heads, config.headDim, false);
        checkFinite(into, name, path);
      },
      close: () => file.close(),
    };
  } catch (error) {
    file.close();
    throw error;
  }
}

function configOf({ metadata, tensors, path, read }: GgufFile): LlamaConfig {
  const meta = metadataReader(metadata, path);
  const { modelType, qkvBias, qkNorm } = familyNamed(
    meta.string('general.architecture'),
    `${path}: general.architecture`,
  );
  const key = (name: string) => `${modelType}.${name}`;
  const embedding = tensors.get('token_embd.weight');
  if (!embedding)
    throw new RetortError('bad-model', `${path} has no tensor token_embd.weight: it holds no model`);
  const hiddenSize = meta.count(key('embedding_length'));
  const heads = meta.count(key('attention.head_count'));
  const headDim = meta.count(key('attention.key_length'), hiddenSize / heads);
  const need = (name: string, fits: (value: number) => boolean, wanted: string) => {
    const value = meta.optionalNumber(key(name));
    if (value !== undefined && !fits(value))
      throw refuse('bad-model', `${path}: ${key(name)}`, value, `Retort runs models with ${wanted}`);
  };
  need('attention.value_length', (n) => n === headDim, `values as long as keys (${headDim})`);
  need('rope.dimension_count', (n) => n === headDim, `rotary embedding of whole heads (${headDim})`);
  need(
    'rope.scaling.factor',
    (n) => n === 1,
    'rotary embedding unscaled, or scaled by the tensor rope_freqs',
  );
  need('rope.scale_linear', (n) => n === 1, 'rotary embedding unscaled, or scaled by the tensor rope_freqs');
  need('attention.sliding_window', (n) => n === 0, 'attention to the whole context');
  need('expert_count', (n) => n === 0, 'no experts');
  const { bosTokenId, eosTokenIds } = endTokens(metadata, path);
  const ropeTheta = shortestFloat(meta.optionalNumber(key('rope.freq_base')) ?? 10000);
  const base = {
    vocabSize: embedding.shape[0] ?? 0,
    hiddenSize,
    intermediateSize: meta.count(key('feed_forward_length')),
    numHiddenLayers: meta.count(key('block_count')),
    numAttentionHeads: heads,
    numKeyValueHeads: meta.count(key('attention.head_count_kv'), heads),
    headDim,
    maxPositionEmbeddings: meta.count(key('context_length')),
    rmsNormEps: shortestFloat(meta.number(key('attention.layer_norm_rms_epsilon'))),
    ropeTheta,
    ...(qkvBias && { qkvBias }),
    ...(qkNorm && { qkNorm }),
    tieWordEmbeddings: !tensors.has('output.weight'),
    bosTokenId,
    eosTokenIds,
  };
  const valid = (config: LlamaConfig) => {
    try {
      return validateConfig(config);
    } catch (error) {
      throw new RetortError('bad-model', `${path}: ${(error as Error).message}`, { cause: error });
    }
  };
  const config = valid(base);
  const factors = tensors.get(ROPE_FACTORS);
  if (!factors) return config;
  checkShape(factors, [headDim / 2], path);
  const values = new Float32Array(headDim / 2);
  read(ROPE_FACTORS, values);
  return valid({ ...config, ropeScaling: scalingOf(values, config, path) });
}

/** What Llama 3.1 to 3.3 have beside the factor. */
const llama3 = { lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositionEmbeddings: 8192 };

// A file holds what the frequencies are divided by, config.json the rule; the rule is found by trying the known one.
function scalingOf(factors: Float32Array, config: LlamaConfig, path: string): Llama3RopeScaling | undefined {
  const ropeScaling = { factor: shortestFloat(Math.max(...factors)), ...llama3 };
  if (factors.every((factor) => factor === 1)) return undefined;
  const expected = ropeFactors({ ...config, ropeScaling })!;
  if (expected.every((value, i) => Math.abs(value - factors[i]!) <= 1e-3 * value)) return ropeScaling;
  throw refuse(
    'bad-model',
    `${path}: tensor ${ROPE_FACTORS}`,
    [...factors],
    'they are not those of Llama 3.1 (8192 positions, factors 1 and 4): take the model from its Hugging Face folder',
  );
}

function checkParameter({ name, shape }: ParameterShape, { tensors, path }: GgufFile): void {
  const tensor = tensors.get(ggufName(name));
  if (!tensor) throw new RetortError('bad-model', `${path} has no tensor ${ggufName(name)}: copy it again`);
  checkShape(tensor, shape, path);
  if (!readableTypes.includes(tensor.type.name))
    throw refuse(
      'bad-model',
      `data type of tensor ${tensor.name} in ${path}`,
      tensor.type.name,
      `Retort reads ${readableTypes.join(', ')}`,
    );
}

function checkShape(tensor: GgufTensor, shape: readonly number[], path: string): void {
  if (String(tensor.shape) === String(shape)) return;
  throw refuse(
    'bad-model',
    `shape of tensor ${tensor.name} in ${path}`,
    tensor.shape,
    `the metadata asks for ${JSON.stringify(shape)}`,
  );
}

function checkStrangers({ tensors, path }: GgufFile, parameters: readonly ParameterShape[]): void {
  const known = new Set([...parameters.map(({ name }) => ggufName(name)), ROPE_FACTORS]);
  for (const name of tensors.keys())
    if (!known.has(name))
      throw refuse('bad-model', `tensor in ${path}`, name, 'a model of this architecture has no such tensor');
}

const samplingKeys = {
  temperature: 'general.sampling.temp',
  topK: 'general.sampling.top_k',
  topP: 'general.sampling.top_p',
  minP: 'general.sampling.min_p',
  repetitionPenalty: 'general.sampling.penalty_repeat',
} as const;

function samplingOf({ metadata, path }: GgufFile): SamplingDefaults {
  const meta = metadataReader(metadata, path);
  const given = Object.entries(samplingKeys).flatMap(([name, key]) => {
    const value = meta.optionalNumber(key);
    if (value === undefined) return [];
    const checked = samplingValues[name as keyof SamplingDefaults].safeParse(shortestFloat(value), {
      error: remedyOf,
    });
    if (!checked.success)
      throw refuse('bad-model', `${key} in ${path}`, value, checked.error.issues[0]!.message);
    return [[name, checked.data]];
  });
  return Object.fromEntries(given);
}

/** The metadata of a model, its tokenizer's apart. @throws RetortError `bad-model` for what no GGUF can say */
export function modelMetadata(
  config: LlamaConfig,
  { type, name, sampling }: { type: GgufType; name: string; sampling: SamplingDefaults },
): Map<string, GgufValue> {
  const { modelType } = familyOf(config);
  checkExpressible(config, modelType);
  const key = (suffix: string) => `${modelType}.${suffix}`;
  const { string, u32, f32 } = gguf;
  const metadata = new Map<string, GgufValue>([
    ['general.architecture', string(modelType)],
    ['general.type', string('model')],
    ['general.name', string(name)],
    ['general.file_type', u32({ F32: 0, F16: 1, Q8_0: 7 }[type])],
    [key('vocab_size'), u32(config.vocabSize)],
    [key('context_length'), u32(config.maxPositionEmbeddings)],
    [key('embedding_length'), u32(config.hiddenSize)],
    [key('block_count'), u32(config.numHiddenLayers)],
    [key('feed_forward_length'), u32(config.intermediateSize)],
    [key('attention.head_count'), u32(config.numAttentionHeads)],
    [key('attention.head_count_kv'), u32(config.numKeyValueHeads)],
    [key('attention.key_length'), u32(config.headDim)],
    [key('attention.value_length'), u32(config.headDim)],
    [key('attention.layer_norm_rms_epsilon'), f32(config.rmsNormEps)],
    [key('rope.dimension_count'), u32(config.headDim)],
    [key('rope.freq_base'), f32(config.ropeTheta)],
  ]);
  if (type === 'Q8_0') metadata.set('general.quantization_version', u32(2));
  for (const [field, samplingKey] of Object.entries(samplingKeys)) {
    const value = sampling[field as keyof SamplingDefaults];
    if (value !== undefined)
      metadata.set(samplingKey, field === 'topK' ? { type: 'int32', value } : f32(value));
  }
  return metadata;
}

// llama.cpp has one place for the factors, in the architecture llama, and takes Qwen2's heads to fill its width.
function checkExpressible(config: LlamaConfig, modelType: string): void {
  const { numAttentionHeads, headDim, hiddenSize } = config;
  if (config.ropeScaling && modelType !== 'llama')
    throw new RetortError(
      'bad-model',
      `a GGUF file of ${modelType} cannot hold scaled rotary embedding; export it as hf`,
    );
  if (modelType === 'qwen2' && numAttentionHeads * headDim !== hiddenSize)
    throw refuse(
      'bad-model',
      'heads times headDim of a Qwen2 model for GGUF',
      numAttentionHeads * headDim,
      `llama.cpp needs hiddenSize (${hiddenSize}); export it as hf`,
    );
}

/** The tensors of a GGUF file of a model, each read when its turn comes. */
export function modelTensors(
  { config, parameters, read }: Pick<StoredModel, 'config' | 'parameters' | 'read'>,
  type: GgufType,
): GgufTensorSource[] {
  const factors = ropeFactors(config);
  const tensors = parameters.map(
    ({ name, shape }): GgufTensorSource => ({
      name: ggufName(name),
      shape,
      type: typeOf(shape, type),
      data() {
        const values = new Float32Array(elementCount(shape));
        read(name, values);
        const heads = headsInterleaved(name, config);
        if (heads > 0) reorderHeads(values, heads, config.headDim, true);
        return values;
      },
    }),
  );
  if (!factors) return tensors;
  const data = () => Float32Array.from(factors);
  return [{ name: ROPE_FACTORS, shape: [factors.length], type: 'F32', data }, ...tensors];
}

// Rows that are no whole blocks cannot be quantized; llama.cpp's converter stores them as F16 too.
function typeOf(shape: readonly number[], type: GgufType): GgufType {
  if (shape.length === 1) return 'F32';
  return type === 'Q8_0' && shape[1]! % 32 !== 0 ? 'F16' : type;
}
