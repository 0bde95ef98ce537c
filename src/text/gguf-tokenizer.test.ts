// Tokenizers to GGUF metadata and back: the same tokens, and a reason where llama.cpp could not give them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { trainBpe } from '../../test/support/bpe.js';
import { mixedTexts } from '../../test/support/mixed-text.js';
import { sentencePieceLike } from '../../test/support/tokenizers.js';
import { gguf } from '../checkpoint/gguf.js';
import type { GgufValue } from '../checkpoint/gguf-format.js';
import { RetortError } from '../errors.js';
import { buildCharTokenizer } from './char-tokenizer.js';
import { tokenizerFiles, tokenizerMetadata } from './gguf-tokenizer.js';
import { preTokenizerNamed } from './pre-tokenizers.js';
import { mergesFromScores, scoresFromMerges } from './sentencepiece.js';
import { createTokenizer, type Tokenizer } from './tokenizer.js';

const refused = (message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof RetortError, String((error as Error).stack));
  assert.match(error.message, message);
  return true;
};

const again = (tokenizer: Tokenizer, vocabSize = tokenizer.vocabSize + 3): Tokenizer => {
  const { files, eos } = tokenizerFiles(tokenizerMetadata(tokenizer, vocabSize), 'x.gguf');
  return createTokenizer(files, { source: 'x.gguf', eos });
};

/** A tokenizer of changed files. */
function changed(
  // biome-ignore lint/suspicious/noExplicitAny: parts of JSON are changed at will
  change: (json: Record<string, any>, config: Record<string, any>) => void,
  files = sentencePieceLike(),
): Tokenizer {
  const json = JSON.parse(files['tokenizer.json']!);
  const config = JSON.parse(files['tokenizer_config.json']!);
  change(json, config);
  return createTokenizer(
    { 'tokenizer.json': JSON.stringify(json), 'tokenizer_config.json': JSON.stringify(config) },
    { source: 'test' },
  );
}

const specials = ['<|begin|>', '<|end|>', '<think>', '</think>'];
const kinds: Record<string, () => Tokenizer> = {
  sentencepiece: () => createTokenizer(sentencePieceLike(), { source: 'test' }),
  'sentencepiece without a space before': () =>
    changed((json, config) => {
      json.normalizer = json.normalizer.normalizers[1];
      json.decoder.decoders.pop();
      json.post_processor = null;
      config.add_bos_token = false;
    }),
  'llama-bpe': () => trainBpe('llama-bpe', 200, specials),
  'smaug-bpe': () => trainBpe('smaug-bpe', 200, specials),
  qwen2: () => trainBpe('qwen2', 200, specials),
  'deepseek-r1-qwen': () => trainBpe('deepseek-r1-qwen', 200, specials),
  smollm: () => trainBpe('smollm', 200, specials),
  'gpt-2': () => trainBpe('gpt-2', 200, specials),
};

for (const [name, make] of Object.entries(kinds))
  test(`${name}: the same tokens, ends and template`, () => {
    const tokenizer = make();
    const back = again(tokenizer);
    assert.equal(back.vocabSize, tokenizer.vocabSize);
    assert.equal(back.bosTokenId, tokenizer.bosTokenId);
    assert.deepEqual(back.eosTokenIds, tokenizer.eosTokenIds);
    assert.equal(back.chatTemplate, tokenizer.chatTemplate);
    for (const text of ['', ...mixedTexts(300, 4)]) {
      const ids = tokenizer.encode(text, { addSpecialTokens: true });
      assert.deepEqual(back.encode(text, { addSpecialTokens: true }), ids, JSON.stringify(text));
      for (const skipSpecialTokens of [true, false])
        assert.equal(back.decode(ids, { skipSpecialTokens }), tokenizer.decode(ids, { skipSpecialTokens }));
    }
    const pre = tokenizerMetadata(tokenizer, tokenizer.vocabSize).get('tokenizer.ggml.pre');
    assert.equal(pre!.value, preTokenizerNamed(name) ? name : 'default');
  });

test('characters: a vocabulary with holes is filled up, and gives what it gave', () => {
  const tokenizer = buildCharTokenizer({ characters: '0123456789+-é世' });
  const back = again(tokenizer, tokenizer.vocabSize + 40);
  assert.equal(back.vocabSize, tokenizer.vocabSize);
  for (const text of ['12+3', '<think>é</think>世', '<|endoftext|>'])
    assert.deepEqual(back.encode(text), tokenizer.encode(text));
});

test('several ends: three are named, the first stays the first', () => {
  const tokenizer = createTokenizer(sentencePieceLike(), { source: 'test', eos: [9, 8] });
  assert.deepEqual(tokenizer.eosTokenIds, [9, 8, 2]);
  assert.deepEqual(again(tokenizer).eosTokenIds, [9, 8, 2]);
});

test('metaspace: the same tokens but for texts that begin with a space, which is told', () => {
  for (const scheme of ['always', 'first', 'never']) {
    const tokenizer = changed((json) => {
      json.normalizer = null;
      json.pre_tokenizer = { type: 'Metaspace', replacement: '▁', prepend_scheme: scheme, split: false };
    });
    const told: string[] = [];
    const metadata = tokenizerMetadata(tokenizer, tokenizer.vocabSize, (message) => told.push(message));
    assert.equal(metadata.get('tokenizer.ggml.add_space_prefix')!.value, scheme !== 'never');
    assert.match(
      told.join(),
      { always: /begin with a space where/, first: /after special tokens,/, never: /^$/ }[scheme]!,
    );
    const { files, eos } = tokenizerFiles(metadata, 'x.gguf');
    const back = createTokenizer(files, { source: 'x.gguf', eos });
    for (const text of mixedTexts(200, 4).filter((text) => !/^[ ▁]/.test(text)))
      assert.deepEqual(back.encode(text), tokenizer.encode(text), JSON.stringify(text));
  }
});

test('what llama.cpp would split otherwise is refused with the reason', () => {
  const bpe = trainBpe('qwen2', 50, specials).files as Record<string, string>;
  const cases: [Tokenizer, RegExp][] = [
    [
      changed((json) => json.added_tokens.push({ id: 400, content: '<x>', rstrip: true })),
      /the token "<x>" has rstrip set/,
    ],
    [changed((json) => json.model.merges.splice(2, 1)), /no merge of "▁" and "a", though "▁a" is a token/],
    [changed((json) => delete json.model.vocab['<0x41>']), /no tokens for single bytes/],
    [
      changed((json) => {
        json.pre_tokenizer = { type: 'Metaspace', replacement: '▁', split: true };
      }),
      /spaces are not replaced as SentencePiece/,
    ],
    [
      changed((json) => json.normalizer.normalizers.push({ type: 'Lowercase' })),
      /spaces are not replaced as SentencePiece/,
    ],
    [
      changed((json) => json.post_processor.single.push({ SpecialToken: { id: '</s>', type_id: 0 } })),
      /texts get the tokens \[1,2\] added/,
    ],
    [
      changed((json) => {
        json.normalizer = { type: 'Lowercase' };
      }, bpe),
      /its pre-tokenizer is none of llama-bpe, /,
    ],
    [
      changed((json) => {
        json.model.ignore_merges = true;
      }, bpe),
      /its pre-tokenizer is none of/,
    ],
  ];
  for (const [tokenizer, message] of cases) {
    assert.throws(() => tokenizerMetadata(tokenizer, tokenizer.vocabSize), refused(message));
    assert.throws(() => tokenizerMetadata(tokenizer, tokenizer.vocabSize), refused(/export the model as hf/));
  }
});

test('metadata that makes no tokenizer is refused by its key', () => {
  const good = tokenizerMetadata(kinds.sentencepiece!(), 310);
  const bpe = tokenizerMetadata(trainBpe('qwen2', 50, specials), 320);
  const of = (from: Map<string, GgufValue>, key: string, value: GgufValue | null) => () => {
    const metadata = new Map(from);
    if (value) metadata.set(`tokenizer.ggml.${key}`, value);
    else metadata.delete(`tokenizer.ggml.${key}`);
    tokenizerFiles(metadata, 'x.gguf');
  };
  assert.throws(of(good, 'tokens', null), refused(/the key tokenizer\.ggml\.tokens is missing/));
  assert.throws(of(good, 'tokens', gguf.strings(['a', 'a'])), refused(/has a token twice/));
  assert.throws(
    of(good, 'model', gguf.string('t5')),
    refused(/tokenizer\.ggml\.model: got "t5"; Retort reads gpt2/),
  );
  assert.throws(
    of(good, 'token_type', gguf.i32s([1])),
    refused(/length of tokenizer\.ggml\.token_type: got 1; there are 310/),
  );
  assert.throws(of(good, 'scores', null), refused(/length of tokenizer\.ggml\.scores: got undefined/));
  assert.throws(
    of(good, 'add_bos_token', gguf.u32(1)),
    refused(/add_bos_token: got 1; it must be true or false/),
  );
  assert.throws(
    of(bpe, 'pre', gguf.string('new')),
    refused(/tokenizer\.ggml\.pre: got "new"; Retort knows llama-bpe/),
  );
  assert.throws(
    of(bpe, 'merges', gguf.string('a b')),
    refused(/tokenizer\.ggml\.merges: .*an array of texts/),
  );
  assert.throws(of(bpe, 'add_bos_token', gguf.bool(true)), refused(/no token begins a sequence/));
});

test('scores and merges: tokens of the same score keep it', () => {
  const scores = new Map([
    ['a', 0],
    ['aa', -1],
    ['aaa', -2],
    ['aaaa', -2],
    ['b', 0],
    ['ab', -5],
  ]);
  const merges = mergesFromScores(scores);
  assert.deepEqual(
    merges.map((pair) => pair.join('+')),
    ['a+a', 'aaa+a', 'aa+aa', 'aa+a', 'a+aaa', 'a+aa', 'a+b'],
  );
  const result = scoresFromMerges(merges, new Set(scores.keys()));
  assert.ok('scores' in result);
  assert.deepEqual(
    [...result.scores],
    [
      ['aa', 0],
      ['aaaa', -1],
      ['aaa', -1],
      ['ab', -6],
    ],
  );
});
