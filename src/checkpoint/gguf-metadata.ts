// Reads of GGUF metadata that name the file and the key where a value is missing or of another kind.
import { RetortError, refuse } from '../errors.js';
import type { GgufMetadata, GgufValue } from './gguf-format.js';

export interface MetadataReader {
  string(key: string): string;
  optionalString(key: string): string | undefined;
  number(key: string): number;
  optionalNumber(key: string): number | undefined;
  /** A whole number from 0. */
  count(key: string, fallback?: number): number;
  optionalBool(key: string): boolean | undefined;
  strings(key: string): readonly string[];
  optionalNumbers(key: string): ArrayLike<number> | undefined;
}

/** Readers of the values of a file; each throws RetortError `bad-model` naming `path` and the key. */
export function metadataReader(metadata: GgufMetadata, path: string): MetadataReader {
  const wrong = (key: string, { type, value }: GgufValue, wanted: string) =>
    refuse('bad-model', `${path}: ${key}`, type === 'array' ? 'an array' : value, `it must be ${wanted}`);
  const needed = <T>(key: string, value: T | undefined): T => {
    if (value !== undefined) return value;
    throw new RetortError('bad-model', `${path}: the key ${key} is missing: name a GGUF file of a model`);
  };
  const optionalString = (key: string) => {
    const one = metadata.get(key);
    if (one === undefined || one.type === 'string') return one?.value;
    throw wrong(key, one, 'a text');
  };
  const optionalNumber = (key: string) => {
    const one = metadata.get(key);
    if (one === undefined) return undefined;
    if (one.type !== 'array' && typeof one.value === 'number') return one.value;
    throw wrong(key, one, 'a number, the same for all layers');
  };
  return {
    optionalString,
    optionalNumber,
    string: (key) => needed(key, optionalString(key)),
    number: (key) => needed(key, optionalNumber(key)),
    count(key, fallback) {
      const value = needed(key, optionalNumber(key) ?? fallback);
      if (Number.isInteger(value) && value >= 0) return value;
      throw refuse('bad-model', `${path}: ${key}`, value, 'it must be a whole number');
    },
    optionalBool(key) {
      const one = metadata.get(key);
      if (one === undefined || one.type === 'bool') return one?.value;
      throw wrong(key, one, 'true or false');
    },
    strings(key) {
      const one = needed(key, metadata.get(key));
      if (one.type === 'array' && one.of === 'string') return one.value;
      throw wrong(key, one, 'an array of texts');
    },
    optionalNumbers(key) {
      const one = metadata.get(key);
      if (one === undefined) return undefined;
      if (one.type === 'array' && one.of !== 'string' && one.of !== 'bool') return one.value;
      throw wrong(key, one, 'an array of numbers');
    },
  };
}

/** The shortest decimal that float32 stores as the same value: 0.00001 for the 9.99999974e-6 that is stored. */
export function shortestFloat(value: number): number {
  const stored = Math.fround(value);
  for (let digits = 1; digits <= 9; digits++) {
    const short = Number(stored.toPrecision(digits));
    if (Math.fround(short) === stored) return short;
  }
  return stored;
}

/** `tokenizer.ggml.token_type` of tokens that steer a model and are no text. */
const CONTROL = 3;

// A file names at most three tokens that end a sequence; llama.cpp finds others by their text, and so do we.
const endTexts = new Set([
  '</s>',
  '<|endoftext|>',
  '<|im_end|>',
  '<|end_of_text|>',
  '<|eot_id|>',
  '<|eom_id|>',
  '<｜end▁of▁sentence｜>',
]);

const endKeys = ['eos', 'eot', 'eom'].map((name) => `tokenizer.ggml.${name}_token_id`);

/** Keys for the tokens that end a sequence, the most important first. */
export const endTokenKeys: readonly string[] = endKeys;

/** The ids that begin and end sequences, as the metadata of a tokenizer has them. */
export function endTokens(
  metadata: GgufMetadata,
  path: string,
): { bosTokenId: number | null; eosTokenIds: number[] } {
  const meta = metadataReader(metadata, path);
  const isSentencePiece = meta.optionalString('tokenizer.ggml.model') === 'llama';
  const id = (key: string) => meta.optionalNumber(key);
  const bos = id('tokenizer.ggml.bos_token_id') ?? (isSentencePiece ? 1 : null);
  const [eos = isSentencePiece ? 2 : undefined, ...more] = endKeys.map(id);
  const types = meta.optionalNumbers('tokenizer.ggml.token_type');
  const isEnd = (text: string, at: number) => endTexts.has(text) && types?.[at] === CONTROL;
  const byText = metadata.has('tokenizer.ggml.tokens')
    ? meta.strings('tokenizer.ggml.tokens').flatMap((text, at) => (isEnd(text, at) ? [at] : []))
    : [];
  const eosTokenIds = [eos, ...more, ...byText].filter((one): one is number => one !== undefined);
  return { bosTokenId: bos, eosTokenIds: [...new Set(eosTokenIds)] };
}
