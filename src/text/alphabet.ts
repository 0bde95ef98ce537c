// Finds characters that a vocabulary cannot spell. Without an unknown token the tokenizer library drops them without
// a word, and a model would be trained on a text that nobody wrote.
import type { Tokenizer as Library } from '@huggingface/tokenizers';
import { RetortError } from '../errors.js';
import { byteCharacters, byteLevelCharacters } from './byte-level.js';
import { type CheckedTokenizer, hasComponent } from './tokenizer-json.js';

/**
 * A check of texts before they are encoded, or null where every character has a token (all 256 bytes are there, or
 * an unknown token is).
 */
export function characterCheck(
  { json, idOf }: CheckedTokenizer,
  library: Library,
): ((text: string) => void) | null {
  const { model } = json;
  if (model.type !== 'BPE' || model.unk_token != null || model.byte_fallback) return null;
  const byteLevel = hasComponent(json.pre_tokenizer, 'ByteLevel');
  if (byteLevel && byteCharacters.every((character) => idOf.has(character))) return null;

  const spells = (character: string): boolean => {
    if (!byteLevel) return character.trim() === '' || library.tokenize(character).length > 0;
    const normal = library.normalizer === null ? character : library.normalizer.normalize(character);
    return byteLevelCharacters(normal).every((byte) => idOf.has(byte));
  };
  const known = new Set<string>();
  const whole = wholeTokens(json.added_tokens.map((token) => token.content));
  const checkPart = (part: string, from: number, text: string) => {
    let position = from;
    for (const character of part) {
      if (!known.has(character)) {
        if (!spells(character)) throw unknown(character, position, text);
        known.add(character);
      }
      position += character.length;
    }
  };
  return (text) => {
    let position = 0;
    // One capturing group: split puts whole-word tokens at the odd places.
    (whole ? text.split(whole) : [text]).forEach((part, place) => {
      if (place % 2 === 0) checkPart(part, position, text);
      position += part.length;
    });
  };
}

function wholeTokens(contents: readonly string[]): RegExp | null {
  if (contents.length === 0) return null;
  const longestFirst = [...contents].sort((a, b) => b.length - a.length);
  return new RegExp(`(${longestFirst.map((one) => one.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|')})`);
}

function unknown(character: string, position: number, text: string): RetortError {
  const code = character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0');
  const near = text.slice(Math.max(0, position - 12), position + 12);
  return new RetortError(
    'bad-input',
    `the vocabulary has no token for a character: got ${JSON.stringify(character)} (U+${code}) at position ` +
      `${position}, near ${JSON.stringify(near)}; remove it, or build the tokenizer with it in its characters`,
  );
}
