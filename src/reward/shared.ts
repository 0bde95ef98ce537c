// Rewards that fit any task, by name: format, language and length.
import { RetortError, refuse } from '../errors.js';
import { TAGS } from './answer.js';
import { languageShare } from './language.js';
import type { Reward } from './reward.js';

const occurrences = (text: string, part: string) => text.split(part).length - 1;

/**
 * 1 where the whole completion is working, closed by `</think>`, and then one closed `<answer>`; else 0. The opening
 * `<think>` may be missing, since many templates have already opened it in the prompt.
 */
export function thinkFormat(weight = 1): Reward {
  return {
    name: 'think-format',
    weight,
    score: (_, completion) => (isWellFormed(completion) ? 1 : 0),
  };
}

function isWellFormed(completion: string): boolean {
  const text = completion.trim();
  const [opened, ...others] = TAGS.map((tag) => occurrences(text, tag));
  if (others.some((count) => count !== 1)) return false;
  if (opened > 1 || (opened === 1 && !text.startsWith('<think>'))) return false;
  const thought = text.indexOf('</think>');
  const open = text.indexOf('<answer>');
  const close = text.indexOf('</answer>');
  if (!(thought < open && open < close)) return false;
  const between = text.slice(thought + '</think>'.length, open);
  // One more token in angle brackets may follow: the end of the sequence.
  return between.trim() === '' && /^\s*(<[^<>]*>)?$/.test(text.slice(close + '</answer>'.length));
}

/** A quarter for each of the four tags that stands there exactly once: a format reward that shows the way. */
export function tagCount(weight = 1): Reward {
  return {
    name: 'tag-count',
    weight,
    score: (_, completion) => TAGS.filter((tag) => occurrences(completion, tag) === 1).length / TAGS.length,
  };
}

/**
 * The share of the completion's letters that are in the scripts of its prompt: R1's language consistency reward.
 * @param promptOf the task's prompt of a problem
 */
export function languageConsistency(promptOf: (problem: unknown) => string, weight = 1): Reward {
  return {
    name: 'language-consistency',
    weight,
    score: (problem, completion) => languageShare(promptOf(problem), completion),
  };
}

/**
 * Soft overlong punishment of DAPO (arXiv 2503.14476, equation 13): 0 up to `maxTokens - buffer`, then falling to -1
 * at `maxTokens`, -1 beyond. Tokens include the end of the sequence.
 *
 * @throws RetortError (bad-input) where the buffer is not from 1 to `maxTokens`.
 */
export function softOverlong(
  { maxTokens, buffer }: { maxTokens: number; buffer: number },
  weight = 1,
): Reward {
  if (!(buffer >= 1 && buffer <= maxTokens)) {
    throw refuse(
      'bad-input',
      'buffer of reward soft-overlong',
      buffer,
      `give 1 to maxTokens, which is ${maxTokens}`,
    );
  }
  return {
    name: 'soft-overlong',
    weight,
    score(_, __, { tokenCount }) {
      if (tokenCount === undefined)
        throw new RetortError('bad-input', 'soft-overlong needs the number of tokens');
      return -Math.min(1, Math.max(0, (tokenCount - (maxTokens - buffer)) / buffer));
    },
  };
}
