// How much a text repeats itself: the share of its n-grams that stood in it before.

const WORDLESS = '[\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Thai}]';
/** Words, numbers and single signs; a character where a script has no spaces between words. */
const PIECES = new RegExp(`${WORDLESS}|(?:(?!${WORDLESS})\\p{L})+|\\p{N}+|[^\\s\\p{L}\\p{N}]`, 'gu');

/**
 * The share of n-grams of words, numbers and signs that occurred earlier in the text, from 0 to below 1; 0 for a text
 * of fewer than n pieces.
 * @example repetition('so it is 4, so it is 4, so it is 4', 4) // 7 of 11
 */
export function repetition(text: string, n: number): number {
  const pieces = text.match(PIECES) ?? [];
  const total = pieces.length - n + 1;
  if (total <= 0) return 0;
  const seen = new Set<string>();
  for (let i = 0; i < total; i++) seen.add(pieces.slice(i, i + n).join(' '));
  return (total - seen.size) / total;
}
