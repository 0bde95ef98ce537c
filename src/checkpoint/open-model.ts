// Opens a model by its path, whatever it is stored as.
import fs from 'node:fs';
import { readModelFolder } from './folder.js';
import { readGgufModel } from './gguf-model.js';
import type { StoredModel } from './stored-model.js';

/** Whether a path means a GGUF file: by its name, or because it is a file and not a folder. */
export function isGgufPath(path: string): boolean {
  return path.endsWith('.gguf') || fs.statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

/**
 * Opens a Hugging Face folder or a GGUF file and checks it, before anything of the model's size is allocated.
 * @throws RetortError `bad-model` naming the file and what does not fit.
 */
export function openModel(path: string): StoredModel {
  return isGgufPath(path) ? readGgufModel(path) : readModelFolder(path);
}

/** The longest context of a model in tokens. @throws RetortError as `openModel` */
export function contextOf(path: string): number {
  const stored = openModel(path);
  stored.close();
  return stored.config.maxPositionEmbeddings;
}
