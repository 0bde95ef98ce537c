// Tokenizers in GGUF files: the metadata of one as the files of a Hugging Face tokenizer, and the other way round.
// Two kinds: `gpt2`, byte-level BPE, and `llama`, SentencePiece's BPE with bytes for unknown characters.

import { gguf } from '../checkpoint/gguf.js';
import type { GgufMetadata, GgufValue } from '../checkpoint/gguf-format.js';
import { endTokenKeys, endTokens, metadataReader } from '../checkpoint/gguf-metadata.js';
import { RetortError, refuse } from '../errors.js';
import { byteCharacters } from './byte-level.js';
import { nameOfPreTokenizer, preTokenizerNamed, preTokenizerNames } from './pre-tokenizers.js';
import { type Merge, mergesFromScores, scoresFromMerges } from './sentencepiece.js';
import type { Tokenizer } from './tokenizer.js';
import {
  checkTokenizerConfig,
  checkTokenizerJson,
  hasComponent,
  plainBpe,
  type TokenizerJson,
} from './tokenizer-json.js';

/** What a token is, by its number in `tokenizer.ggml.token_type`. */
const kinds = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 };

const key = (name: string) => `tokenizer.ggml.${name}`;
const byteToken = (byte: number) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
/** What llama.cpp's converter calls ids that stand for nothing. */
const padding = (id: number) => `[PAD${id}]`;

/**
 * The tokenizer of a GGUF file as that of a Hugging Face folder: its files, and every id that ends a sequence.
 * @throws RetortError `bad-model` naming the file and the key that does not fit.
 */
export function tokenizerFiles(
  metadata: GgufMetadata,
  path: string,
): { files: Record<string, string>; eos: readonly number[] } {
  const meta = metadataReader(metadata, path);
  const tokens = meta.strings(key('tokens'));
  if (new Set(tokens).size !== tokens.length)
    throw new RetortError('bad-model', `${path}: ${key('tokens')} has a token twice; copy the file again`);
  const types = meta.optionalNumbers(key('token_type')) ?? new Array(tokens.length).fill(kinds.normal);
  if (types.length !== tokens.length)
    throw refuse(
      'bad-model',
      `${path}: length of ${key('token_type')}`,
      types.length,
      `there are ${tokens.length} tokens`,
    );
  const vocabulary: Vocabulary = { tokens, types, path };
  const model = meta.string(key('model'));
  const parts =
    model === 'gpt2'
      ? byteLevelParts(vocabulary, metadata)
      : model === 'llama'
        ? sentencePieceParts(vocabulary, metadata)
        : undefined;
  if (!parts)
    throw refuse(
      'bad-model',
      `${path}: ${key('model')}`,
      model,
      'Retort reads gpt2 (byte-level BPE) and llama (SentencePiece)',
    );
  const { bosTokenId, eosTokenIds } = endTokens(metadata, path);
  const addBos = meta.optionalBool(key('add_bos_token')) ?? parts.addBos;
  const text = (id: number | null | undefined) => (id == null ? null : (tokens[id] ?? null));
  const json = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: addedTokens(vocabulary),
    normalizer: parts.normalizer,
    pre_tokenizer: parts.preTokenizer,
    post_processor: addBos ? beginning(text(bosTokenId), bosTokenId, path) : null,
    decoder: parts.decoder,
    model: parts.model,
  };
  const config = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: text(bosTokenId),
    eos_token: text(eosTokenIds[0]),
    add_bos_token: addBos,
    clean_up_tokenization_spaces: false,
    chat_template: meta.optionalString('tokenizer.chat_template') ?? undefined,
  };
  const files = {
    'tokenizer.json': `${JSON.stringify(json, null, 1)}\n`,
    'tokenizer_config.json': `${JSON.stringify(config, null, 1)}\n`,
  };
  return { files, eos: eosTokenIds };
}

interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: ArrayLike<number>;
  readonly path: string;
}

interface Parts {
  readonly normalizer: unknown;
  readonly preTokenizer: unknown;
  readonly decoder: unknown;
  readonly model: unknown;
  readonly addBos: boolean;
}

/** Tokens that stand for text by themselves, by id: neither added ones nor padding. */
function ordinary({ tokens, types }: Vocabulary): [token: string, id: number][] {
  const isOrdinary = (id: number) => [kinds.normal, kinds.byte, kinds.unknown].includes(types[id]!);
  return tokens.flatMap((token, id): [string, number][] =>
    isOrdinary(id) && token !== '' ? [[token, id]] : [],
  );
}

function addedTokens({ tokens, types }: Vocabulary) {
  return tokens.flatMap((content, id) => {
    const special = types[id] === kinds.control || types[id] === kinds.unknown;
    if ((!special && types[id] !== kinds.userDefined) || content === '') return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
}

function beginning(token: string | null, id: number | null, path: string) {
  if (token === null)
    throw new RetortError(
      'bad-model',
      `${path}: ${key('add_bos_token')} is set, but no token begins a sequence`,
    );
  return {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: token, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [],
    special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
  };
}

function byteLevelParts(vocabulary: Vocabulary, metadata: GgufMetadata): Parts {
  const meta = metadataReader(metadata, vocabulary.path);
  const name = meta.string(key('pre'));
  const pre = preTokenizerNamed(name);
  if (!pre)
    throw refuse(
      'bad-model',
      `${vocabulary.path}: ${key('pre')}`,
      name,
      `Retort knows ${preTokenizerNames.join(', ')}`,
    );
  const merges = meta.strings(key('merges')).map((merge) => {
    const at = merge.indexOf(' ', 1);
    return [merge.slice(0, at), merge.slice(at + 1)];
  });
  return {
    normalizer: pre.normalizer,
    preTokenizer: pre.preTokenizer,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      ...plainBpe,
      ignore_merges: pre.ignoreMerges,
      vocab: Object.fromEntries(ordinary(vocabulary)),
      merges,
    },
    addBos: pre.addBos,
  };
}

function sentencePieceParts(vocabulary: Vocabulary, metadata: GgufMetadata): Parts {
  const { tokens, types, path } = vocabulary;
  const meta = metadataReader(metadata, path);
  const scores = meta.optionalNumbers(key('scores'));
  if (scores?.length !== tokens.length)
    throw refuse(
      'bad-model',
      `${path}: length of ${key('scores')}`,
      scores?.length,
      `there are ${tokens.length} tokens`,
    );
  const scoreOf = new Map<string, number>();
  tokens.forEach((token, id) => {
    if (types[id] === kinds.normal) scoreOf.set(token, scores[id]!);
  });
  const addPrefix = meta.optionalBool(key('add_space_prefix')) ?? true;
  const unknown = tokens[meta.optionalNumber(key('unknown_token_id')) ?? 0];
  const spaces = { type: 'Replace', pattern: { String: ' ' }, content: '▁' };
  const strip = { type: 'Strip', content: ' ', start: 1, stop: 0 };
  return {
    normalizer: {
      type: 'Sequence',
      normalizers: [...(addPrefix ? [{ type: 'Prepend', prepend: '▁' }] : []), spaces],
    },
    preTokenizer: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        ...(addPrefix ? [strip] : []),
      ],
    },
    model: {
      ...plainBpe,
      unk_token: unknown ?? null,
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(ordinary(vocabulary)),
      merges: mergesFromScores(scoreOf),
    },
    addBos: true,
  };
}

/**
 * The metadata of a tokenizer for a model whose vocabulary may be padded.
 * @param warn is told where llama.cpp gives other tokens for some texts
 * @throws RetortError `bad-model` where llama.cpp has no tokenizer that gives the same tokens, saying why
 */
export function tokenizerMetadata(
  tokenizer: Tokenizer,
  vocabSize: number,
  warn: (message: string) => void = () => {},
): Map<string, GgufValue> {
  const { json, idOf, tokenOf } = checkTokenizerJson(tokenizer.files['tokenizer.json']!, 'tokenizer.json');
  const config = checkTokenizerConfig(
    tokenizer.files['tokenizer_config.json'] ?? '{}',
    'tokenizer_config.json',
  );
  checkAddedTokens(json);
  const isByteLevel = hasComponent(json.pre_tokenizer, 'ByteLevel');
  const addedById = new Map(json.added_tokens.map((one) => [one.id, one]));
  const kindOf = (id: number, token: string) => {
    const added = addedById.get(id);
    if (json.model.type === 'BPE' && token === json.model.unk_token && !isByteLevel) return kinds.unknown;
    if (added) return added.special ? kinds.control : kinds.userDefined;
    return !isByteLevel && /^<0x[0-9A-F]{2}>$/.test(token) ? kinds.byte : kinds.normal;
  };
  const tokens = Array.from({ length: vocabSize }, (_, id) => tokenOf.get(id) ?? padding(id));
  const types = tokens.map((token, id) => (tokenOf.has(id) ? kindOf(id, token) : kinds.unused));
  const { string, strings, i32s, u32, bool } = gguf;
  const metadata = new Map<string, GgufValue>();
  const { adds } = endsOf(tokenizer);
  if (isByteLevel) {
    metadata.set(key('model'), string('gpt2'));
    metadata.set(key('pre'), string(preTokenizerOf(json)));
    metadata.set(key('merges'), strings(mergesOf(json).map((merge) => merge.join(' '))));
  } else {
    metadata.set(key('model'), string('llama'));
    metadata.set(key('pre'), string('default'));
    metadata.set(key('scores'), gguf.f32s(sentencePieceScores(json, tokens, types)));
    metadata.set(key('add_space_prefix'), bool(addsPrefix(json, warn)));
  }
  const text = (token: string, id: number) =>
    types[id] === kinds.userDefined && !isByteLevel ? token.replaceAll('▁', ' ') : token;
  metadata.set(key('tokens'), strings(tokens.map(text)));
  metadata.set(key('token_type'), i32s(types));
  const special: [name: string, id: number | null | undefined][] = [
    ['bos', tokenizer.bosTokenId],
    ...endTokenKeys.map((_, i): [string, number | undefined] => [
      ['eos', 'eot', 'eom'][i]!,
      tokenizer.eosTokenIds[i],
    ]),
    [
      'unknown',
      json.model.type === 'BPE' && json.model.unk_token ? idOf.get(json.model.unk_token) : undefined,
    ],
    ['padding', typeof config.pad_token === 'string' ? idOf.get(config.pad_token) : undefined],
  ];
  for (const [name, id] of special) if (id != null) metadata.set(key(`${name}_token_id`), u32(id));
  metadata.set(key('add_bos_token'), bool(adds));
  if (tokenizer.chatTemplate !== null)
    metadata.set('tokenizer.chat_template', string(tokenizer.chatTemplate));
  return metadata;
}

const cannot = (why: string) =>
  new RetortError(
    'bad-model',
    `llama.cpp has no tokenizer that gives the same tokens: ${why}; export the model as hf`,
  );

function checkAddedTokens({ added_tokens }: TokenizerJson): void {
  for (const { content, ...flags } of added_tokens)
    for (const flag of ['single_word', 'lstrip', 'rstrip'])
      if ((flags as Record<string, unknown>)[flag])
        throw cannot(`the token ${JSON.stringify(content)} has ${flag} set`);
}

/** Whether texts begin with the beginning-of-sequence token; anything else that is added cannot be said in GGUF. */
function endsOf(tokenizer: Tokenizer): { adds: boolean } {
  const added = tokenizer.encode('', { addSpecialTokens: true });
  if (added.length === 0) return { adds: false };
  if (added.length === 1 && added[0] === tokenizer.bosTokenId) return { adds: true };
  throw cannot(`texts get the tokens ${JSON.stringify(added)} added`);
}

function bpeOf({ model }: TokenizerJson) {
  if (model.type === 'BPE') return model;
  throw cannot(`its model is ${model.type}, not BPE`);
}

function mergesOf(json: TokenizerJson): Merge[] {
  return bpeOf(json).merges.map(
    (merge) => (typeof merge === 'string' ? merge.split(' ', 2) : merge) as [string, string],
  );
}

function preTokenizerOf(json: TokenizerJson): string {
  // Without merges every byte is a token, however the text is split.
  const name = mergesOf(json).length === 0 && json.normalizer === null ? 'gpt-2' : nameOfPreTokenizer(json);
  if (name !== undefined) return name;
  throw cannot(`its pre-tokenizer is none of ${preTokenizerNames.join(', ')}`);
}

function sentencePieceScores(
  json: TokenizerJson,
  tokens: readonly string[],
  types: readonly number[],
): number[] {
  const { byte_fallback } = bpeOf(json);
  const missing = byteCharacters.findIndex((_, byte) => !tokens.includes(byteToken(byte)));
  if (!byte_fallback || missing >= 0) throw cannot('it has no tokens for single bytes');
  const normal = new Set(tokens.filter((_, id) => types[id] === kinds.normal));
  const result = scoresFromMerges(mergesOf(json), normal);
  if ('obstacle' in result) throw cannot(result.obstacle);
  // Tokens that nothing is joined to have a score that is never asked for.
  return tokens.map((token) => result.scores.get(token) ?? 0);
}

/** Whether a space is put before the text; throws where spaces are dealt with as llama.cpp does not. */
function addsPrefix({ normalizer, pre_tokenizer }: TokenizerJson, warn: (message: string) => void): boolean {
  const inner = normalizer?.type === 'Sequence' ? (normalizer.normalizers ?? []) : [normalizer];
  const normal = (inner as TokenizerJson['normalizer'][]).filter((one) => one !== null);
  const replaces = (one: (typeof normal)[number]) =>
    one.type === 'Replace' && one.content === '▁' && JSON.stringify(one.pattern) === '{"String":" "}';
  const prepends = (one: (typeof normal)[number]) => one.type === 'Prepend' && one.prepend === '▁';
  if (pre_tokenizer === null && normal.length === 2 && prepends(normal[0]!) && replaces(normal[1]!))
    return true;
  if (pre_tokenizer === null && normal.length === 1 && replaces(normal[0]!)) return false;
  const isMetaspace = pre_tokenizer?.type === 'Metaspace' && pre_tokenizer.replacement === '▁';
  if (!isMetaspace || pre_tokenizer.split !== false || normal.length > 0)
    throw cannot('spaces are not replaced as SentencePiece does it');
  const scheme = pre_tokenizer.prepend_scheme ?? 'always';
  if (scheme === 'never') return false;
  const when =
    scheme === 'first'
      ? 'that begin with a space, and those after special tokens,'
      : 'that begin with a space';
  warn(
    `llama.cpp puts a space before texts ${when} where this tokenizer does not: they become other tokens there`,
  );
  return true;
}
