// The sizes of a Llama-family model, the checks they must pass, and its parameters by Hugging Face name and shape.
import { refuse } from '../errors.js';

/** Sizes and constants of one Llama-family model; `config.json` in camelCase. */
export interface LlamaConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  /** Key and value heads; divides `numAttentionHeads` (grouped-query attention). */
  readonly numKeyValueHeads: number;
  /** Elements of one head; even, since rotary embedding turns pairs. */
  readonly headDim: number;
  /** Longest context in tokens. */
  readonly maxPositionEmbeddings: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  /** Llama 3's stretching of slow frequencies for long contexts; none where absent. */
  readonly ropeScaling?: Llama3RopeScaling;
  /** Biases on the q, k and v projections (Qwen2). */
  readonly qkvBias?: boolean;
  /** RMSNorm over each head of q and k before the rotation (Qwen3). */
  readonly qkNorm?: boolean;
  /** Whether the output head is the embedding matrix. */
  readonly tieWordEmbeddings: boolean;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
}

/** `rope_scaling` of type `llama3`, in camelCase. */
export interface Llama3RopeScaling {
  /** What slow frequencies are divided by. */
  readonly factor: number;
  /** Wavelengths above `originalMaxPositionEmbeddings / lowFreqFactor` are slow. */
  readonly lowFreqFactor: number;
  /** Wavelengths below `originalMaxPositionEmbeddings / highFreqFactor` are left as they are. */
  readonly highFreqFactor: number;
  readonly originalMaxPositionEmbeddings: number;
}

/** A parameter's Hugging Face name and its shape: `[outputs, inputs]` for matrices, `[n]` for norm weights. */
export interface ParameterShape {
  readonly name: string;
  readonly shape: readonly [number, number] | readonly [number];
}

const sizes = [
  'vocabSize',
  'hiddenSize',
  'intermediateSize',
  'numHiddenLayers',
  'numAttentionHeads',
  'numKeyValueHeads',
  'headDim',
  'maxPositionEmbeddings',
] as const;

// Far above any model a CPU can hold, low enough that no product of two sizes leaves the safe integers.
const MAX_SIZE = 2 ** 26;
const MAX_LAYERS = 1024;

/**
 * Checks a configuration before anything is allocated and gives it back.
 * @throws RetortError `bad-model` naming the field, its value and what it must be.
 */
export function validateConfig(config: LlamaConfig): LlamaConfig {
  for (const name of sizes) {
    const value = config[name];
    if (!Number.isInteger(value) || value < 1 || value > MAX_SIZE)
      throw refuse('bad-model', name, value, `it must be a whole number from 1 to ${MAX_SIZE}`);
  }
  if (config.numHiddenLayers > MAX_LAYERS)
    throw refuse('bad-model', 'numHiddenLayers', config.numHiddenLayers, `it must be at most ${MAX_LAYERS}`);
  if (config.numAttentionHeads % config.numKeyValueHeads !== 0)
    throw refuse(
      'bad-model',
      'numKeyValueHeads',
      config.numKeyValueHeads,
      `it must divide numAttentionHeads (${config.numAttentionHeads})`,
    );
  if (config.headDim % 2 !== 0)
    throw refuse('bad-model', 'headDim', config.headDim, 'it must be even, rotary embedding turns pairs');
  checkPositive('rmsNormEps', config.rmsNormEps, 1);
  checkPositive('ropeTheta', config.ropeTheta, 1e12);
  if (config.ropeScaling) checkRopeScaling(config.ropeScaling);
  const special =
    config.bosTokenId === null ? config.eosTokenIds : [config.bosTokenId, ...config.eosTokenIds];
  for (const id of special)
    if (!Number.isInteger(id) || id < 0 || id >= config.vocabSize)
      throw refuse(
        'bad-model',
        'bosTokenId or eosTokenIds',
        id,
        `token ids go from 0 to ${config.vocabSize - 1}`,
      );
  return config;
}

function checkRopeScaling(scaling: Llama3RopeScaling): void {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings } = scaling;
  checkPositive('ropeScaling.factor', factor, 1e6);
  checkPositive('ropeScaling.lowFreqFactor', lowFreqFactor, 1e6);
  checkPositive('ropeScaling.highFreqFactor', highFreqFactor, 1e6);
  checkPositive('ropeScaling.originalMaxPositionEmbeddings', originalMaxPositionEmbeddings, MAX_SIZE);
  if (highFreqFactor <= lowFreqFactor)
    throw refuse(
      'bad-model',
      'ropeScaling.highFreqFactor',
      highFreqFactor,
      `it must be above lowFreqFactor (${lowFreqFactor})`,
    );
}

/**
 * What each of the headDim / 2 rotary frequencies is divided by, fastest first, or null where they stay as they are.
 * Llama 3.1's rule: slow ones by `factor`, fast ones by 1, those between by a mean of both that goes with 1 / wavelength.
 */
export function ropeFactors({ headDim, ropeTheta, ropeScaling }: LlamaConfig): number[] | null {
  if (!ropeScaling) return null;
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings } = ropeScaling;
  return Array.from({ length: headDim / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * ropeTheta ** ((2 * i) / headDim);
    const turns = originalMaxPositionEmbeddings / wavelength;
    if (turns > highFreqFactor) return 1;
    if (turns < lowFreqFactor) return factor;
    const smooth = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

function checkPositive(name: string, value: number, most: number): void {
  if (!Number.isFinite(value) || value <= 0 || value > most)
    throw refuse('bad-model', name, value, `it must be above 0 and at most ${most}`);
}

/**
 * Every parameter of a model, in the order in which Retort keeps and saves them. With tied embeddings there is no
 * `lm_head.weight`: the head is `model.embed_tokens.weight`.
 * @example parameterShapes(config)[0] // { name: 'model.embed_tokens.weight', shape: [vocabSize, hiddenSize] }
 */
export function parameterShapes(config: LlamaConfig): ParameterShape[] {
  const { vocabSize, hiddenSize, intermediateSize } = config;
  const queries = config.numAttentionHeads * config.headDim;
  const keys = config.numKeyValueHeads * config.headDim;
  const shapes: ParameterShape[] = [{ name: 'model.embed_tokens.weight', shape: [vocabSize, hiddenSize] }];
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    const at = `model.layers.${layer}.`;
    shapes.push(
      { name: `${at}input_layernorm.weight`, shape: [hiddenSize] },
      { name: `${at}self_attn.q_proj.weight`, shape: [queries, hiddenSize] },
      { name: `${at}self_attn.k_proj.weight`, shape: [keys, hiddenSize] },
      { name: `${at}self_attn.v_proj.weight`, shape: [keys, hiddenSize] },
      ...extraAttentionShapes(at, config),
      { name: `${at}self_attn.o_proj.weight`, shape: [hiddenSize, queries] },
      { name: `${at}post_attention_layernorm.weight`, shape: [hiddenSize] },
      { name: `${at}mlp.gate_proj.weight`, shape: [intermediateSize, hiddenSize] },
      { name: `${at}mlp.up_proj.weight`, shape: [intermediateSize, hiddenSize] },
      { name: `${at}mlp.down_proj.weight`, shape: [hiddenSize, intermediateSize] },
    );
  }
  shapes.push({ name: 'model.norm.weight', shape: [hiddenSize] });
  if (!config.tieWordEmbeddings) shapes.push({ name: 'lm_head.weight', shape: [vocabSize, hiddenSize] });
  return shapes;
}

function extraAttentionShapes(at: string, config: LlamaConfig): ParameterShape[] {
  const { numAttentionHeads, numKeyValueHeads, headDim, qkvBias, qkNorm } = config;
  const bias = (name: string, heads: number): ParameterShape => ({
    name: `${at}self_attn.${name}_proj.bias`,
    shape: [heads * headDim],
  });
  const norm = (name: string): ParameterShape => ({
    name: `${at}self_attn.${name}_norm.weight`,
    shape: [headDim],
  });
  return [
    ...(qkvBias
      ? [bias('q', numAttentionHeads), bias('k', numKeyValueHeads), bias('v', numKeyValueHeads)]
      : []),
    ...(qkNorm ? [norm('q'), norm('k')] : []),
  ];
}

/** Number of elements of a shape. */
export function elementCount(shape: readonly number[]): number {
  let count = 1;
  for (const size of shape) count *= size;
  return count;
}

/** Number of parameters of a model; a tied head counts once. */
export function parameterCount(config: LlamaConfig): number {
  let count = 0;
  for (const { shape } of parameterShapes(config)) count += elementCount(shape);
  return count;
}
