// A model as the server knows it: its name, tokenizer, prompts and defaults. The weights are in the engine's thread.
import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { listCheckpoints, openRun } from '../checkpoint/run-folder.js';
import { RetortError, refuse } from '../errors.js';
import { type TokenBytes, tokenBytes } from '../text/token-bytes.js';
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.js';
import { VERSION } from '../version.js';
import type { EngineClient } from './engine-client.js';
import type { EngineInfo } from './engine-messages.js';
import { promptMaker } from './prompt.js';
import type { PromptSource, PromptThread } from './prompts.js';

export interface ServedModel {
  readonly name: string;
  /** The folder that it was loaded from. */
  readonly dir: string;
  /** Changes when the folder's files do. */
  readonly stamp: string;
  /** Of its weights in the engine. */
  readonly handle: number;
  readonly info: EngineInfo;
  readonly tokenizer: Tokenizer;
  readonly tokens: TokenBytes;
  readonly prompts: PromptSource;
  /** Tokens that end the reasoning, written for the model when it has thought enough. */
  readonly closeThinking: readonly number[];
  /** Changes with the weights, the program and the chip's code: what outputs depend on beside the request. */
  readonly fingerprint: string;
  /** When it was loaded, in seconds since 1970. */
  readonly created: number;
  /** A request needs the model until it calls what this gives. */
  hold(): () => void;
  /** Resolves when no request needs it. */
  idle(): Promise<void>;
}

/** A model to serve, as it is named on the command line. */
export interface ModelSpec {
  readonly name: string;
  readonly dir: string;
}

/** Reads `NAME=DIR` or `DIR`, whose last part is then the name. @throws RetortError bad-input */
export function parseModelSpec(word: string): ModelSpec {
  const at = word.indexOf('=');
  const dir = at > 0 ? word.slice(at + 1) : word;
  const name = at > 0 ? word.slice(0, at) : basename(resolve(dir));
  if (!/^[\w.:/@-]{1,128}$/.test(name))
    throw refuse(
      'bad-input',
      'name of the model',
      name,
      'give one as --model NAME=DIR: letters, digits and . _ : / @ -',
    );
  return { name, dir };
}

/** The model that a path stands for now: itself, or a run's newest checkpoint. */
export function currentFolder(dir: string): string {
  if (!existsSync(join(dir, 'checkpoints'))) return dir;
  const newest = listCheckpoints(openRun(dir)).at(-1);
  if (!newest) throw refuse('bad-input', 'run to serve', dir, 'it has no checkpoint yet');
  return newest.path;
}

/** What tells one state of a model's folder or file from another without reading it. */
export function stampOf(path: string): string {
  const inside = ['model.safetensors', 'model.safetensors.index.json', 'config.json', 'tokenizer.json'];
  const isFile = statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
  return (isFile ? [path] : inside.map((file) => join(path, file)))
    .map((file) => statSync(file, { throwIfNoEntry: false }))
    .map((stat) => (stat ? `${stat.ino} ${stat.size} ${stat.mtimeMs}` : '-'))
    .join(', ');
}

/**
 * Loads a model, its tokenizer here and its weights in the engine.
 * @throws RetortError bad-model naming the file and what is wrong with it, out-of-memory
 */
export async function loadModel(
  engine: EngineClient,
  prompts: PromptThread,
  { name, dir: given }: ModelSpec,
  template = 'chat',
): Promise<ServedModel> {
  const dir = currentFolder(given);
  const stamp = stampOf(dir);
  const tokenizer = loadTokenizer(dir);
  const make = promptMaker(tokenizer, template);
  const { handle, info } = await engine.load(dir);
  return {
    ...{ name, dir, stamp, handle, info, tokenizer },
    ...holder(),
    prompts: prompts.source(dir, template, { tokenizer, make }),
    tokens: tokenBytes(tokenizer),
    closeThinking: closeThinking(tokenizer),
    fingerprint: fingerprintOf(stamp, info),
    created: Math.floor(Date.now() / 1000),
  };
}

function holder(): Pick<ServedModel, 'hold' | 'idle'> {
  let holds = 0;
  let waiting: (() => void)[] = [];
  return {
    hold() {
      holds++;
      return () => {
        if (--holds > 0) return;
        for (const resolve of waiting) resolve();
        waiting = [];
      };
    },
    idle: () => (holds === 0 ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve))),
  };
}

/** Between line breaks, as models write it, where the vocabulary has them; nothing where it cannot spell the tag. */
function closeThinking(tokenizer: Tokenizer): number[] {
  for (const text of ['\n</think>\n\n', '</think>']) {
    try {
      return tokenizer.encode(text);
    } catch (error) {
      if (!(error instanceof RetortError)) throw error;
    }
  }
  return [];
}

function fingerprintOf(stamp: string, info: EngineInfo): string {
  const hash = createHash('sha256').update(`${VERSION} ${info.target} ${stamp}`);
  return `fp_${hash.digest('hex').slice(0, 12)}`;
}
