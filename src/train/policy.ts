// A policy: a model and its tokenizer, from a folder or made new, and the folder's content again.
import { checkVocabulary, type ModelFiles } from '../checkpoint/folder.js';
import { openModel } from '../checkpoint/open-model.js';
import type { SamplingDefaults, StoredModel } from '../checkpoint/stored-model.js';
import type { Device } from '../compute/device/device.js';
import type { LlamaConfig } from '../model/config.js';
import {
  createLlama,
  initLlama,
  type Llama,
  type ModelOptions,
  readWeights,
  weightsOf,
} from '../model/llama.js';
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.js';

export interface Policy {
  readonly llama: Llama;
  readonly tokenizer: Tokenizer;
  /** How the model's makers would sample from it; saved with it. */
  readonly sampling?: SamplingDefaults;
}

/** What a model is, without its weights. */
export interface PolicyPlan {
  readonly config: LlamaConfig;
  readonly tokenizer: Tokenizer;
}

/**
 * Opens a model folder or a GGUF file. Where all of its matrices are bfloat16 and it is not trained, they are packed for
 * products so, unless the options say how.
 * @throws RetortError bad-model naming the file and what does not fit, bad-input for a dtype, before anything is allocated
 */
export function loadPolicy(path: string, device: Device, options: ModelOptions): Policy {
  return withModel(path, (stored, tokenizer) => {
    const dtype = options.dtype ?? (options.trainable ? 'float32' : stored.dtype);
    const llama = createLlama(device, stored.config, { ...options, dtype });
    readWeights(llama, stored);
    return { llama, tokenizer, sampling: stored.sampling };
  });
}

/** Checks a model as `loadPolicy` does, without reading the weights. @throws RetortError bad-model */
export function readPolicyPlan(path: string): PolicyPlan {
  return withModel(path, ({ config }, tokenizer) => ({ config, tokenizer }));
}

function withModel<T>(path: string, use: (stored: StoredModel, tokenizer: Tokenizer) => T): T {
  const stored = openModel(path);
  try {
    const tokenizer = loadTokenizer(path);
    checkVocabulary(tokenizer, stored.config);
    return use(stored, tokenizer);
  } finally {
    stored.close();
  }
}

/** A policy with random weights. */
export function newPolicy(config: LlamaConfig, tokenizer: Tokenizer, device: Device, seed: number): Policy {
  checkVocabulary(tokenizer, config);
  const llama = createLlama(device, config, { trainable: true });
  initLlama(llama, seed);
  return { llama, tokenizer };
}

/** What `writeModelFolder` and `saveCheckpoint` take. */
export function policyFiles({ llama, tokenizer, sampling }: Policy): ModelFiles {
  return { config: llama.config, tensors: weightsOf(llama), tokenizer, sampling };
}
