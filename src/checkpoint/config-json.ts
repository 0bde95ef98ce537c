// config.json of a Hugging Face folder: read into a LlamaConfig, refused where Retort would compute something else.
import { z } from 'zod';
import { RetortError, refuse } from '../errors.js';
import { type Llama3RopeScaling, type LlamaConfig, validateConfig } from '../model/config.js';
import { checkJson, parseJson } from './files.js';

/** A family of architectures: what Retort's model does for it beyond Llama. */
interface Family {
  readonly modelType: string;
  readonly architecture: string;
  readonly qkvBias?: true;
  readonly qkNorm?: true;
  /** Where the file names none, as in transformers. */
  readonly headDim?: number;
}

const families: readonly Family[] = [
  { modelType: 'llama', architecture: 'LlamaForCausalLM' },
  { modelType: 'qwen2', architecture: 'Qwen2ForCausalLM', qkvBias: true },
  { modelType: 'qwen3', architecture: 'Qwen3ForCausalLM', qkNorm: true, headDim: 128 },
];

const known = (field: 'modelType' | 'architecture') => families.map((family) => family[field]).join(', ');

/** The family that a configuration belongs to. @throws RetortError `bad-model` where it is of none */
export function familyOf(config: LlamaConfig): Family {
  const found = families.find(
    ({ qkvBias = false, qkNorm = false }) =>
      qkvBias === (config.qkvBias ?? false) && qkNorm === (config.qkNorm ?? false),
  );
  if (found) return found;
  throw new RetortError(
    'bad-model',
    `no known architecture has both biases and norms on q and k; known are ${known('modelType')}: leave one out`,
  );
}

const count = z.number().int();
const tokenId = z.number().int().min(0);
const rope = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: z.number().optional(),
  factor: z.number().optional(),
  low_freq_factor: z.number().optional(),
  high_freq_factor: z.number().optional(),
  original_max_position_embeddings: z.number().optional(),
});

// Defaults are those of transformers.
const schema = z.looseObject({
  architectures: z.array(z.string()).nullish(),
  model_type: z.string(),
  vocab_size: count,
  hidden_size: count,
  intermediate_size: count,
  num_hidden_layers: count,
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  max_position_embeddings: count.default(2048),
  rms_norm_eps: z.number().default(1e-6),
  rope_theta: z.number().nullish(),
  rope_scaling: rope.nullish(),
  rope_parameters: rope.nullish(),
  partial_rotary_factor: z.number().nullish(),
  tie_word_embeddings: z.boolean().default(false),
  hidden_act: z.string().default('silu'),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  use_sliding_window: z.boolean().nullish(),
  layer_types: z.array(z.string()).nullish(),
  quantization_config: z.unknown().optional(),
  bos_token_id: z.union([tokenId, z.array(tokenId)]).nullish(),
  eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish(),
});

type ConfigJson = z.infer<typeof schema>;

/**
 * Reads the text of a config.json.
 * @throws RetortError `bad-model` naming `path` and the field: a missing or wrong one, or one that asks for what
 * Retort's model does not do (another architecture, other biases, other scalings of the rotary embedding, sliding
 * windows, quantized weights).
 */
export function parseLlamaConfig(text: string, path: string): LlamaConfig {
  const plain = parseJson(text, path, z.looseObject({}), 'bad-model');
  if (String(plain.format).startsWith('retort-run'))
    throw new RetortError(
      'bad-model',
      `${path} is that of a run, not of a model; name one of the run's models: checkpoints/step-N in its folder`,
    );
  // Looked at before the fields that another architecture may lack.
  if (typeof plain.model_type === 'string') familyNamed(plain.model_type, `${path}: field model_type`);
  const json = checkJson(plain, path, schema, 'bad-model');
  const family = familyNamed(json.model_type, `${path}: field model_type`);
  refuseOthers(json, family, path);
  const heads = json.num_attention_heads;
  const scaling = ropeScalingOf(json, path);
  const config: LlamaConfig = {
    vocabSize: json.vocab_size,
    hiddenSize: json.hidden_size,
    intermediateSize: json.intermediate_size,
    numHiddenLayers: json.num_hidden_layers,
    numAttentionHeads: heads,
    numKeyValueHeads: json.num_key_value_heads ?? heads,
    headDim: json.head_dim ?? family.headDim ?? json.hidden_size / heads,
    maxPositionEmbeddings: json.max_position_embeddings,
    rmsNormEps: json.rms_norm_eps,
    ropeTheta: json.rope_parameters?.rope_theta ?? json.rope_theta ?? 10000,
    ...(scaling && { ropeScaling: scaling }),
    ...(family.qkvBias && { qkvBias: true }),
    ...(family.qkNorm && { qkNorm: true }),
    tieWordEmbeddings: json.tie_word_embeddings,
    bosTokenId: [json.bos_token_id ?? []].flat()[0] ?? null,
    eosTokenIds: [json.eos_token_id ?? []].flat(),
  };
  try {
    return validateConfig(config);
  } catch (error) {
    throw new RetortError('bad-model', `${path}: ${(error as Error).message}`, { cause: error });
  }
}

/** @throws RetortError `bad-model` naming `where` and the known ones */
export function familyNamed(modelType: string, where: string): Family {
  const family = families.find((one) => one.modelType === modelType);
  if (family) return family;
  throw refuse('bad-model', where, modelType, `Retort runs ${known('modelType')}`);
}

function refuseOthers(json: ConfigJson, { architecture }: Family, path: string): void {
  const need = (fits: boolean, field: string, value: unknown, wanted: string) => {
    if (!fits)
      throw refuse('bad-model', `${path}: field ${field}`, value, `Retort runs models with ${wanted}`);
  };
  const { architectures, layer_types: layers } = json;
  need(
    architectures == null || architectures.includes(architecture),
    'architectures',
    architectures,
    `the architectures ${known('architecture')}, each with its own model_type`,
  );
  need(json.hidden_act === 'silu', 'hidden_act', json.hidden_act, 'hidden_act "silu"');
  need(!json.attention_bias, 'attention_bias', json.attention_bias, 'attention_bias false');
  need(!json.mlp_bias, 'mlp_bias', json.mlp_bias, 'mlp_bias false');
  need(!json.use_sliding_window, 'use_sliding_window', true, 'attention to the whole context');
  const others = layers?.filter((type) => type !== 'full_attention') ?? [];
  need(others.length === 0, 'layer_types', others[0], 'layers of type "full_attention"');
  const partial = json.partial_rotary_factor ?? 1;
  need(partial === 1, 'partial_rotary_factor', partial, 'rotary embedding of whole heads');
  need(
    json.quantization_config == null,
    'quantization_config',
    json.quantization_config,
    'weights that are not quantized',
  );
}

// transformers 5 writes rope_parameters with the base inside, those before rope_scaling beside rope_theta.
function ropeScalingOf(json: ConfigJson, path: string): Llama3RopeScaling | null {
  const field = json.rope_parameters ? 'rope_parameters' : 'rope_scaling';
  const value = json[field];
  if (!value) return null;
  const type = value.rope_type ?? value.type ?? (field === 'rope_parameters' ? 'default' : 'none');
  const perLayer = Object.values(value).some((one) => typeof one === 'object');
  if (perLayer || (type !== 'default' && type !== 'llama3'))
    throw refuse(
      'bad-model',
      `${path}: field ${field}`,
      value,
      'Retort runs models with a rope_type of "default" or "llama3", the same in all layers',
    );
  if (type === 'default') return null;
  const number = (name: Exclude<keyof typeof rope.shape, 'rope_type' | 'type'>) => {
    const given = value[name];
    if (given !== undefined) return given;
    throw new RetortError(
      'bad-model',
      `${path}: field ${field}.${name} is missing; the type llama3 needs it`,
    );
  };
  return {
    factor: number('factor'),
    lowFreqFactor: number('low_freq_factor'),
    highFreqFactor: number('high_freq_factor'),
    originalMaxPositionEmbeddings: number('original_max_position_embeddings'),
  };
}

/** The text of config.json for a model whose file has weights of type `dtype`, by PyTorch's name for it. */
export function llamaConfigJson(config: LlamaConfig, dtype = 'float32'): string {
  const { modelType, architecture } = familyOf(config);
  const scaling = config.ropeScaling;
  const json = {
    architectures: [architecture],
    model_type: modelType,
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    num_hidden_layers: config.numHiddenLayers,
    num_attention_heads: config.numAttentionHeads,
    num_key_value_heads: config.numKeyValueHeads,
    head_dim: config.headDim,
    max_position_embeddings: config.maxPositionEmbeddings,
    rms_norm_eps: config.rmsNormEps,
    rope_theta: config.ropeTheta,
    rope_scaling: scaling
      ? {
          rope_type: 'llama3',
          factor: scaling.factor,
          low_freq_factor: scaling.lowFreqFactor,
          high_freq_factor: scaling.highFreqFactor,
          original_max_position_embeddings: scaling.originalMaxPositionEmbeddings,
        }
      : null,
    hidden_act: 'silu',
    ...(modelType === 'qwen2' ? {} : { attention_bias: false }),
    ...(modelType === 'llama' ? { mlp_bias: false } : { use_sliding_window: false }),
    tie_word_embeddings: config.tieWordEmbeddings,
    ...specialTokenFields(config),
    torch_dtype: dtype,
  };
  return `${JSON.stringify(json, null, 2)}\n`;
}

/** `bos_token_id` and `eos_token_id` as Hugging Face files write them: one number, a list of several, or null. */
export function specialTokenFields({ bosTokenId, eosTokenIds }: LlamaConfig): Record<string, unknown> {
  const eos = eosTokenIds.length > 1 ? eosTokenIds : (eosTokenIds[0] ?? null);
  return { bos_token_id: bosTokenId, eos_token_id: eos };
}
