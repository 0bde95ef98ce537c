// A policy: a model and its tokenizer, from a folder or made new, and the folder's content again.
import { checkVocabulary, type ModelFiles, type ModelFolder, readModelFolder } from '../checkpoint/folder.js';
import type { Device } from '../compute/device/device.js';
import type { LlamaConfig } from '../model/config.js';
import { createLlama, initLlama, type Llama, readWeights, weightsOf } from '../model/llama.js';
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.js';

export interface Policy {
  readonly llama: Llama;
  readonly tokenizer: Tokenizer;
}

/** What a model is, without its weights. */
export interface PolicyPlan {
  readonly config: LlamaConfig;
  readonly tokenizer: Tokenizer;
}

/** Opens a model folder. @throws RetortError bad-model naming the file and what does not fit, before anything is allocated */
export function loadPolicy(dir: string, device: Device, options: { trainable: boolean }): Policy {
  return withFolder(dir, (folder, tokenizer) => {
    const llama = createLlama(device, folder.config, options);
    readWeights(llama, folder);
    return { llama, tokenizer };
  });
}

/** Checks a model folder as `loadPolicy` does, without reading the weights. @throws RetortError bad-model */
export function readPolicyPlan(dir: string): PolicyPlan {
  return withFolder(dir, ({ config }, tokenizer) => ({ config, tokenizer }));
}

function withFolder<T>(dir: string, use: (folder: ModelFolder, tokenizer: Tokenizer) => T): T {
  const folder = readModelFolder(dir);
  try {
    const tokenizer = loadTokenizer(dir);
    checkVocabulary(tokenizer, folder.config);
    return use(folder, tokenizer);
  } finally {
    folder.close();
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
export function policyFiles({ llama, tokenizer }: Policy): ModelFiles {
  return { config: llama.config, tensors: weightsOf(llama), tokenizer };
}
