// The bytes that each token stands for, read off the vocabulary: what decoding cannot tell of half a character.
import { byteCharacters } from './byte-level.js';
import type { Tokenizer } from './tokenizer.js';
import {
  type CheckedTokenizer,
  checkTokenizerConfig,
  checkTokenizerJson,
  hasComponent,
} from './tokenizer-json.js';

/**
 * How a vocabulary spells bytes: one character a byte (GPT-2); text with `▁` for the space and `<0x0A>` for single
 * bytes (SentencePiece); or text as it is.
 */
export type Spelling = 'byte-level' | 'byte-fallback' | 'raw';

export interface TokenBytes {
  readonly spelling: Spelling;
  /** The vocabulary as it is spelled, by id; an id that stands for nothing has an empty one. */
  readonly spelled: readonly string[];
  /** The bytes of a token. */
  bytes(id: number): Uint8Array;
  /** Whether a token is marked special: it steers, and is no text. */
  isSpecial(id: number): boolean;
}

const BYTE = /^<0x([0-9A-F]{2})>$/;
const encoder = new TextEncoder();
const byteOf = new Map(byteCharacters.map((character, byte) => [character, byte]));

/** Reads a tokenizer's files, which are known to be right. */
export function tokenBytes({ files }: Tokenizer): TokenBytes {
  const checked = checkTokenizerJson(files['tokenizer.json'], 'tokenizer.json');
  const config = checkTokenizerConfig(files['tokenizer_config.json'], 'tokenizer_config.json');
  const { vocabSize, tokenOf, idOf, json } = checked;
  const spelling = spellingOf(checked);
  const added = new Set(json.added_tokens.map((token) => token.id));
  const special = new Set(json.added_tokens.filter((token) => token.special).map((token) => token.id));
  for (const token of [config.bos_token, config.eos_token, ...(config.additional_special_tokens ?? [])]) {
    const id = token == null ? undefined : idOf.get(typeof token === 'string' ? token : token.content);
    if (id !== undefined) special.add(id);
  }
  const spelled = Array.from({ length: vocabSize }, (_, id) => tokenOf.get(id) ?? '');
  const known: (Uint8Array | undefined)[] = [];
  return {
    spelling,
    spelled,
    bytes: (id) => (known[id] ??= spell(spelled[id] ?? '', added.has(id) ? 'raw' : spelling)),
    isSpecial: (id) => special.has(id),
  };
}

function spellingOf({ json }: CheckedTokenizer): Spelling {
  if (hasComponent(json.decoder, 'ByteLevel')) return 'byte-level';
  const pieces = ['ByteFallback', 'Metaspace'].some((type) => hasComponent(json.decoder, type));
  return pieces || json.model.type === 'Unigram' ? 'byte-fallback' : 'raw';
}

function spell(token: string, spelling: Spelling): Uint8Array {
  if (spelling === 'byte-level') {
    const bytes = [...token].map((character) => byteOf.get(character));
    if (bytes.every((byte) => byte !== undefined)) return Uint8Array.from(bytes as number[]);
  }
  if (spelling === 'byte-fallback') {
    const byte = BYTE.exec(token);
    return byte ? Uint8Array.of(Number.parseInt(byte[1], 16)) : encoder.encode(token.replaceAll('▁', ' '));
  }
  return encoder.encode(token);
}
