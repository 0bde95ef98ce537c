// The Llama family: RMSNorm, rotary embedding, grouped-query attention, SwiGLU. Touvron et al., "LLaMA" (2023). Qwen2
// adds biases to q, k and v, Qwen3 norms of the heads of q and k.
//
// One forward pass serves training and generation; they differ in where keys and values live, so the caller gives the
// attention. Activations are packed: rows of all sequences one after another, without padding.

import { type Context, type Parameter, residualBlock } from '../compute/autograd.js';
import type { Device } from '../compute/device/device.js';
import { checkDtype, type Dtype } from '../compute/kernel/bfloat16.js';
import { attention, type PackedPlan, planPacked } from '../compute/op/attention/attention.js';
import { type HeadShape, rowWidth } from '../compute/op/attention/layout.js';
import { addBias } from '../compute/op/bias/bias.js';
import { embedding } from '../compute/op/embedding/embedding.js';
import { gatherRows } from '../compute/op/gather-rows/gather-rows.js';
import { headNorm } from '../compute/op/head-norm/head-norm.js';
import { rowBlock } from '../compute/op/linear/kernel.js';
import { linear, packedWeight } from '../compute/op/linear/linear.js';
import { mix } from '../compute/op/mix/mix.js';
import { rmsnorm } from '../compute/op/rmsnorm/rmsnorm.js';
import { type RopeTables, rope, ropeTables } from '../compute/op/rope/rope.js';
import { swiglu } from '../compute/op/swiglu/swiglu.js';
import { type HeadLogprobOptions, headLogprob } from '../compute/op/token-logprob/head-logprob.js';
import { MOST_ELEMENTS, type Tensor, viewOf } from '../compute/tensor.js';
import { RetortError, refuse } from '../errors.js';
import { philox } from '../random.js';
import {
  elementCount,
  type LlamaConfig,
  type ParameterShape,
  parameterShapes,
  ropeFactors,
  validateConfig,
} from './config.js';

/** Parameters that one optimizer rule covers, beside each other in memory. */
export interface ParameterGroup {
  /** Whether weight decay applies: to matrices, not to the weights of norms. */
  readonly decay: boolean;
  readonly value: Tensor;
  readonly gradient: Tensor | null;
}

/** A trained tensor as files and optimizers name it. */
export interface NamedTensor {
  readonly name: string;
  readonly value: Tensor;
  readonly gradient: Tensor | null;
}

interface Layer {
  readonly inputNorm: Parameter;
  /** q_proj, k_proj and v_proj, one below the other: one product gives all three. */
  readonly qkv: Parameter;
  /** Of q, k and v (Qwen2), else null. */
  readonly qkvBias: Parameter | null;
  /** Of each head of q and of k (Qwen3), else null. */
  readonly qkNorms: readonly [q: Parameter, k: Parameter] | null;
  readonly o: Parameter;
  readonly mlpNorm: Parameter;
  /** gate_proj and up_proj. */
  readonly gateUp: Parameter;
  readonly down: Parameter;
}

/** A trained model, or a part beside one: what files, optimizers and operations have of it. */
export interface Trainable {
  readonly device: Device;
  /** By Hugging Face name. */
  readonly parameters: readonly NamedTensor[];
  readonly groups: readonly ParameterGroup[];
  /** What operations take, whose packed copies are void after a step. */
  readonly operands: readonly Parameter[];
}

export interface Llama extends Trainable {
  readonly config: LlamaConfig;
  readonly shape: HeadShape;
  /** By Hugging Face name, in the order of `parameterShapes`. */
  readonly parameters: readonly NamedTensor[];
  /** The same memory, some matrices joined. */
  readonly operands: readonly Parameter[];
  readonly embed: Parameter;
  readonly layers: readonly Layer[];
  readonly norm: Parameter;
  readonly head: Parameter;
  readonly rope: RopeTables;
}

/** Operands start on multiples of this many elements. */
const ALIGN = 16;

/** Matrices of the same inputs that lie one below the other: the operand's name by its members' names. */
const JOINED: readonly (readonly [members: RegExp, operand: string])[] = [
  [/self_attn\.[qkv]_proj/, 'self_attn.qkv_proj'],
  [/mlp\.(gate|up)_proj/, 'mlp.gate_up_proj'],
];

function operandOf(name: string): string {
  for (const [members, operand] of JOINED) if (members.test(name)) return name.replace(members, operand);
  return name;
}

interface OperandGroup {
  readonly decay: boolean;
  /** The parameters of each operand, by its name. */
  readonly operands: Map<string, ParameterShape[]>;
  size: number;
}

function operandSize(parts: readonly ParameterShape[]): number {
  return parts.reduce((sum, { shape }) => sum + elementCount(shape), 0);
}

function paddedSize(parts: readonly ParameterShape[]): number {
  return Math.ceil(operandSize(parts) / ALIGN) * ALIGN;
}

/** The operands in order, grouped by the rule that covers them, and so that a group has at most so many elements. */
function groupOperands(shapes: readonly ParameterShape[], most: number): OperandGroup[] {
  const groups: OperandGroup[] = [];
  for (const decay of [true, false]) {
    const operands = new Map<string, ParameterShape[]>();
    for (const p of shapes) {
      if ((p.shape.length === 2) !== decay) continue;
      const operand = operandOf(p.name);
      operands.set(operand, [...(operands.get(operand) ?? []), p]);
    }
    let group: OperandGroup | undefined;
    for (const [operand, parts] of operands) {
      const size = paddedSize(parts);
      if (!group || group.size + size > most) {
        group = { decay, operands: new Map(), size: 0 };
        groups.push(group);
      }
      group.operands.set(operand, parts);
      group.size += size;
    }
  }
  return groups;
}

export interface ModelOptions {
  /** False leaves out the gradients. */
  readonly trainable: boolean;
  /** What its weights are counted as. Default parameters; reference for a model that others are compared with. */
  readonly kind?: 'parameters' | 'reference';
  /**
   * How its matrices are packed for products. bfloat16 halves what generating reads of them, and rounds those that are no
   * bfloat16 numbers; not for a model that is trained. Default float32.
   */
  readonly dtype?: Dtype;
  /** Elements of a group of parameters at most. Default: what a tensor can hold. */
  readonly groupElements?: number;
}

/**
 * Allocates a model; its weights are zero until they are initialised, loaded or copied.
 * @throws RetortError bad-model for sizes that cannot be, bad-input for a dtype that is none or bfloat16 to train, out-of-memory
 */
export function createLlama(
  device: Device,
  config: LlamaConfig,
  { trainable, kind = 'parameters', dtype = 'float32', groupElements = MOST_ELEMENTS }: ModelOptions,
): Llama {
  validateConfig(config);
  checkDtype('dtype of a model', dtype);
  if (trainable && dtype !== 'float32')
    throw refuse('bad-input', 'dtype of a model to train', dtype, 'a trained model takes float32');
  const shapes = parameterShapes(config);
  const named = new Map<string, NamedTensor>();
  const operands = new Map<string, Parameter>();
  const groups: ParameterGroup[] = [];
  for (const { decay, operands: members, size } of groupOperands(shapes, groupElements)) {
    const value = device.tensor(kind, [size]);
    const gradient = trainable ? device.tensor('gradients', [size]) : null;
    for (const t of [value, gradient]) if (t) device.fill(t, 0);
    groups.push({ decay, value, gradient });
    const view = (name: string, shape: readonly number[], start: number): NamedTensor => ({
      name,
      value: viewOf(value, shape, start),
      gradient: gradient && viewOf(gradient, shape, start),
    });
    let start = 0;
    for (const [operand, parts] of members) {
      const [first, ...columns] = parts[0].shape;
      const rows = parts.length === 1 ? first : operandSize(parts) / (columns[0] ?? 1);
      operands.set(operand, {
        ...view(operand, [rows, ...columns], start),
        version: 0,
        dtype,
        packed: new Map(),
      });
      let at = start;
      for (const { name, shape } of parts) {
        named.set(name, view(name, shape, at));
        at += elementCount(shape);
      }
      start += paddedSize(parts);
    }
  }
  const get = <T>(map: ReadonlyMap<string, T>, name: string): T => {
    const p = map.get(name);
    if (!p) throw new RetortError('bad-model', `the model has no parameter ${name}`);
    return p;
  };
  const layers = Array.from({ length: config.numHiddenLayers }, (_, i): Layer => {
    const at = (name: string) => get(operands, `model.layers.${i}.${name}.weight`);
    return {
      inputNorm: at('input_layernorm'),
      qkv: at('self_attn.qkv_proj'),
      qkvBias: config.qkvBias ? get(operands, `model.layers.${i}.self_attn.qkv_proj.bias`) : null,
      qkNorms: config.qkNorm ? [at('self_attn.q_norm'), at('self_attn.k_norm')] : null,
      o: at('self_attn.o_proj'),
      mlpNorm: at('post_attention_layernorm'),
      gateUp: at('mlp.gate_up_proj'),
      down: at('mlp.down_proj'),
    };
  });
  const embed = get(operands, 'model.embed_tokens.weight');
  return {
    config,
    device,
    shape: { heads: config.numAttentionHeads, kvHeads: config.numKeyValueHeads, headDim: config.headDim },
    parameters: shapes.map(({ name }) => get(named, name)),
    operands: [...operands.values()],
    groups,
    embed,
    layers,
    norm: get(operands, 'model.norm.weight'),
    head: config.tieWordEmbeddings ? embed : get(operands, 'lm_head.weight'),
    rope: ropeTables(
      device,
      config.maxPositionEmbeddings,
      config.headDim,
      config.ropeTheta,
      ropeFactors(config),
    ),
  };
}

/** Gives a model's memory back. */
export function freeLlama({ device, groups, operands, rope }: Llama): void {
  for (const { value, gradient } of groups) {
    device.free(value);
    if (gradient) device.free(gradient);
  }
  for (const p of operands) {
    for (const { tensor } of p.packed.values()) device.free(tensor);
    p.packed.clear();
  }
  device.free(rope.cos);
  device.free(rope.sin);
}

/**
 * Draws the weights: normal with standard deviation 0.02, the projections back into the residual stream divided by
 * sqrt(2 layers) as in GPT-2; norm weights 1, biases 0.
 */
export function initLlama(llama: Llama, seed: number): void {
  const residual = 1 / Math.sqrt(2 * llama.config.numHiddenLayers);
  llama.parameters.forEach((p, index) => {
    const values = llama.device.floats(p.value);
    if (p.value.shape.length === 1) {
      values.fill(p.name.endsWith('.bias') ? 0 : 1);
      return;
    }
    const std = 0.02 * (/(o_proj|down_proj)/.test(p.name) ? residual : 1);
    for (let i = 0; i < values.length; i += 2) {
      // Box and Muller's pair of normal numbers from a pair of uniform ones.
      const [a, b] = philox(seed, index, i, 0x1417);
      const radius = std * Math.sqrt(-2 * Math.log((a + 1) / 4294967297));
      const angle = (2 * Math.PI * b) / 4294967296;
      values[i] = radius * Math.cos(angle);
      if (i + 1 < values.length) values[i + 1] = radius * Math.sin(angle);
    }
  });
  touchWeights(llama);
}

/** Fills the weights from a source of named tensors, a model folder for instance. */
export function readWeights(
  { device, parameters, operands }: Omit<Trainable, 'groups'>,
  source: { read(name: string, into: Float32Array): void },
): void {
  for (const p of parameters) source.read(p.name, device.floats(p.value));
  touchWeights({ operands });
}

/** The weights as they are saved: each copied when its turn comes. */
export function weightsOf({ device, parameters }: Pick<Trainable, 'device' | 'parameters'>): {
  name: string;
  shape: readonly number[];
  data: () => Float32Array;
}[] {
  return parameters.map(({ name, value }) => ({
    name,
    shape: value.shape,
    data: () => device.floats(value).slice(),
  }));
}

/** Moves the weights of a model of the same sizes on the same device towards `from` by a share; 1 copies them. */
export function followWeights(from: Llama, to: Llama, share = 1): void {
  from.groups.forEach(({ value }, i) => {
    const into = to.groups[i].value;
    if (share === 1) to.device.floats(into).set(from.device.floats(value));
    else mix(to.device, value, into, share);
  });
  touchWeights(to);
}

/** Declares that the weights changed: packed copies are void. */
export function touchWeights({ operands }: Pick<Trainable, 'operands'>): void {
  for (const p of operands) p.version++;
}

/** Rows of a batch: which token stands where. Checked by whoever makes it. */
export interface Rows {
  /** i32[rows] */
  readonly ids: Tensor;
  /** i32[rows], each in its own sequence. */
  readonly positions: Tensor;
}

/** Attention of one layer: out[rows, heads * headDim] of qkv[rows, rowWidth], whose queries and keys are rotated. */
export type Attend = (layer: number, qkv: Tensor, c: Context) => Tensor;

/** What a stretch of rows may take for its stay in the caches to bring more than reading the weights for each stretch costs. */
const NEAR_BYTES = 6 << 20;

/** Bytes of what a layer computes of a row between attention and attention. */
function rowBytes({ config: { hiddenSize, intermediateSize }, shape }: Llama): number {
  return 4 * (4 * hiddenSize + 3 * intermediateSize + rowWidth(shape));
}

/** The hidden states [rows, hiddenSize] after the last norm. */
export function forward(c: Context, llama: Llama, { ids, positions }: Rows, attend: Attend): Tensor {
  const { device, shape } = llama;
  const eps = llama.config.rmsNormEps;
  // Before what goes by rows, which packing does not.
  packLayers(llama);
  // Between attention and attention a row needs no other row: what is computed of some stays near until it is done with.
  const stretch = 2 * rowBlock(device.target);
  const staysNear = stretch * rowBytes(llama) <= NEAR_BYTES;
  const near = <T>(body: () => T) => (staysNear ? device.inStretches(ids.size, stretch, body) : body());
  let hidden = embedding(c, llama.embed, ids);
  llama.layers.forEach((layer, i) => {
    const x = hidden;
    hidden = residualBlock(c, x, (c, into) => {
      const qkv = near(() => {
        const qkv = linear(c, rmsnorm(c, x, layer.inputNorm, eps), layer.qkv);
        if (layer.qkvBias) addBias(c, qkv, layer.qkvBias);
        if (layer.qkNorms) {
          const [q, k] = layer.qkNorms;
          headNorm(c, qkv, 0, shape.heads, q, eps);
          headNorm(c, qkv, shape.heads * shape.headDim, shape.kvHeads, k, eps);
        }
        rope(c, qkv, shape.heads + shape.kvHeads, positions, llama.rope);
        return qkv;
      });
      const attended = attend(i, qkv, c);
      return near(() => {
        const middle = linear(c, attended, layer.o, x);
        const gateUp = linear(c, rmsnorm(c, middle, layer.mlpNorm, eps), layer.gateUp);
        return linear(c, swiglu(c, gateUp), layer.down, middle, into);
      });
    });
  });
  return rmsnorm(c, hidden, llama.norm, eps);
}

/** Packs the weights that changed, the head's too, which a forward pass leaves to whoever uses it. */
export function packWeights(llama: Llama): void {
  packLayers(llama);
  packedWeight(llama.device, llama.head, true);
}

function packLayers({ device, layers }: Llama): void {
  for (const { qkv, o, gateUp, down } of layers)
    for (const w of [qkv, o, gateUp, down]) packedWeight(device, w, true);
}

/** Whole sequences packed one after another, ready for a forward pass. */
export interface PackedBatch extends Rows {
  readonly plan: PackedPlan;
  readonly lengths: readonly number[];
}

/**
 * Packs whole sequences of token ids; temporaries of the step arena.
 * @throws RetortError bad-input for an empty or too long sequence or an id outside the vocabulary
 */
export function packSequences(
  { config, device }: Llama,
  sequences: readonly (readonly number[])[],
): PackedBatch {
  const ids: number[] = [];
  const positions: number[] = [];
  sequences.forEach((sequence, s) => {
    if (sequence.length === 0 || sequence.length > config.maxPositionEmbeddings) {
      const remedy = `give 1 to ${config.maxPositionEmbeddings} tokens (the model's max_position_embeddings)`;
      throw refuse('bad-input', `length of sequence ${s}`, sequence.length, remedy);
    }
    sequence.forEach((id, i) => {
      checkId(id, config);
      ids.push(id);
      positions.push(i);
    });
  });
  const lengths = sequences.map((s) => s.length);
  return {
    ids: device.upload(ids, 'i32'),
    positions: device.upload(positions, 'i32'),
    plan: planPacked(device, lengths),
    lengths,
  };
}

/** @throws RetortError bad-input for an id that the model has no row for */
export function checkId(id: number, config: LlamaConfig): void {
  if (!Number.isInteger(id) || id < 0 || id >= config.vocabSize) {
    throw refuse('bad-input', 'token id', id, `ids of this model go from 0 to ${config.vocabSize - 1}`);
  }
}

/** The hidden states [n, hiddenSize] of a packed batch at the given rows (all where absent). */
export function packedHidden(c: Context, llama: Llama, batch: PackedBatch, rows?: readonly number[]): Tensor {
  const hidden = forward(c, llama, batch, (_, qkv, c) => attention(c, llama.shape, qkv, batch.plan));
  if (!rows) return hidden;
  const total = batch.ids.size;
  for (const row of rows) {
    if (!(row >= 0 && row < total))
      throw refuse('bad-kernel', 'row of logits', row, `the batch has ${total} rows`);
  }
  return gatherRows(c, hidden, c.device.upload(rows, 'i32'));
}

/** Logits [n, vocabSize] of a packed batch at the given rows (all where absent). */
export function packedLogits(c: Context, llama: Llama, batch: PackedBatch, rows?: readonly number[]): Tensor {
  return linear(c, packedHidden(c, llama, batch, rows), llama.head);
}

/** Log-probability and entropy, each f32[n], of tokens from the hidden states [n, hiddenSize] before them. */
export function hiddenLogprobs(
  c: Context,
  llama: Llama,
  hidden: Tensor,
  tokens: readonly number[],
  options?: HeadLogprobOptions,
): { logprob: Tensor; entropy: Tensor } {
  for (const id of tokens) checkId(id, llama.config);
  return headLogprob(c, hidden, llama.head, c.device.upload(tokens, 'i32'), options);
}

/** Log-probability and entropy, each f32[n], of a token at each of the given rows of a packed batch (all where absent). */
export function packedLogprobs(
  c: Context,
  llama: Llama,
  batch: PackedBatch,
  tokens: readonly number[],
  { rows, ...options }: HeadLogprobOptions & { readonly rows?: readonly number[] } = {},
): { logprob: Tensor; entropy: Tensor } {
  return hiddenLogprobs(c, llama, packedHidden(c, llama, batch, rows), tokens, options);
}
