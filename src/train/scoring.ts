// A completion with its score, and how a completion comes by one.
import type { Scored, ScoreItem } from '../reward/score.js';
import type { Completion } from '../rollout/request.js';
import { type PromptTemplate, scoredText } from '../text/template.js';

/** One scored completion of a problem. */
export interface Sample {
  readonly problem: unknown;
  readonly prompt: string;
  readonly completion: Completion;
  readonly scored: Scored;
}

/** What the scorer is given of a completion: with what the template has opened. */
export function toScore(template: PromptTemplate, problem: unknown, { text, ids }: Completion): ScoreItem {
  return { problem, completion: scoredText(template, text), tokenCount: ids.length };
}

/** The rewards of a completion that did not fail: a failed one stands as 0 among them, which is no measurement. */
export function knownRewards({ rewards, failed }: Scored): Record<string, number> {
  return Object.fromEntries(Object.entries(rewards).filter(([name]) => !failed.includes(name)));
}

/** Failures of rewards by name, those of these scores added. */
export function countFailures(
  before: Readonly<Record<string, number>>,
  scores: readonly Scored[],
): Record<string, number> {
  const counts = { ...before };
  for (const { failed } of scores) for (const name of failed) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}
