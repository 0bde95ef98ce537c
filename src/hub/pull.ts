// A model from the Hugging Face hub: its configuration first, then its weights, into the cache that others use too.
import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { listFiles, modelInfo } from '@huggingface/hub';
import { z } from 'zod';
import { storageError } from '../checkpoint/atomic.js';
import { parseLlamaConfig } from '../checkpoint/config-json.js';
import { makeFolder, parseJson, readTextFile } from '../checkpoint/files.js';
import { RetortError, refuse } from '../errors.js';
import { chooseFiles, type RemoteFile, shardsOf } from './choose-files.js';
import { bytesLeft, ensureFile, type Place } from './download.js';
import { type Hub, hubError } from './hub.js';

export interface PullOptions {
  readonly hub: Hub;
  /** `ORG/NAME` or `ORG/NAME@REVISION`: a branch, a tag or a commit. */
  readonly model: string;
  /** A GGUF file of the repository instead of its safetensors. */
  readonly file?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number, file: string) => void;
}

export interface Pulled {
  /** The model: the folder of the snapshot, or the GGUF file in it. */
  readonly path: string;
  readonly commit: string;
  readonly files: readonly string[];
  readonly bytes: number;
}

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string()) });

/**
 * Fetches what of a repository a model needs. What is in the cache already is not fetched again; what was begun is gone
 * on with; every file's hash is checked.
 * @throws RetortError bad-input, bad-model for a model that Retort does not run, before its weights are fetched;
 * network, storage, interrupted
 */
export async function pullModel({ hub, model, file, signal, onProgress }: PullOptions): Promise<Pulled> {
  const { name, revision } = parseName(model);
  const withSignal: typeof fetch = (input, init) => fetch(input, { ...init, signal });
  const access = { hubUrl: hub.url, accessToken: hub.token, fetch: withSignal };
  try {
    const { sha: commit } = await modelInfo({ ...access, name, revision, additionalFields: ['sha'] });
    if (!/^[0-9a-f]{40}$/.test(commit))
      throw refuse('bad-model', `commit of ${model}`, commit, 'it is no hash');
    const files: RemoteFile[] = [];
    for await (const one of listFiles({ ...access, repo: name, revision: commit }))
      if (one.type === 'file') files.push(one);
    const folder = join(hub.cache, `models--${name.replaceAll('/', '--')}`);
    const place: Place = { hub, repository: name, commit, folder, fetch: withSignal, signal };
    const wanted = await fetchChosen(place, files, file, onProgress);
    if (revision !== commit) writeRef(folder, revision, commit);
    const snapshot = join(folder, 'snapshots', commit);
    return {
      path: file === undefined ? snapshot : join(snapshot, file),
      commit,
      files: wanted.map(({ path }) => path),
      bytes: sizeOf(wanted),
    };
  } catch (error) {
    if (signal?.aborted && !(error instanceof RetortError))
      throw new RetortError('interrupted', `stopped; the same command goes on from there`, { cause: error });
    throw hubError(storageError(error, hub.cache, 'what was fetched so far stays'), model, hub);
  }
}

function parseName(model: string): { name: string; revision: string } {
  const match = /^([\w.-]+\/[\w.-]+)(?:@([\w./-]+))?$/.exec(model);
  if (match && !model.includes('..')) return { name: match[1]!, revision: match[2] ?? 'main' };
  throw refuse('bad-input', 'model to pull', model, 'name it as ORG/NAME or ORG/NAME@REVISION');
}

const sizeOf = (files: readonly RemoteFile[]) => files.reduce((sum, { size }) => sum + size, 0);

/** The small files, then what they say is to be fetched more. */
async function fetchChosen(
  place: Place,
  files: readonly RemoteFile[],
  gguf: string | undefined,
  onProgress: PullOptions['onProgress'],
): Promise<RemoteFile[]> {
  const { small, weights, isIndex } = chooseFiles(place.repository, files, gguf);
  let done = 0;
  const get = async (file: RemoteFile, total: number) => {
    const path = await ensureFile(place, file, (bytes) => {
      done += bytes;
      onProgress?.(done, total, file.path);
    });
    if (file.path === 'config.json' && gguf === undefined)
      parseLlamaConfig(read(path), `${place.repository}: config.json`);
    return path;
  };
  const known = [...small, weights];
  let wanted = known;
  for (const file of small) await get(file, sizeOf(known));
  if (isIndex) {
    const index = parseJson(
      read(await get(weights, sizeOf(known))),
      `${place.repository}: ${weights.path}`,
      indexSchema,
      'bad-model',
    );
    wanted = [...known, ...shardsOf(index, files)];
  }
  checkRoom(
    place.folder,
    wanted.reduce((sum, file) => sum + bytesLeft(place, file), 0),
  );
  for (const file of wanted.slice(isIndex ? known.length : small.length)) await get(file, sizeOf(wanted));
  return wanted;
}

const read = (path: string) => readTextFile(path, 'bad-model', 'pull the model again');

/** @throws RetortError storage where the disk has less room than is needed */
function checkRoom(folder: string, bytes: number): void {
  makeFolder(folder);
  const { bavail, bsize } = fs.statfsSync(folder);
  const free = bavail * bsize;
  if (free >= bytes) return;
  const gigabytes = (n: number) => `${(n / 1e9).toFixed(2)} GB`;
  throw new RetortError(
    'storage',
    `${folder} has room for ${gigabytes(free)}, and ${gigabytes(bytes)} are to be fetched; free space, or set HF_HOME to another disk`,
  );
}

/** What a branch or tag meant when it was last pulled, as Hugging Face's programs note it. */
function writeRef(folder: string, revision: string, commit: string): void {
  const path = join(folder, 'refs', revision);
  fs.mkdirSync(dirname(path), { recursive: true });
  fs.writeFileSync(path, commit);
}
