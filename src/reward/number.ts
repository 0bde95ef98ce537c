// Reads the number that an answer ends in: thousands separators, units, currency signs and \boxed{} are seen through.
import type { Score } from '../task/task.js';
import { answerScore, extractAnswer } from './answer.js';

// A sign belongs to a number only where it does not follow a number, a letter or a bracket (`10-3` ends in 3).
const NUMBER = /((?<![\w).\]}])-\s?[$€£]?)?(\d{1,3}(?:,\d{3})+(?!\d)|\d+)(\.\d+)?|((?<![\w).\]}])-)?(\.\d+)/g;

/**
 * The last number of a text in canonical form (`-1234.5`: no separators, no superfluous zeros), or null where there
 * is none. Where the text holds `\boxed{...}`, only the last box is read. A fraction is two numbers: the last counts.
 */
export function lastNumber(text: string): string | null {
  const plain = (lastBox(text) ?? text).replaceAll('{,}', ',').replaceAll('\\,', '').replaceAll('\\!', '');
  let last: RegExpMatchArray | null = null;
  for (const match of plain.matchAll(NUMBER)) last = match;
  if (last === null) return null;
  const [, sign, whole, fraction, bareSign, bareFraction] = last;
  const units = (whole ?? '').replaceAll(',', '').replace(/^0+/, '') || '0';
  const decimals = (fraction ?? bareFraction ?? '').replace(/\.?0*$/, '');
  const size = units + decimals;
  return (sign ?? bareSign) && size !== '0' ? `-${size}` : size;
}

/** What stands inside the last `\boxed{...}` whose braces are balanced, or null. */
export function lastBox(text: string): string | null {
  const start = text.lastIndexOf('\\boxed{');
  if (start < 0) return null;
  const from = start + '\\boxed{'.length;
  let depth = 1;
  for (let i = from; i < text.length; i++) {
    if (text[i] === '{') depth++;
    else if (text[i] === '}' && --depth === 0) return text.slice(from, i);
  }
  return null;
}

/** Scores a completion whose answer, in its tags, must end in the gold number. */
export function numberScore(completion: string, gold: string): Score {
  const answer = extractAnswer(completion);
  return answerScore(answer !== null, answer !== null && lastNumber(answer) === lastNumber(gold));
}

/** The number that the answer of a completion ends in, for voting. */
export function numberKey(completion: string): string | null {
  const answer = extractAnswer(completion);
  return answer === null ? null : lastNumber(answer);
}
