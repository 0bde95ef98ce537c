// Tokenizers: a Hugging Face folder's tokenizer.json through @huggingface/tokenizers, checked and wrapped.
import { join } from 'node:path';
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { z } from 'zod';
import { parseJson, readOptionalTextFile, readTextFile } from '../checkpoint/files.js';
import { openGguf } from '../checkpoint/gguf.js';
import { isGgufPath } from '../checkpoint/open-model.js';
import { RetortError, refuse } from '../errors.js';
import { characterCheck } from './alphabet.js';
import { tokenizerFiles } from './gguf-tokenizer.js';
import { streamText, type TextStream } from './stream.js';
import {
  type CheckedTokenizer,
  checkTokenizerConfig,
  checkTokenizerJson,
  type TokenizerConfig,
  type TokenizerJson,
} from './tokenizer-json.js';

export interface Tokenizer {
  /** One more than the greatest token id. */
  readonly vocabSize: number;
  readonly bosTokenId: number | null;
  /** Every id that ends a sequence: of the generation configuration, the model and the tokenizer. */
  readonly eosTokenIds: readonly number[];
  /**
   * Token ids of a text. Special tokens written in the text (`<think>`) become their one id.
   * @param options.addSpecialTokens adds what the file asks for, usually the beginning-of-sequence token; off by default
   * @throws RetortError `bad-input` where the vocabulary has no token for a character, naming it and its position.
   */
  encode(text: string, options?: { addSpecialTokens?: boolean }): number[];
  /**
   * The text of token ids, as the model wrote it: the "clean-up" of spaces that older files ask for is not done.
   * An id inside the vocabulary that stands for nothing gives U+FFFD.
   * @param options.skipSpecialTokens leaves out tokens marked special; off by default
   * @throws RetortError `bad-input` for an id that is no whole number from 0.
   */
  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string;
  /** Incremental decoding that never hands out half a UTF-8 character. */
  stream(options?: { skipSpecialTokens?: boolean }): TextStream;
  /** The files as they must be saved beside the weights: name to text. */
  readonly files: Readonly<Record<string, string>>;
  /** Source of the chat template, if there is one. */
  readonly chatTemplate: string | null;
}

/** The first token that stands for another text in the one than in the other; null where there is none. */
export function firstTokenApart(a: Tokenizer, b: Tokenizer): number | null {
  for (let id = 0; id < Math.max(a.vocabSize, b.vocabSize); id++)
    if (a.decode([id]) !== b.decode([id])) return id;
  return null;
}

const savedFiles = ['special_tokens_map.json', 'chat_template.jinja'];
const remedy = 'name a model folder in the Hugging Face layout, with tokenizer.json and config.json';

const specialIds = z.looseObject({
  bos_token_id: z.union([z.number().int().min(0), z.array(z.number().int().min(0))]).nullish(),
  eos_token_id: z.union([z.number().int().min(0), z.array(z.number().int().min(0))]).nullish(),
});

/**
 * Loads the tokenizer of a Hugging Face folder or of a GGUF file. A folder's tokenizer_config.json, generation_config.json and config.json may
 * be absent; they only say which tokens begin and end a sequence.
 * @throws RetortError `bad-model` naming the file and what is wrong with it.
 */
export function loadTokenizer(dir: string): Tokenizer {
  if (isGgufPath(dir)) {
    const file = openGguf(dir);
    try {
      const { files, eos } = tokenizerFiles(file.metadata, dir);
      return createTokenizer(files, { source: dir, eos });
    } finally {
      file.close();
    }
  }
  const read = (name: string) => readOptionalTextFile(join(dir, name), 'bad-model', remedy);
  const files: Record<string, string> = {
    'tokenizer.json': readTextFile(join(dir, 'tokenizer.json'), 'bad-model', remedy),
    'tokenizer_config.json': read('tokenizer_config.json') ?? '{}',
  };
  for (const name of savedFiles) {
    const text = read(name);
    if (text !== undefined) files[name] = text;
  }
  const ids = ['generation_config.json', 'config.json'].map((name) => {
    const text = read(name);
    return text === undefined ? {} : parseJson(text, join(dir, name), specialIds, 'bad-model');
  });
  return createTokenizer(files, {
    source: dir,
    bos: ids.flatMap((one) => one.bos_token_id ?? []),
    eos: ids.flatMap((one) => one.eos_token_id ?? []),
  });
}

/**
 * Makes a tokenizer from the texts of its files.
 * @param origin.source folder to name in errors
 * @param origin.bos ids from other configuration files, used where tokenizer_config.json names no token
 * @param origin.eos more ids that end a sequence
 */
export function createTokenizer(
  files: Readonly<Record<string, string>>,
  origin: { source: string; bos?: readonly number[]; eos?: readonly number[] },
): Tokenizer {
  const path = join(origin.source, 'tokenizer.json');
  const checked = checkTokenizerJson(files['tokenizer.json'] ?? '', path);
  const config = checkTokenizerConfig(
    files['tokenizer_config.json'] ?? '{}',
    join(origin.source, 'tokenizer_config.json'),
  );
  const library = guard(path, 'cannot be used', () => new Library(withExactSplits(checked.json), config));
  const { vocabSize, idOf, tokenOf } = checked;
  const bosTokenId = findBos(config, idOf, origin.bos ?? []);
  const special = specialTokenIds(checked, config);
  const checkCharacters = characterCheck(checked, library);

  const encode = (text: string, addSpecialTokens: boolean): number[] => {
    if (typeof text !== 'string') throw refuse('bad-input', 'text to encode', text, 'give a string');
    checkCharacters?.(text);
    const { ids } = guard(path, 'cannot encode a text', () =>
      library.encode(text, { add_special_tokens: addSpecialTokens }),
    );
    for (const id of ids)
      if (!tokenOf.has(id))
        throw refuse('bad-model', `${path}: a token has no id`, id, 'copy the file again');
    const wantsBos = addSpecialTokens && config.add_bos_token === true && bosTokenId !== null;
    return wantsBos && ids[0] !== bosTokenId ? [bosTokenId, ...ids] : ids;
  };
  const decode = (ids: readonly number[], skip: boolean): string => {
    for (const id of ids)
      if (!Number.isInteger(id) || id < 0)
        throw refuse('bad-input', 'token id', id, `it must be a whole number from 0 to ${vocabSize - 1}`);
    let text = '';
    for (const run of assignedRuns(skip ? ids.filter((id) => !special.has(id)) : ids, tokenOf))
      text += run === null ? '\uFFFD' : guard(path, 'cannot decode', () => decodeRun(library, run, skip));
    return text;
  };
  encode('', true); // a post-processor that names a missing token shows here, not in the middle of a run

  return {
    vocabSize,
    bosTokenId,
    eosTokenIds: findEos(config, idOf, origin.eos ?? []),
    encode: (text, options) => encode(text, options?.addSpecialTokens ?? false),
    decode: (ids, options) => decode(ids, options?.skipSpecialTokens ?? false),
    stream(options) {
      const skip = options?.skipSpecialTokens ?? false;
      return streamText(
        (ids) => decode(ids, skip),
        (id) => skip && special.has(id),
      );
    },
    files,
    chatTemplate: files['chat_template.jinja'] ?? defaultTemplate(config),
  };
}

/** GPT-2's expression, which a byte-level pre-tokenizer splits by where its file does not say otherwise. */
const GPT2_WORDS = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/**
 * Some of the library's pre-tokenizers have JavaScript's idea of characters: by GPT-2's expression U+FEFF is a space and
 * U+0085 is none, and digits are those of ASCII. Expressions of a file it takes with Unicode's, as it must be; so it is
 * given these as such.
 */
function withExactSplits(json: TokenizerJson): TokenizerJson {
  const isolate = (regex: string) => ({
    type: 'Split',
    pattern: { Regex: regex },
    behavior: 'Isolated',
    invert: false,
  });
  const exact = (one: TokenizerJson['pre_tokenizer']): TokenizerJson['pre_tokenizer'] => {
    if (one?.pretokenizers)
      return { ...one, pretokenizers: (one.pretokenizers as (typeof one)[]).map(exact) };
    if (one?.type === 'Digits') return isolate(one.individual_digits === true ? '\\p{N}' : '\\p{N}+');
    if (one?.type !== 'ByteLevel' || one.use_regex === false || one.add_prefix_space !== false) return one;
    const words = isolate(GPT2_WORDS);
    return { type: 'Sequence', pretokenizers: [words, { ...one, use_regex: false }] };
  };
  return { ...json, pre_tokenizer: exact(json.pre_tokenizer) };
}

function decodeRun(library: Library, ids: number[], skip: boolean): string {
  return library.decode(ids, { skip_special_tokens: skip, clean_up_tokenization_spaces: false });
}

/** Ids in runs that all have tokens; null stands for one id that has none. */
function assignedRuns(ids: readonly number[], tokenOf: ReadonlyMap<number, string>): Array<number[] | null> {
  const runs: Array<number[] | null> = [];
  let run: number[] = [];
  for (const id of ids) {
    if (tokenOf.has(id)) {
      run.push(id);
      continue;
    }
    if (run.length > 0) runs.push(run);
    runs.push(null);
    run = [];
  }
  if (run.length > 0) runs.push(run);
  return runs;
}

function specialTokenIds({ json, idOf }: CheckedTokenizer, config: TokenizerConfig): ReadonlySet<number> {
  const ids = new Set<number>();
  for (const token of json.added_tokens) if (token.special) ids.add(token.id);
  for (const token of config.additional_special_tokens ?? []) {
    const id = idOf.get(contentOf(token)!);
    if (id !== undefined) ids.add(id);
  }
  return ids;
}

type TokenText = TokenizerConfig['bos_token'];

function contentOf(token: TokenText): string | undefined {
  return typeof token === 'object' ? token?.content : token;
}

// `"bos_token": null` says that there is none, whatever config.json says (Qwen); a missing field says nothing.
function findBos(
  config: TokenizerConfig,
  idOf: ReadonlyMap<string, number>,
  others: readonly number[],
): number | null {
  if (config.bos_token === null) return null;
  const token = contentOf(config.bos_token);
  return (token === undefined ? undefined : idOf.get(token)) ?? others[0] ?? null;
}

function findEos(
  config: TokenizerConfig,
  idOf: ReadonlyMap<string, number>,
  others: readonly number[],
): number[] {
  const token = contentOf(config.eos_token);
  const own = token === undefined ? undefined : idOf.get(token);
  return [...new Set(own === undefined ? others : [...others, own])];
}

function defaultTemplate({ chat_template }: TokenizerConfig): string | null {
  if (!Array.isArray(chat_template)) return chat_template ?? null;
  return (chat_template.find((one) => one.name === 'default') ?? chat_template[0])?.template ?? null;
}

function guard<T>(path: string, what: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof RetortError) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new RetortError('bad-model', `${path} ${what}: ${why}; copy the file again from its source`, {
      cause: error,
    });
  }
}
