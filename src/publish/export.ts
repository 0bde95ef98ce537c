// A model written for other programs: a Hugging Face folder, or a GGUF file for llama.cpp, Ollama and LM Studio.
import fs from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { storageError } from '../checkpoint/atomic.js';
import { makeFolder } from '../checkpoint/files.js';
import { checkVocabulary, writeModelFolder } from '../checkpoint/folder.js';
import { gguf, writeGguf } from '../checkpoint/gguf.js';
import { type GgufType, modelMetadata, modelTensors } from '../checkpoint/gguf-model.js';
import { openModel } from '../checkpoint/open-model.js';
import type { FloatType } from '../checkpoint/safetensors.js';
import type { StoredModel } from '../checkpoint/stored-model.js';
import { refuse } from '../errors.js';
import { elementCount } from '../model/config.js';
import { tokenizerMetadata } from '../text/gguf-tokenizer.js';
import { loadTokenizer } from '../text/tokenizer.js';
import { describeBase } from './licence.js';

export interface ExportOptions {
  /** Folder or GGUF file of the model. */
  readonly model: string;
  /** New folder or file. */
  readonly out: string;
  readonly format: 'hf' | 'gguf';
  /** How matrices are stored: for hf F32, F16 or BF16, for gguf F32, F16 or Q8_0. Default F32. */
  readonly type?: FloatType | GgufType;
  /** Name in the file's metadata; default: that of the model's folder. */
  readonly name?: string;
  /** Told where the format's programs will do something otherwise. */
  readonly warn?: (message: string) => void;
  /** Called before each tensor is written. */
  readonly onTensor?: (name: string, done: number, total: number) => void;
}

/** Types by format. */
export const exportTypes = { hf: ['F32', 'F16', 'BF16'], gguf: ['F32', 'F16', 'Q8_0'] } as const;

/**
 * Writes a model whole or not at all, one tensor in memory at a time.
 * @throws RetortError `bad-input` for a type that the format does not have or an output that is there, `bad-model` for a
 * model that the format cannot hold, `storage`.
 */
export function exportModel(options: ExportOptions): void {
  const { model, format, type = 'F32' } = options;
  if (!(exportTypes[format] as readonly string[]).includes(type))
    throw refuse(
      'bad-input',
      `type for the format ${format}`,
      type,
      `it has ${exportTypes[format].join(', ')}`,
    );
  const stored = openModel(model);
  try {
    if (format === 'hf') exportFolder(stored, { ...options, type: type as FloatType });
    else exportGguf(stored, options, type as GgufType);
  } finally {
    stored.close();
  }
}

/** Writes a model as a Hugging Face folder, whole or not at all; `texts` are further files. */
export function exportFolder(
  stored: StoredModel,
  { out, type = 'F32', texts, onTensor }: FolderOptions,
): void {
  const { path, config, parameters, sampling } = stored;
  const tensors = parameters.map(({ name, shape }, i) => ({
    name,
    shape,
    data() {
      onTensor?.(name, i, parameters.length);
      const values = new Float32Array(elementCount(shape));
      stored.read(name, values);
      return values;
    },
  }));
  writeModelFolder(out, { config, tensors, tokenizer: loadTokenizer(path), sampling, dtype: type, texts });
}

interface FolderOptions extends Pick<ExportOptions, 'out' | 'onTensor'> {
  readonly type?: FloatType;
  readonly texts?: Readonly<Record<string, string>>;
}

function exportGguf(
  stored: StoredModel,
  { model, out, onTensor, name, warn }: ExportOptions,
  type: GgufType,
): void {
  if (fs.existsSync(out))
    throw refuse('bad-input', 'file to write', out, 'it is there already: name a new file');
  const tokenizer = loadTokenizer(model);
  checkVocabulary(tokenizer, stored.config);
  const described = name ?? basename(resolve(model)).replace(/\.gguf$/, '');
  const metadata = modelMetadata(stored.config, { type, name: described, sampling: stored.sampling });
  for (const [key, value] of tokenizerMetadata(tokenizer, stored.config.vocabSize, warn))
    metadata.set(key, value);
  const { licence, licenceLink } = describeBase(model);
  if (licence !== null) metadata.set('general.license', gguf.string(licence));
  if (licenceLink !== null) metadata.set('general.license.link', gguf.string(licenceLink));
  const tensors = modelTensors(stored, type).map((tensor, i, all) => ({
    ...tensor,
    data() {
      onTensor?.(tensor.name, i, all.length);
      return tensor.data();
    },
  }));
  const temporary = `${out}.new.tmp`;
  try {
    makeFolder(dirname(resolve(out)));
    writeGguf(temporary, metadata, tensors);
    fs.renameSync(temporary, out);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    throw storageError(error, out, 'nothing was written');
  }
}
