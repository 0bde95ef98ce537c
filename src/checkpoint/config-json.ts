// config.json of a Hugging Face folder: read into a LlamaConfig, refused where Retort would compute something else.
import { z } from 'zod';
import { RetortError } from '../errors.js';
import { type LlamaConfig, validateConfig } from '../model/config.js';
import { checkJson, parseJson } from './files.js';

const count = z.number().int();
const tokenId = z.number().int().min(0);
const rope = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: z.number().optional(),
});

// Defaults are those of transformers' LlamaConfig.
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
  quantization_config: z.unknown().optional(),
  bos_token_id: z.union([tokenId, z.array(tokenId)]).nullish(),
  eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish(),
});

type ConfigJson = z.infer<typeof schema>;

/**
 * Reads the text of a config.json.
 * @throws RetortError `bad-model` naming `path` and the field: a missing or wrong one, or one that asks for what
 * the Llama family here does not have (another architecture, biases, scaled rotary embedding, quantized weights).
 */
export function parseLlamaConfig(text: string, path: string): LlamaConfig {
  const plain = parseJson(text, path, z.looseObject({}), 'bad-model');
  if (String(plain.format).startsWith('retort-run'))
    throw new RetortError(
      'bad-model',
      `${path} is that of a run, not of a model; name one of the run's models: checkpoints/step-N in its folder`,
    );
  const json = checkJson(plain, path, schema, 'bad-model');
  refuseOthers(json, path);
  const heads = json.num_attention_heads;
  const config: LlamaConfig = {
    vocabSize: json.vocab_size,
    hiddenSize: json.hidden_size,
    intermediateSize: json.intermediate_size,
    numHiddenLayers: json.num_hidden_layers,
    numAttentionHeads: heads,
    numKeyValueHeads: json.num_key_value_heads ?? heads,
    headDim: json.head_dim ?? json.hidden_size / heads,
    maxPositionEmbeddings: json.max_position_embeddings,
    rmsNormEps: json.rms_norm_eps,
    ropeTheta: json.rope_parameters?.rope_theta ?? json.rope_theta ?? 10000,
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

function refuseOthers(json: ConfigJson, path: string): void {
  const need = (fits: boolean, field: string, value: unknown, wanted: string) => {
    if (!fits)
      throw new RetortError(
        'bad-model',
        `${path}: field ${field}: got ${JSON.stringify(value)}; Retort runs Llama models with ${wanted}`,
      );
  };
  need(json.model_type === 'llama', 'model_type', json.model_type, 'model_type "llama"');
  const { architectures } = json;
  need(
    architectures == null || architectures.includes('LlamaForCausalLM'),
    'architectures',
    architectures,
    'the architecture LlamaForCausalLM',
  );
  need(json.hidden_act === 'silu', 'hidden_act', json.hidden_act, 'hidden_act "silu"');
  need(!json.attention_bias, 'attention_bias', json.attention_bias, 'attention_bias false');
  need(!json.mlp_bias, 'mlp_bias', json.mlp_bias, 'mlp_bias false');
  for (const field of ['rope_scaling', 'rope_parameters'] as const) {
    const value = json[field];
    const type =
      value?.rope_type ?? value?.type ?? (field === 'rope_scaling' && value ? 'unknown' : 'default');
    need(type === 'default', field, value, 'unscaled rotary embedding (rope_type "default")');
  }
  const partial = json.partial_rotary_factor ?? 1;
  need(partial === 1, 'partial_rotary_factor', partial, 'rotary embedding of whole heads');
  need(
    json.quantization_config == null,
    'quantization_config',
    json.quantization_config,
    'weights that are not quantized',
  );
}

/** The text of config.json for a model. */
export function llamaConfigJson(config: LlamaConfig): string {
  const json = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
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
    rope_scaling: null,
    hidden_act: 'silu',
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: config.tieWordEmbeddings,
    ...specialTokenFields(config),
    torch_dtype: 'float32',
  };
  return `${JSON.stringify(json, null, 2)}\n`;
}

/** `bos_token_id` and `eos_token_id` as Hugging Face files write them: one number, a list of several, or null. */
export function specialTokenFields({ bosTokenId, eosTokenIds }: LlamaConfig): Record<string, unknown> {
  const eos = eosTokenIds.length > 1 ? eosTokenIds : (eosTokenIds[0] ?? null);
  return { bos_token_id: bosTokenId, eos_token_id: eos };
}
