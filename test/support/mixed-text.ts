// Texts that tokenizers trip over: emoji, CJK, combining marks, spaces of all kinds, control characters, numbers.
import fc from 'fast-check';

const pieces = [
  ...[
    'hello',
    ' the',
    'ing',
    "'s",
    "'S",
    "'LL",
    "don't",
    'a',
    'A',
    'Z',
    '_',
    'aaa',
    'aaaaa',
    'x y',
    'été',
    'ß',
    'İ',
  ],
  ...[
    '3',
    '1234567',
    '3.14',
    '½',
    '²',
    'Ⅷ',
    '٣',
    '.',
    '!',
    ',',
    '"',
    "'",
    '’',
    '—',
    '…',
    '$',
    '%',
    '(',
    '{}',
    '==',
    '/*',
  ],
  ...[
    '\n',
    '\n\n',
    '\r\n',
    ' ',
    '  ',
    '   ',
    '      ',
    '\t',
    '\u00a0',
    '\u3000',
    '\u0085',
    '\u2028',
    '\u200b',
    '\ufeff',
  ],
  ...['\u0000', '\u0007', '\u001b', '▁', 'Ġ', 'e\u0301', 'ﬁ'],
  ...[
    '🙂',
    '👩‍👩‍👧',
    '🚀🚀',
    '世界',
    '你好',
    'こんにちは',
    '안녕',
    'नमस्ते',
    'مرحبا',
    'Привет',
    '<',
    '|>',
    '<think>',
    '</think>',
  ],
];

/**
 * Texts of pieces and of any characters that Unicode had assigned by version 15: programs differ in how they class those
 * that came later.
 */
export function mixedTexts(count: number, seed: number): string[] {
  const any = fc
    .string({ unit: 'binary', maxLength: 3 })
    .filter((text) => !/\p{Cn}|\p{Co}|\p{Cs}/u.test(text));
  const part = fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...pieces) },
    {
      weight: 1,
      arbitrary: fc.string({ unit: 'grapheme', maxLength: 3 }).filter((text) => !/\p{Cn}/u.test(text)),
    },
    { weight: 1, arbitrary: any },
  );
  const text = fc.array(part, { minLength: 1, maxLength: 24 }).map((parts) => parts.join(''));
  return fc.sample(text, { numRuns: count, seed });
}
