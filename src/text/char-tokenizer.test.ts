// The character tokenizer: dense ids, one id a special token, the same tokenizer after saving and loading.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { RetortError } from '../errors.js';
import { buildCharTokenizer, tagTokens } from './char-tokenizer.js';
import { loadTokenizer } from './tokenizer.js';

test('ids are dense, special tokens are one id each', () => {
  const tokenizer = buildCharTokenizer({ characters: '3210+-*/=1' });
  assert.equal(tokenizer.vocabSize, 9 + 5);
  assert.deepEqual(tokenizer.encode('*+-/0123='.slice(0, 9)), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
  assert.deepEqual(tokenizer.encode([...tagTokens, '<|endoftext|>'].join('')), [9, 10, 11, 12, 13]);
  assert.deepEqual(tokenizer.eosTokenIds, [13]);
  assert.equal(tokenizer.bosTokenId, 13);
  assert.deepEqual(tokenizer.encode('1', { addSpecialTokens: true }), [5]);
  // Tags are text that scorers read; only the end of sequence is skipped.
  assert.equal(tokenizer.decode([9, 5, 10, 13], { skipSpecialTokens: true }), '<think>1</think>');
});

test('a character outside the alphabet is named with its position', () => {
  const tokenizer = buildCharTokenizer({ characters: 'ab<é' });
  const refused = (text: string, message: RegExp) =>
    assert.throws(
      () => tokenizer.encode(text),
      (error: unknown) => error instanceof RetortError && message.test(error.message),
    );
  refused('abXb', /no token for a character: got "X" \(U\+0058\) at position 2/);
  refused('a<think>b世', /"世" \(U\+4E16\) at position 9/);
  refused('a<think', /"t" \(U\+0074\) at position 2/);
  refused('a b', /" " \(U\+0020\) at position 1/);
  refused('a\u00c3', /U\+00C3/);
  assert.equal(tokenizer.decode(tokenizer.encode('aéb<think>')), 'aéb<think>');
});

test('saved and loaded it is the same', () => {
  const built = buildCharTokenizer({ characters: ' \n\tabé世~\u0000' });
  const dir = mkdtempSync(join(tmpdir(), 'retort-char-'));
  try {
    for (const [name, text] of Object.entries(built.files)) writeFileSync(join(dir, name), text);
    const loaded = loadTokenizer(dir);
    assert.deepEqual(loaded.files, built.files);
    assert.equal(loaded.vocabSize, built.vocabSize);
    assert.equal(loaded.bosTokenId, built.bosTokenId);
    assert.deepEqual(loaded.eosTokenIds, built.eosTokenIds);
    const text = 'a  é\n<think>世~\u0000</think>\t<|endoftext|>';
    assert.deepEqual(loaded.encode(text), built.encode(text));
    assert.equal(loaded.decode(loaded.encode(text)), text);
    assert.throws(() => loaded.encode('q'), /no token for a character/);
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test('no characters, or a special token twice, is refused', () => {
  assert.throws(() => buildCharTokenizer({ characters: '' }), /characters: got ""/);
  assert.throws(
    () => buildCharTokenizer({ characters: 'a', specialTokens: ['<x>', '<x>'] }),
    /specialTokens/,
  );
  assert.throws(() => buildCharTokenizer({ characters: 'a', specialTokens: [''] }), /specialTokens/);
});
