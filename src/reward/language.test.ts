// Writing systems that a completion mixes, and what it repeats.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { languageShare } from './language.js';
import { repetition } from './repetition.js';

test('the share of letters in the scripts of the prompt', () => {
  const rows: readonly (readonly [prompt: string, completion: string, share: number])[] = [
    ['How much is 2+2?', '<think>two and two 是四</think><answer>4</answer>', 9 / 11],
    ['How much is 2+2?', '<think>二加二</think><answer>4</answer>', 0],
    ['How much is 2+2?', '2+2=4', 1],
    ['How much is 2+2?', '', 1],
    // A Greek letter alone is a symbol; a word is not.
    ['The area of a circle', 'it is π times r²', 1],
    ['The area of a circle', 'it is μέτρο', 4 / 9],
    // So are x and LaTeX in a Chinese text, and the tags of the format.
    ['二加二等于几', '<think>设 x 为 \\frac{1}{2}</think><answer>\\boxed{四}</answer>', 1],
    ['二加二等于几', '设答案 is four', 3 / 7],
    // Letters alone do count where the prompt is in their script.
    ['How much is x?', 'x 是', 1 / 2],
    // Japanese needs Han characters beside its kana; Chinese has no kana.
    ['いくつですか', '答えは四です', 1],
    ['二加二等于几', '答えは四です', 2 / 6],
    // Units and other words of two letters pass.
    ['Сколько будет 2+2?', 'будет четыре, that is so', 11 / 15],
    // A prompt without letters leaves the choice of one script.
    ['2+2=?', 'four', 1],
    ['2+2=?', '四', 1],
    ['2+2=?', 'four 四', 4 / 5],
    // Marks belong to their letters: e with an accent of its own is one letter.
    ['cafe?', 'cafe\u0301', 1],
    ['नमस्ते?', 'नमस्ते', 1],
  ];
  for (const [prompt, completion, share] of rows)
    assert.ok(
      Math.abs(languageShare(prompt, completion) - share) < 1e-12,
      `${prompt} | ${completion}: ${languageShare(prompt, completion)}`,
    );
});

test('any text has a share from 0 to 1, and 1 beside itself', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' }), (a, b) => {
      const share = languageShare(a, b);
      assert.ok(share >= 0 && share <= 1);
      assert.equal(languageShare(b, b), 1);
    }),
  );
});

test('the share of n-grams that stood there before', () => {
  assert.equal(repetition('so it is 4, so it is 4, so it is 4', 4), 6 / 11);
  assert.equal(repetition('a b c', 4), 0);
  assert.equal(repetition('a b a b', 2), 1 / 3);
  // A script without spaces: every character is a piece.
  assert.equal(repetition('四是四是', 2), 1 / 3);
  assert.equal(repetition('', 1), 0);
  const loop = 'wait, that is not right. '.repeat(50);
  assert.ok(repetition(loop, 16) > 0.95);
});
