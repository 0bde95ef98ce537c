// Answer extraction and the number that an answer ends in.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { extractAnswer } from './answer.js';
import { lastBox, lastNumber } from './number.js';

test('the last closed answer is the answer', () => {
  for (const [completion, expected] of [
    ['<answer>1</answer>', '1'],
    ['<answer> 1\n</answer> and on', '1'],
    ['<answer>1</answer><answer>2</answer>', '2'],
    ['<answer>1</answer><answer>2', '1'],
    ['<answer>1</answer></answer>', '1'],
    ['<answer>1<answer>2</answer>', '2'],
    ['</answer><answer>', null],
    ['<answer>', null],
    ['</answer>', null],
    ['', null],
    ['<answer></answer>', ''],
  ] as const) {
    assert.equal(extractAnswer(completion), expected, completion);
  }
});

test('any mix of tags and text gives what a plain regular expression finds last', () => {
  const pieces = fc.array(fc.constantFrom('<answer>', '</answer>', 'a', 'b', '<', '>', ' '), {
    maxLength: 14,
  });
  fc.assert(
    fc.property(pieces, (parts) => {
      const text = parts.join('');
      const all = [...text.matchAll(/<answer>((?:(?!<\/?answer>).)*)<\/answer>/g)];
      assert.equal(extractAnswer(text), all.length ? all[all.length - 1][1].trim() : null, text);
    }),
    { numRuns: 5000, seed: 3 },
  );
});

test('the last number, in canonical form', () => {
  for (const [text, expected] of [
    ['18', '18'],
    ['18.', '18'],
    ['18.00', '18'],
    ['007', '7'],
    ['0.50', '0.5'],
    ['.5', '0.5'],
    ['-.5', '-0.5'],
    ['-0', '0'],
    ['1,234,567', '1234567'],
    ['$1,234.50 a month', '1234.5'],
    ['-$5', '-5'],
    ['= -3', '-3'],
    ['- 3', '-3'],
    ['10-3', '3'],
    ['(4)-3', '3'],
    ['1, 2, 3', '3'],
    ['1,2,3', '3'],
    ['75%', '75'],
    ['\\boxed{42} metres, 7 times', '42'],
    ['\\boxed{1} then \\boxed{\\frac{x}{2}}', '2'],
    ['12{,}000', '12000'],
    ['1/2', '2'],
    ['none', null],
    ['', null],
    ['0', '0'],
    ['100', '100'],
    ['1234567', '1234567'],
  ] as const) {
    assert.equal(lastNumber(text), expected, text);
  }
});

test('boxes may be nested, unbalanced ones are none', () => {
  assert.equal(lastBox('\\boxed{a{b}c}'), 'a{b}c');
  assert.equal(lastBox('\\boxed{a{b}c'), null);
  assert.equal(lastBox('boxed'), null);
});

test('every whole number is read back, however it is dressed', () => {
  fc.assert(
    fc.property(
      fc.integer(),
      fc.constantFrom('', '$', 'about '),
      fc.constantFrom('', '.', ' eggs', '%'),
      (n, a, b) => {
        assert.equal(lastNumber(`${n < 0 ? '-' : ''}${a === '$' ? a : ''}${Math.abs(n)}${b}`), String(n));
        assert.equal(lastNumber(`${n.toLocaleString('en-US')}${b}`), String(n));
      },
    ),
    { numRuns: 1000, seed: 4 },
  );
});

test('a megabyte of digits or brackets does no harm', () => {
  assert.equal(lastNumber('9'.repeat(1_000_000))?.length, 1_000_000);
  assert.equal(lastNumber('1,'.repeat(500_000)), '1');
  assert.equal(lastBox('\\boxed{'.repeat(100_000)), null);
  assert.equal(extractAnswer('<answer>'.repeat(100_000)), null);
});
