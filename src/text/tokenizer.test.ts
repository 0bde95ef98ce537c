// Tokenizers: stories260K, streams against decode, broken and mutated files.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { noStories, stories } from '../../test/support/shared.js';
import { sentencePieceLike } from '../../test/support/tokenizers.js';
import { RetortError } from '../errors.js';
import { byteCharacters } from './byte-level.js';
import { buildCharTokenizer } from './char-tokenizer.js';
import { createTokenizer, loadTokenizer, type Tokenizer } from './tokenizer.js';

const sentencePiece = sentencePieceLike();
const scratch = mkdtempSync(join(tmpdir(), 'retort-tokenizer-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

/** A GPT-2-like tokenizer with all bytes, a few merges (one inside a UTF-8 character) and special tokens. */
function byteLevelTokenizer(): Tokenizer {
  const vocab: Record<string, number> = {};
  for (const character of byteCharacters) vocab[character] = Object.keys(vocab).length;
  const pair = (a: number, b: number): [string, string] => [byteCharacters[a]!, byteCharacters[b]!];
  const merges = [pair(0x68, 0x65), pair(0xf0, 0x9f), pair(0xa9, 0x20), pair(0x98, 0x80), pair(0x20, 0x74)];
  for (const merge of merges) vocab[merge.join('')] = Object.keys(vocab).length;
  const size = Object.keys(vocab).length;
  const json = {
    version: '1.0',
    added_tokens: [
      { id: size, content: '<|end|>', special: true, normalized: false },
      { id: size + 1, content: '<think>', special: false, normalized: false },
    ],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab, merges, unk_token: null },
  };
  return createTokenizer(
    {
      'tokenizer.json': JSON.stringify(json),
      'tokenizer_config.json': '{"eos_token":{"content":"<|end|>"}}',
    },
    { source: 'test' },
  );
}

const refused = (message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof RetortError, String(error));
  assert.match(error.message, message);
  return true;
};

test('stories260K: ids, special tokens, decoding', { skip: noStories }, () => {
  const tokenizer = loadTokenizer(stories as string);
  assert.equal(tokenizer.vocabSize, 512);
  assert.equal(tokenizer.bosTokenId, 1);
  assert.deepEqual(tokenizer.eosTokenIds, [2]);
  assert.equal(tokenizer.chatTemplate, null);
  assert.deepEqual(tokenizer.encode('', { addSpecialTokens: true }), [1]);
  const ids = tokenizer.encode('Once upon a time', { addSpecialTokens: true });
  assert.equal(ids[0], 1);
  assert.deepEqual(tokenizer.encode('Once upon a time'), ids.slice(1));
  assert.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), 'Once upon a time');
  assert.equal(tokenizer.decode([]), '');
  assert.deepEqual(tokenizer.encode('</s>'), [2]);
  const text = 'Lily said: "héllo 世界 🙂", and left .';
  assert.equal(tokenizer.decode(tokenizer.encode(text)), text);
  assert.deepEqual(Object.keys(tokenizer.files), ['tokenizer.json', 'tokenizer_config.json']);
});

test('byte-level: special tokens are one id, skipping leaves only the text', () => {
  const tokenizer = byteLevelTokenizer();
  const size = tokenizer.vocabSize;
  assert.deepEqual(tokenizer.encode('<think>he<|end|>'), [size - 1, 256, size - 2]);
  assert.deepEqual(tokenizer.eosTokenIds, [size - 2]);
  assert.equal(tokenizer.bosTokenId, null);
  assert.equal(tokenizer.decode([size - 1, 256, size - 2]), '<think>he<|end|>');
  assert.equal(tokenizer.decode([size - 1, 256, size - 2], { skipSpecialTokens: true }), '<think>he');
});

test('ids that are no ids are refused, ids without a token give U+FFFD', () => {
  const tokenizer = byteLevelTokenizer();
  for (const id of [-1, 1.5, Number.NaN])
    assert.throws(() => tokenizer.decode([id]), refused(/token id: got/));
  assert.equal(tokenizer.decode([tokenizer.vocabSize]), '\uFFFD');
});

test('streams give what decode gives, for any ids and for texts with emoji and CJK', () => {
  const characters = '0123456789abé世🙂 ';
  const tokenizers = [
    createTokenizer(sentencePiece, { source: 'test' }),
    byteLevelTokenizer(),
    buildCharTokenizer({ characters }),
    ...(stories ? [loadTokenizer(stories)] : []),
  ];
  const stream = (tokenizer: Tokenizer, ids: readonly number[], skipSpecialTokens: boolean) => {
    const whole = tokenizer.decode(ids, { skipSpecialTokens });
    const decoder = tokenizer.stream({ skipSpecialTokens });
    const parts = [...ids.map((id) => decoder.push(id)), decoder.end()];
    assert.equal(parts.join(''), whole);
    // Every part ends at a character: none of the parts may tear a surrogate pair or end in a made-up U+FFFD.
    for (const part of parts) assert.equal(Buffer.from(part).toString(), part);
    assert.equal(decoder.end(), '');
  };
  for (const tokenizer of tokenizers) {
    const id = fc.integer({ min: 0, max: tokenizer.vocabSize - 1 });
    fc.assert(
      fc.property(fc.array(id, { maxLength: 40 }), fc.boolean(), (ids, skip) => stream(tokenizer, ids, skip)),
      { numRuns: 2000, seed: 1 },
    );
    const piece = fc.constantFrom(...Array.from(characters), 'é世', ' 🙂🙂', '世界'.slice(0, 1));
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
        const text = pieces.join('');
        const ids = tokenizer.encode(text);
        assert.equal(tokenizer.decode(ids), text);
        stream(tokenizer, ids, true);
      }),
      { numRuns: 500, seed: 2 },
    );
  }
});

test('an emoji appears whole with its last byte', () => {
  const tokenizer = buildCharTokenizer({ characters: '🙂a' });
  const stream = tokenizer.stream();
  assert.deepEqual(
    tokenizer.encode('🙂a').map((id) => stream.push(id)),
    ['', '', '', '🙂', 'a'],
  );
  const half = tokenizer.encode('🙂').slice(0, 2);
  for (const id of half) assert.equal(stream.push(id), '');
  assert.equal(stream.end(), '\uFFFD');
});

test('broken files are refused by name', () => {
  const good = JSON.parse(sentencePiece['tokenizer.json']!);
  const withModel = (change: object) => ({ ...good, model: { ...good.model, ...change } });
  const cases: Array<[string, RegExp]> = [
    ['', /tokenizer\.json is not JSON: the file is empty/],
    ['{"model":', /tokenizer\.json is not JSON/],
    ['[]', /tokenizer\.json: field the top level/],
    ['{}', /tokenizer\.json: field model/],
    [JSON.stringify(withModel({ type: 'WordLevel' })), /field model\.type/],
    [JSON.stringify(withModel({ vocab: { a: -1 } })), /field model\.vocab\.a/],
    [JSON.stringify(withModel({ vocab: { a: 1e9 } })), /field model\.vocab\.a/],
    [JSON.stringify(withModel({ merges: ['a'] })), /merge 0 is "a", not a pair/],
    [JSON.stringify(withModel({ merges: ['zz yy'] })), /merge 0 needs the token "zz"/],
    [JSON.stringify(withModel({ unk_token: '<nope>' })), /unk_token is "<nope>"/],
    [JSON.stringify({ ...good, added_tokens: [{ id: 3, content: '</s>' }] }), /token id 3 stands for both/],
    [JSON.stringify({ ...good, pre_tokenizer: { type: 'FixedLength', length: 0 } }), /pre_tokenizer\.length/],
    [JSON.stringify({ ...good, decoder: { type: 'CTC' } }), /speech/],
    [JSON.stringify({ ...good, decoder: { type: 'Nonsense' } }), /Nonsense/],
  ];
  for (const [text, message] of cases)
    assert.throws(() => createTokenizer({ 'tokenizer.json': text }, { source: 'folder' }), refused(message));
  assert.throws(
    () => loadTokenizer(join(scratch, 'nothing')),
    refused(/tokenizer\.json: there is no such file/),
  );
  assert.throws(
    () =>
      createTokenizer(
        { 'tokenizer.json': JSON.stringify(good), 'tokenizer_config.json': '{' },
        { source: 'x' },
      ),
    refused(/tokenizer_config\.json is not JSON/),
  );
});

test('ends of sequence come from every file that names one', () => {
  const dir = join(scratch, 'ends');
  mkdirSync(dir);
  for (const [name, text] of Object.entries(sentencePiece)) writeFileSync(join(dir, name), text);
  writeFileSync(join(dir, 'generation_config.json'), '{"eos_token_id":[7,2],"bos_token_id":1}');
  assert.deepEqual(loadTokenizer(dir).eosTokenIds, [7, 2]);
  writeFileSync(join(dir, 'generation_config.json'), '{"eos_token_id":"x"}');
  assert.throws(() => loadTokenizer(dir), refused(/generation_config\.json: field eos_token_id/));
});

// A small generator with a fixed seed (mulberry32).
function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * below);
  };
}

/** Replaces, deletes, swaps or copies one value somewhere inside a JSON tree. */
function mutateTree(root: unknown, next: (below: number) => number): unknown {
  const values = [
    null,
    true,
    0,
    -1,
    1.5,
    1e300,
    3,
    '',
    'x',
    '▁',
    [],
    {},
    [[]],
    'ByteLevel',
    '(a+',
    { type: 'Sequence' },
  ];
  const tree = structuredClone(root) as Record<string, unknown>;
  let node: Record<string, unknown> = { root: tree };
  let key = 'root';
  while (true) {
    const child = node[key];
    if (child === null || typeof child !== 'object') break;
    const keys = Object.keys(child);
    if (keys.length === 0 || (key !== 'root' && next(4) === 0)) break;
    node = child as Record<string, unknown>;
    key = keys[next(keys.length)]!;
  }
  if (next(3) === 0) delete node[key];
  else node[key] = values[next(values.length)];
  return tree;
}

/** Changes bytes of a text: flips, cuts, repeats. */
function mutateText(text: string, next: (below: number) => number): string {
  const at = next(text.length);
  const kind = next(4);
  if (kind === 0) return text.slice(0, at);
  if (kind === 1) return text.slice(0, at) + String.fromCharCode(next(128)) + text.slice(at + 1);
  if (kind === 2) return text.slice(0, at) + text.slice(at + 1 + next(20));
  return text.slice(0, at) + text.slice(at, at + next(40)) + text.slice(at);
}

test('10,000 mutated tokenizer files: a RetortError or a tokenizer that works, nothing else', () => {
  const small = JSON.parse(sentencePiece['tokenizer.json']!);
  const chars = buildCharTokenizer({ characters: 'abc 123' }).files['tokenizer.json']!;
  // Most of it is vocabulary; a short one lets the mutations reach the rest.
  const kept = Object.entries(small.model.vocab).filter(([token]) => /^(<[us/]|<0x[0-7]|.$)/u.test(token));
  small.model.vocab = Object.fromEntries(kept);
  small.model.merges = [];
  const split = JSON.parse(chars);
  split.pre_tokenizer = {
    type: 'Sequence',
    pretokenizers: [
      {
        type: 'Split',
        pattern: { Regex: "'s|[^\\r\\n\\p{L}]?\\p{L}+|\\s+(?!\\S)|\\s+" },
        behavior: 'Isolated',
        invert: false,
      },
      { type: 'ByteLevel', add_prefix_space: false, use_regex: false },
    ],
  };
  const seeds = [small, JSON.parse(chars), split];
  const configText = sentencePiece['tokenizer_config.json']!;
  const next = random(20260101);
  let worked = 0;
  let failed = 0;
  const warn = console.warn;
  console.warn = (...words) => assert.fail(`the library printed ${words.join(' ')}`);
  try {
    for (let i = 0; i < 10_000; i++) {
      const seed = seeds[i % seeds.length];
      const text = JSON.stringify(seed);
      const mutated = i % 2 ? JSON.stringify(mutateTree(seed, next)) : mutateText(text, next);
      const config = i % 5 ? configText : mutateText(configText, next);
      try {
        const tokenizer = createTokenizer(
          { 'tokenizer.json': mutated, 'tokenizer_config.json': config },
          { source: 'mutated' },
        );
        const ids = tokenizer.encode('ab 12 <think>c', { addSpecialTokens: i % 3 === 0 });
        assert.equal(
          ids.every((id) => Number.isInteger(id) && id >= 0 && id < tokenizer.vocabSize),
          true,
        );
        assert.equal(typeof tokenizer.decode(ids, { skipSpecialTokens: true }), 'string');
        worked++;
      } catch (error) {
        assert.ok(error instanceof RetortError, `mutation ${i}: ${String((error as Error).stack)}`);
        failed++;
      }
    }
  } finally {
    console.warn = warn;
  }
  // Both ends must be met, else the mutations test nothing.
  assert.ok(worked > 1000 && failed > 1000, `${worked} worked, ${failed} failed`);
});
