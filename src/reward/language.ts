// Whether a completion keeps to the writing systems of its prompt: the language consistency of DeepSeek-R1 (arXiv
// 2501.12948, section 2.3.2), which takes the share of words in the target language. Scripts are told apart without
// any model; two languages that share one (English and French) are not.
import { TAGS } from './answer.js';

const SCRIPTS = [
  ...[
    'Latin',
    'Greek',
    'Cyrillic',
    'Han',
    'Hiragana',
    'Katakana',
    'Hangul',
    'Arabic',
    'Hebrew',
    'Devanagari',
  ],
  ...['Bengali', 'Gurmukhi', 'Gujarati', 'Tamil', 'Telugu', 'Kannada', 'Malayalam', 'Sinhala', 'Thai', 'Lao'],
  ...['Tibetan', 'Myanmar', 'Khmer', 'Georgian', 'Armenian', 'Ethiopic', 'Mongolian'],
].map((name) => ({ name, test: new RegExp(`\\p{Script=${name}}`, 'u') }));

/** Japanese is written in three at once: whoever may write kana may write Han characters. */
const TOGETHER: Readonly<Record<string, readonly string[]>> = {
  Hiragana: ['Katakana', 'Han'],
  Katakana: ['Hiragana', 'Han'],
};

/** Scripts whose single letters are symbols in formulas. */
const SYMBOLIC = new Set(['Latin', 'Greek', 'Cyrillic']);
const LONGEST_SYMBOL = 2;

interface Stretch {
  readonly script: string;
  readonly letters: number;
}

const known = new Map<string, string | null>();

/** The script of a character; null where it is no letter, `other` for the scripts that are not told apart. */
function scriptOf(character: string): string | null {
  const code = character.charCodeAt(0);
  if (code < 128) return (code >= 65 && code <= 90) || (code >= 97 && code <= 122) ? 'Latin' : null;
  let script = known.get(character);
  if (script === undefined) {
    const letter = /\p{L}/u.test(character);
    script = letter ? (SCRIPTS.find(({ test }) => test.test(character))?.name ?? 'other') : null;
    known.set(character, script);
  }
  return script;
}

/** Letters in a row of one script. */
function stretches(text: string): Stretch[] {
  const found: { script: string; letters: number }[] = [];
  let last: string | null = null;
  for (const character of text) {
    // A mark belongs to the letter before it.
    if (character > '\u02ff' && /\p{M}/u.test(character)) continue;
    const script = scriptOf(character);
    if (script !== null && script === last) found[found.length - 1].letters++;
    else if (script !== null) found.push({ script, letters: 1 });
    last = script;
  }
  return found;
}

/** Without what is written in Latin letters in every language: the tags of the format, commands of LaTeX. */
function plain(text: string): string {
  let rest = text;
  for (const tag of TAGS) rest = rest.replaceAll(tag, ' ');
  return rest.replace(/\\[A-Za-z]+/g, ' ');
}

/**
 * The share of a completion's letters that are in the scripts of its prompt, 1 where it has no letters. A prompt
 * without letters leaves the choice of one script. One or two letters alone (x, π) are symbols where their script is
 * not the prompt's, and do not count.
 * @example languageShare('How much is 2+2?', '<think>two and two 是四</think>') // 9 of 11 letters
 */
export function languageShare(prompt: string, completion: string): number {
  const all = stretches(plain(completion));
  const allowed = new Set(stretches(plain(prompt)).map(({ script }) => script));
  if (allowed.size === 0) {
    const main = commonest(all);
    if (main !== null) allowed.add(main);
  }
  for (const script of [...allowed]) for (const other of TOGETHER[script] ?? []) allowed.add(other);
  let own = 0;
  let letters = 0;
  for (const { script, letters: count } of all) {
    const within = allowed.has(script);
    if (!within && count <= LONGEST_SYMBOL && SYMBOLIC.has(script)) continue;
    letters += count;
    if (within) own += count;
  }
  return letters === 0 ? 1 : own / letters;
}

function commonest(all: readonly Stretch[]): string | null {
  const counts = new Map<string, number>();
  for (const { script, letters } of all) counts.set(script, (counts.get(script) ?? 0) + letters);
  let best: string | null = null;
  for (const [script, count] of counts)
    if (best === null || count > (counts.get(best) as number)) best = script;
  // Japanese by its kana, though its Han characters may be more.
  const kana = ['Hiragana', 'Katakana'].find((script) => counts.has(script));
  return best === 'Han' && kana ? kana : best;
}
