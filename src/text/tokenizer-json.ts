// Checks of tokenizer.json and tokenizer_config.json, made before the tokenizer library sees them: the library
// trusts its input, and on some files would loop, print warnings, or hand out undefined ids.
import { z } from 'zod';
import { parseJson } from '../checkpoint/files.js';
import { RetortError } from '../errors.js';

// Larger than any published vocabulary; keeps a stray id from making a sparse array of billions.
const MAX_ID = 2 ** 22;

const tokenId = z.number().int().min(0).max(MAX_ID);
const pattern = z.union([z.looseObject({ String: z.string() }), z.looseObject({ Regex: z.string() })]);

/** The model of a byte-pair tokenizer.json, but for its vocabulary and merges. */
export const plainBpe = {
  type: 'BPE',
  dropout: null,
  unk_token: null,
  continuing_subword_prefix: null,
  end_of_word_suffix: null,
  fuse_unk: false,
  byte_fallback: false,
};

interface Component {
  type: string;
  [field: string]: unknown;
}

// A normalizer, pre-tokenizer, post-processor or decoder. The library refuses unknown types by itself; here are
// the fields that it takes on trust.
const component: z.ZodType<Component> = z.lazy(() =>
  z
    .looseObject({
      type: z
        .string()
        .refine((type) => type !== 'CTC', 'the decoder CTC is for speech, not for language models'),
      pattern: pattern.optional(),
      // A piece length of 0 would loop for ever.
      length: z.number().int().min(1).max(MAX_ID).optional(),
      start: z.number().int().min(0).max(MAX_ID).optional(),
      stop: z.number().int().min(0).max(MAX_ID).optional(),
      normalizers: z.array(component).optional(),
      pretokenizers: z.array(component).optional(),
      processors: z.array(component).optional(),
      decoders: z.array(component).optional(),
    })
    .refine(
      ({ type, pattern }) => pattern !== undefined || (type !== 'Replace' && type !== 'Split'),
      'it needs a pattern',
    ),
);

const bpe = z.looseObject({
  type: z.literal('BPE'),
  vocab: z.record(z.string(), tokenId),
  merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
  unk_token: z.string().nullish(),
  byte_fallback: z.boolean().nullish(),
});
const wordPiece = z.looseObject({
  type: z.literal('WordPiece'),
  vocab: z.record(z.string(), tokenId),
  unk_token: z.string(),
});
const unigram = z.looseObject({
  type: z.literal('Unigram'),
  vocab: z.array(z.tuple([z.string(), z.number()])),
  unk_id: tokenId.nullish(),
});

const addedToken = z.looseObject({
  id: tokenId,
  content: z.string().min(1),
  special: z.boolean().optional(),
  normalized: z.boolean().optional(),
});

const tokenizerJson = z.looseObject({
  added_tokens: z.array(addedToken).default([]),
  normalizer: component.nullable().default(null),
  pre_tokenizer: component.nullable().default(null),
  post_processor: component.nullable().default(null),
  decoder: component.nullable().default(null),
  model: z.discriminatedUnion('type', [bpe, wordPiece, unigram]),
});

const tokenText = z.union([z.string(), z.looseObject({ content: z.string() })]).nullish();

const tokenizerConfig = z.looseObject({
  bos_token: tokenText,
  eos_token: tokenText,
  add_bos_token: z.boolean().nullish(),
  additional_special_tokens: z.array(z.union([z.string(), z.looseObject({ content: z.string() })])).nullish(),
  chat_template: z
    .union([z.string(), z.array(z.looseObject({ name: z.string(), template: z.string() }))])
    .nullish(),
});

export type TokenizerJson = z.infer<typeof tokenizerJson>;
export type TokenizerConfig = z.infer<typeof tokenizerConfig>;

/** A tokenizer.json that passed, and what its vocabulary comes to. */
export interface CheckedTokenizer {
  readonly json: TokenizerJson;
  /** One more than the greatest id. */
  readonly vocabSize: number;
  readonly idOf: ReadonlyMap<string, number>;
  readonly tokenOf: ReadonlyMap<number, string>;
}

/** @throws RetortError `bad-model` naming `path` and the field. */
export function checkTokenizerJson(text: string, path: string): CheckedTokenizer {
  const json = parseJson(text, path, tokenizerJson, 'bad-model');
  const idOf = new Map<string, number>();
  const tokenOf = new Map<number, string>();
  const add = (token: string, id: number) => {
    const other = tokenOf.get(id);
    if (other !== undefined && other !== token)
      throw broken(path, `token id ${id} stands for both ${show(other)} and ${show(token)}`);
    const otherId = idOf.get(token);
    if (otherId !== undefined && otherId !== id)
      throw broken(path, `token ${show(token)} has two ids, ${otherId} and ${id}`);
    idOf.set(token, id);
    tokenOf.set(id, token);
  };
  const { model } = json;
  if (model.type === 'Unigram') model.vocab.forEach(([token], id) => void add(token, id));
  else for (const [token, id] of Object.entries(model.vocab)) add(token, id);
  if (model.type === 'BPE') checkMerges(model.merges, idOf, path);
  for (const token of json.added_tokens) add(token.content, token.id);
  if (idOf.size === 0) throw broken(path, 'the vocabulary is empty');
  checkUnknown(model, idOf, path);
  let vocabSize = 0;
  for (const id of tokenOf.keys()) vocabSize = Math.max(vocabSize, id + 1);
  return { json, vocabSize, idOf, tokenOf };
}

/** @throws RetortError `bad-model` naming `path` and the field. */
export function checkTokenizerConfig(text: string, path: string): TokenizerConfig {
  return parseJson(text, path, tokenizerConfig, 'bad-model');
}

function checkMerges(
  merges: ReadonlyArray<string | [string, string]>,
  idOf: ReadonlyMap<string, number>,
  path: string,
): void {
  merges.forEach((merge, index) => {
    const parts = typeof merge === 'string' ? merge.split(' ') : merge;
    if (parts.length !== 2)
      throw broken(path, `merge ${index} is ${show(String(merge))}, not a pair of tokens`);
    for (const token of [...parts, parts.join('')])
      if (!idOf.has(token))
        throw broken(path, `merge ${index} needs the token ${show(token)}, which the vocabulary lacks`);
  });
}

function checkUnknown(model: TokenizerJson['model'], idOf: ReadonlyMap<string, number>, path: string): void {
  if (model.type === 'Unigram') {
    if (typeof model.unk_id === 'number' && model.unk_id >= model.vocab.length)
      throw broken(
        path,
        `unk_id is ${model.unk_id}, past the ${model.vocab.length} tokens of the vocabulary`,
      );
  } else if (typeof model.unk_token === 'string' && !idOf.has(model.unk_token))
    throw broken(path, `unk_token is ${show(model.unk_token)}, which the vocabulary lacks`);
}

/** Whether a component, or one inside it, has the type. */
export function hasComponent(part: Component | null, type: string): boolean {
  if (part === null) return false;
  if (part.type === type) return true;
  for (const inner of [part.normalizers, part.pretokenizers, part.processors, part.decoders])
    if (Array.isArray(inner) && inner.some((one) => hasComponent(one, type))) return true;
  return false;
}

function broken(path: string, what: string): RetortError {
  return new RetortError('bad-model', `${path}: ${what}; copy the file again from its source`);
}

function show(token: string): string {
  return JSON.stringify(token.length > 60 ? `${token.slice(0, 57)}...` : token);
}
