// A model as a Hugging Face folder: config.json, weights in one safetensors file or in shards, the tokenizer's files.
import fs from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { RetortError, refuse } from '../errors.js';
import { type LlamaConfig, type ParameterShape, parameterShapes, validateConfig } from '../model/config.js';
import { storageError, writeDirectoryAtomically } from './atomic.js';
import { llamaConfigJson, parseLlamaConfig, specialTokenFields } from './config-json.js';
import { parseJson, readOptionalTextFile, readTextFile } from './files.js';
import {
  type FloatType,
  type NamedTensor,
  openSafetensors,
  type SafetensorsFile,
  type TensorEntry,
  writeSafetensors,
} from './safetensors.js';
import {
  checkFinite,
  parseSampling,
  type SamplingDefaults,
  type StoredModel,
  samplingJson,
  storedDtype,
} from './stored-model.js';

const WEIGHTS = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const remedy =
  'name a model folder in the Hugging Face layout: config.json, model.safetensors, tokenizer.json';

/**
 * Opens a model folder and checks it, before anything of the model's size is allocated.
 * @throws RetortError `bad-model` naming the file, and the field or tensor that does not fit.
 */
export function readModelFolder(dir: string): StoredModel {
  const path = join(dir, 'config.json');
  const config = parseLlamaConfig(readTextFile(path, 'bad-model', remedy), path);
  const parameters = parameterShapes(config);
  const generationPath = join(dir, 'generation_config.json');
  const sampling = parseSampling(
    readOptionalTextFile(generationPath, 'bad-model', remedy) ?? '{}',
    generationPath,
  );
  const { files, fileOf } = openWeights(dir);
  try {
    for (const parameter of parameters) checkParameter(parameter, fileOf(parameter.name), dir);
    checkStrangers(files, parameters, config);
  } catch (error) {
    for (const file of files) file.close();
    throw error;
  }
  return {
    path: dir,
    config,
    parameters,
    sampling,
    dtype: storedDtype(parameters, (name) => fileOf(name)!.tensors.get(name)!.dtype),
    read(name, into) {
      const file = fileOf(name);
      if (!file)
        throw refuse('bad-model', `parameter to read from ${dir}`, name, 'the model has no such parameter');
      file.read(name, into);
      checkFinite(into, name, file.path);
    },
    close() {
      for (const file of files) file.close();
    },
  };
}

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string()) });

interface Weights {
  readonly files: readonly SafetensorsFile[];
  fileOf(name: string): SafetensorsFile | undefined;
}

function openWeights(dir: string): Weights {
  const indexPath = join(dir, INDEX);
  const index = fs.existsSync(join(dir, WEIGHTS))
    ? undefined
    : readOptionalTextFile(indexPath, 'bad-model', remedy);
  if (index === undefined) {
    const file = openSafetensors(join(dir, WEIGHTS));
    return { files: [file], fileOf: (name) => (file.tensors.has(name) ? file : undefined) };
  }
  const { weight_map: map } = parseJson(index, indexPath, indexSchema, 'bad-model');
  const shards = new Map<string, SafetensorsFile>();
  const files: SafetensorsFile[] = [];
  try {
    for (const [name, shard] of Object.entries(map)) {
      if (!/^[\w.-]+\.safetensors$/.test(shard))
        throw refuse(
          'bad-model',
          `${indexPath}: shard of ${name}`,
          shard,
          'a shard is a file in the same folder',
        );
      if (!shards.has(shard)) {
        const file = openSafetensors(join(dir, shard));
        files.push(file);
        shards.set(shard, file);
      }
      if (!shards.get(shard)!.tensors.has(name))
        throw new RetortError(
          'bad-model',
          `${indexPath}: tensor ${name} is not in its shard ${shard}; copy both again`,
        );
    }
  } catch (error) {
    for (const file of files) file.close();
    throw error;
  }
  return { files, fileOf: (name) => (Object.hasOwn(map, name) ? shards.get(map[name]!) : undefined) };
}

function checkParameter(
  { name, shape }: ParameterShape,
  file: SafetensorsFile | undefined,
  dir: string,
): void {
  const entry = file?.tensors.get(name);
  if (!file || !entry) {
    const hint = name === 'lm_head.weight' ? ' (or tie_word_embeddings must be true in config.json)' : '';
    throw new RetortError('bad-model', `${dir} has no tensor ${name}${hint}; ${remedy}`);
  }
  if (entry.shape.length !== shape.length || shape.some((size, axis) => size !== entry.shape[axis]))
    throw refuse(
      'bad-model',
      `shape of tensor ${name} in ${file.path}`,
      entry.shape,
      `config.json asks for ${JSON.stringify(shape)}: the files are of different models`,
    );
  if (!['F32', 'F16', 'BF16'].includes(entry.dtype))
    throw refuse(
      'bad-model',
      `data type of tensor ${name} in ${file.path}`,
      entry.dtype,
      'convert it to F32, F16 or BF16',
    );
}

// A tensor that the model does not use means that the files describe another model (biases, adapters, experts).
function checkStrangers(
  files: readonly SafetensorsFile[],
  parameters: readonly ParameterShape[],
  config: LlamaConfig,
): void {
  const known = new Set(parameters.map(({ name }) => name));
  // A tied head is saved twice by some tools; old files hold the rotary frequencies, which follow from the config.
  if (config.tieWordEmbeddings) known.add('lm_head.weight');
  const isStrange = ({ name }: TensorEntry) => !known.has(name) && !name.endsWith('.rotary_emb.inv_freq');
  for (const file of files)
    for (const entry of file.tensors.values())
      if (isStrange(entry))
        throw refuse(
          'bad-model',
          `tensor in ${file.path}`,
          entry.name,
          'a model of this config.json has no such tensor',
        );
}

/**
 * Checks that a tokenizer belongs to a model. A model may have a few ids more than its tokenizer (the vocabulary
 * padded to a round number), never fewer.
 * @throws RetortError `bad-model` with both sizes.
 */
export function checkVocabulary({ vocabSize }: { readonly vocabSize: number }, config: LlamaConfig): void {
  // 2% and rounding to a multiple of 128: what published models pad by.
  const most = Math.ceil((vocabSize * 1.02) / 128) * 128;
  if (vocabSize > config.vocabSize || config.vocabSize > most)
    throw refuse(
      'bad-model',
      `vocabulary of the model is ${config.vocabSize}, of the tokenizer`,
      vocabSize,
      'use the tokenizer that the model was made with',
    );
}

/** PyTorch's names of the types that weights are stored in. */
const torchNames: Readonly<Record<FloatType, string>> = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' };

/** What goes into a model folder. */
export interface ModelFiles {
  readonly config: LlamaConfig;
  /** Every parameter of `parameterShapes(config)`, in any order. */
  readonly tensors: Iterable<NamedTensor>;
  /** Its files are written beside the weights. */
  readonly tokenizer?: { readonly files: Readonly<Record<string, string>>; readonly vocabSize: number };
  /** For generation_config.json, beside the special token ids. */
  readonly sampling?: SamplingDefaults;
  /** How the weights are stored. Default F32. */
  readonly dtype?: FloatType;
  /** Further files by name: a card, a licence. */
  readonly texts?: Readonly<Record<string, string>>;
}

/**
 * Writes a model folder whole or not at all.
 * @throws RetortError `storage` where the disk refuses; `bad-input` where the folder already holds files.
 */
export function writeModelFolder(dir: string, model: ModelFiles): void {
  if (fs.existsSync(dir) && (!fs.statSync(dir).isDirectory() || fs.readdirSync(dir).length > 0))
    throw refuse(
      'bad-input',
      'folder to write the model to',
      dir,
      'it holds other files: name a new or empty folder',
    );
  writeDirectoryAtomically(dir, (next) => fillModelFolder(next, model));
}

/** Writes a model's files into a folder that is there. */
export function fillModelFolder(dir: string, model: ModelFiles): void {
  const config = validateConfig(model.config);
  if (model.tokenizer) checkVocabulary(model.tokenizer, config);
  const byName = new Map([...model.tensors].map((tensor) => [tensor.name, tensor]));
  const tensors = parameterShapes(config).map(({ name, shape }) => {
    const tensor = byName.get(name);
    if (!tensor)
      throw new RetortError(
        'bad-checkpoint',
        `model to write: tensor ${name} is missing; give all parameters`,
      );
    byName.delete(name);
    if (String(tensor.shape) !== String(shape))
      throw refuse(
        'bad-checkpoint',
        `shape of tensor ${name} to write`,
        tensor.shape,
        `it must be ${JSON.stringify(shape)}`,
      );
    return { ...tensor, dtype: model.dtype };
  });
  for (const name of byName.keys())
    throw refuse('bad-checkpoint', 'tensor to write', name, 'the model has no such parameter');
  const generation = { ...specialTokenFields(config), ...samplingJson(model.sampling ?? {}) };
  const texts = {
    ...model.texts,
    ...model.tokenizer?.files,
    'config.json': llamaConfigJson(config, torchNames[model.dtype ?? 'F32']),
    'generation_config.json': `${JSON.stringify(generation, null, 2)}\n`,
  };
  for (const [name, text] of Object.entries(texts)) writeText(join(dir, name), text);
  writeSafetensors(join(dir, WEIGHTS), tensors, { format: 'pt' });
}

function writeText(path: string, text: string): void {
  try {
    fs.writeFileSync(path, text);
  } catch (error) {
    throw storageError(error, path, 'this file is incomplete, files written before are intact');
  }
}
