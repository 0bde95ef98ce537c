// Builds the tokenizer of models trained from nothing: one token a byte, whole-word special tokens, nothing else.
// It is a byte-level BPE without merges, because llama.cpp has no word-level kind and runs the result as it is.
import { refuse } from '../errors.js';
import { byteCharacters, byteLevelCharacters } from './byte-level.js';
import { createTokenizer, type Tokenizer } from './tokenizer.js';
import { plainBpe } from './tokenizer-json.js';

/** Tags that the tasks and templates use; each is one token, and ordinary text (not skipped in decoding). */
export const tagTokens: readonly string[] = ['<think>', '</think>', '<answer>', '</answer>'];

/** Ends a sequence; it also stands where a beginning-of-sequence token is needed (an empty prompt). */
export const endOfSequence = '<|endoftext|>';

/**
 * A character-level tokenizer whose ids are dense: the bytes of `characters` in byte order, then the special tokens,
 * then end of sequence. A character outside ASCII becomes its UTF-8 bytes. Encoding a character that cannot be
 * spelled is an error that names it and its position.
 * @param options.characters every character that texts may hold, in any order, repeats allowed
 * @param options.specialTokens whole-word tokens; `tagTokens` where absent
 * @throws RetortError `bad-input` without characters, or for an empty or repeated special token.
 * @example
 * const tokenizer = buildCharTokenizer({ characters: '0123456789+-*=' });
 * tokenizer.encode('<think>1+1').length; // 4
 */
export function buildCharTokenizer(options: {
  characters: string;
  specialTokens?: readonly string[];
}): Tokenizer {
  const bytes = [...new Set(byteLevelCharacters(options.characters))].sort(
    (a, b) => byteCharacters.indexOf(a) - byteCharacters.indexOf(b),
  );
  if (bytes.length === 0)
    throw refuse('bad-input', 'characters', options.characters, 'give at least one character');
  const special = [...(options.specialTokens ?? tagTokens), endOfSequence];
  special.forEach((token, index) => {
    if (token === '' || special.indexOf(token) !== index)
      throw refuse(
        'bad-input',
        'specialTokens',
        options.specialTokens,
        'each must be there once and not empty',
      );
  });
  const added = special.map((content, index) => ({
    id: bytes.length + index,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: content === endOfSequence,
  }));
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  const tokenizerJson = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      ...plainBpe,
      ignore_merges: false,
      vocab: Object.fromEntries(bytes.map((character, id) => [character, id])),
      merges: [],
    },
  };
  const config = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: endOfSequence,
    eos_token: endOfSequence,
    add_bos_token: false,
    add_prefix_space: false,
    clean_up_tokenization_spaces: false,
  };
  return createTokenizer(
    {
      'tokenizer.json': `${JSON.stringify(tokenizerJson, null, 1)}\n`,
      'tokenizer_config.json': `${JSON.stringify(config, null, 1)}\n`,
    },
    { source: 'the character tokenizer' },
  );
}
