// API keys: a file that holds their hashes, their limits and nothing that would let someone in.
import { createHash, randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { writeFileAtomically } from '../checkpoint/atomic.js';
import { makeFolder, parseJson, readOptionalTextFile } from '../checkpoint/files.js';
import { refuse } from '../errors.js';

const key = z.object({
  /** Names the key in the usage log; stays when the key is gone. */
  id: z.string(),
  name: z.string(),
  /** SHA-256 of the key in hexadecimal: keys are 256 random bits, so that a slow hash would add nothing. */
  hash: z.string().regex(/^[0-9a-f]{64}$/),
  /** Its first characters, to tell keys apart. */
  hint: z.string(),
  created: z.string(),
  requestsPerMinute: z.number().positive().optional(),
  tokensPerMinute: z.number().positive().optional(),
  /** Most that its requests may cost in all. */
  budget: z.number().min(0).optional(),
  /** Names of the models that it may use; absent: all. */
  models: z.array(z.string()).optional(),
});

const keyFile = z.object({ keys: z.array(key) });

export type Key = z.infer<typeof key>;
export type KeyLimits = Pick<Key, 'requestsPerMinute' | 'tokensPerMinute' | 'budget' | 'models'>;

const PREFIX = 'rt-';
const remedy = 'correct the file, or make keys anew with: retort keys add NAME';

const pathOf = (folder: string) => join(folder, 'keys.json');
const hashOf = (secret: string) => createHash('sha256').update(secret).digest('hex');

/** The keys of a server's folder; none where there is no file. @throws RetortError bad-data naming the field */
export function readKeys(folder: string): Key[] {
  const path = pathOf(folder);
  const text = readOptionalTextFile(path, 'bad-data', remedy);
  return text === undefined ? [] : parseJson(text, path, keyFile, 'bad-data').keys;
}

function writeKeys(folder: string, keys: readonly Key[]): void {
  makeFolder(folder);
  writeFileAtomically(pathOf(folder), `${JSON.stringify({ keys }, null, 2)}\n`);
}

/**
 * Makes a key and keeps its hash.
 * @returns the key itself, which is nowhere else
 * @throws RetortError bad-input for a name that is taken
 */
export function addKey(folder: string, name: string, limits: KeyLimits): string {
  const keys = readKeys(folder);
  if (keys.some((k) => k.name === name))
    throw refuse(
      'bad-input',
      'name of the key',
      name,
      'it is taken: choose another, or remove that key first',
    );
  const secret = PREFIX + randomBytes(32).toString('base64url');
  const made: Key = {
    id: randomBytes(6).toString('hex'),
    name,
    hash: hashOf(secret),
    hint: `${secret.slice(0, PREFIX.length + 4)}...`,
    created: new Date().toISOString(),
    ...limits,
  };
  writeKeys(folder, [...keys, made]);
  return secret;
}

/** @throws RetortError bad-input where there is no such key */
export function removeKey(folder: string, name: string): Key {
  const keys = readKeys(folder);
  const found = keys.find((k) => k.name === name);
  if (!found) {
    const known = keys.map((k) => k.name).join(', ') || 'none';
    throw refuse('bad-input', 'name of the key', name, `there is no such key; known are: ${known}`);
  }
  writeKeys(
    folder,
    keys.filter((k) => k !== found),
  );
  return found;
}

/** The keys as a running server sees them: what is changed in the file holds within a second. */
export interface KeyRing {
  /** Whether requests need a key. */
  readonly guarded: boolean;
  /** The key that a secret is, if it is one. */
  find(secret: string): Key | undefined;
}

const LOOK_EVERY_MS = 1000;

/** @throws RetortError bad-data where the file is broken now; later a broken file leaves the keys as they were */
export function openKeyRing(folder: string, onBroken: (error: Error) => void): KeyRing {
  let stamp = stampOf(folder);
  let byHash = index(readKeys(folder));
  let looked = performance.now();
  // A server that had keys never opens up because the last one is removed.
  let guarded = byHash.size > 0;

  function refresh(): void {
    const now = performance.now();
    if (now - looked < LOOK_EVERY_MS) return;
    looked = now;
    const fresh = stampOf(folder);
    if (fresh === stamp) return;
    stamp = fresh;
    try {
      byHash = index(readKeys(folder));
      guarded ||= byHash.size > 0;
    } catch (error) {
      onBroken(error as Error);
    }
  }

  return {
    get guarded() {
      refresh();
      return guarded;
    },
    find(secret) {
      refresh();
      // Looked up by hash: how long it takes says nothing about the secret.
      return byHash.get(hashOf(secret));
    },
  };
}

function index(keys: readonly Key[]): ReadonlyMap<string, Key> {
  return new Map(keys.map((k) => [k.hash, k]));
}

function stampOf(folder: string): string {
  const stat = statSync(pathOf(folder), { throwIfNoEntry: false });
  return stat ? `${stat.mtimeMs} ${stat.size} ${stat.ino}` : '';
}
