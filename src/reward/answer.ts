// Finds the answer in a completion and turns right, wrong and missing into a reward; shared by most tasks.
import type { Score } from '../task/task.js';

/** The tags of R1's format, in their order. */
export const TAGS = ['<think>', '</think>', '<answer>', '</answer>'] as const;

const OPEN = '<answer>';
const CLOSE = '</answer>';

/**
 * The text inside the last closed `<answer>`, trimmed; null where no answer was closed. An answer that is opened
 * later and never closed does not hide an earlier closed one, and a stray `</answer>` is not part of any answer.
 */
export function extractAnswer(completion: string): string | null {
  const lastClose = completion.lastIndexOf(CLOSE);
  if (lastClose < 0) return null;
  const open = completion.lastIndexOf(OPEN, lastClose);
  if (open < 0) return null;
  const start = open + OPEN.length;
  return completion.slice(start, completion.indexOf(CLOSE, start)).trim();
}

/** TinyZero's reward: 1 for a right answer, 0.1 for a wrong one in its tags, 0 without a closed answer. */
export function answerScore(answered: boolean, correct: boolean): Score {
  return { rewards: { answer: correct ? 1 : answered ? 0.1 : 0 }, correct };
}

/** A completion in the format of R1: working inside `<think>`, the answer inside `<answer>`. */
export function thinkAnswer(working: string, answer: string): string {
  return `<think>${working}</think>${OPEN}${answer}${CLOSE}`;
}
