// What a model is known by in records: the hash of its weights, and the step where it is a run's checkpoint.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { basename, join } from 'node:path';
import { RetortError } from '../errors.js';
import { fileProblem } from './files.js';
import { isGgufPath } from './open-model.js';

export interface ModelIdentity {
  /** As it was named. */
  readonly model: string;
  /** Of a run's checkpoint; null for other models. */
  readonly step: number | null;
  /** SHA-256 of the weight files, one after another in the order of their names. */
  readonly sha256: string;
}

/** Reads all weights once. @throws RetortError bad-model where a file cannot be read */
export async function identifyModel(path: string): Promise<ModelIdentity> {
  const hash = createHash('sha256');
  try {
    const files = isGgufPath(path) ? [path] : weightFiles(path);
    for (const file of files)
      for await (const block of fs.createReadStream(file)) hash.update(block as Buffer);
  } catch (error) {
    throw new RetortError('bad-model', `cannot read the weights of ${path}: ${fileProblem(error)}`, {
      cause: error,
    });
  }
  const step = /^step-(\d+)$/.exec(basename(path))?.[1];
  const checkpoint = step !== undefined && fs.existsSync(join(path, 'state.json'));
  return { model: path, step: checkpoint ? Number(step) : null, sha256: hash.digest('hex') };
}

/** One file, or the shards. A checkpoint's optimizer and reference stand beside one file, and are no weights of the model. */
function weightFiles(folder: string): string[] {
  const whole = join(folder, 'model.safetensors');
  if (fs.existsSync(whole)) return [whole];
  const shards = fs.readdirSync(folder).filter((name) => name.endsWith('.safetensors'));
  return shards.sort().map((name) => join(folder, name));
}
