// Rejection sampling's rules: which completions of a problem are kept to learn from, and by which rule each other goes.
import { languageShare } from '../reward/language.js';
import { repetition } from '../reward/repetition.js';
import type { Scored } from '../reward/score.js';
import type { SampleOptions } from './sample-options.js';

/** In the order in which they are asked: a completion is counted under the first that drops it. */
export const DROP_RULES = [
  'truncated',
  'failed',
  'wrong',
  'low-reward',
  'mixed-languages',
  'repetitive',
  'inexact',
  'duplicate',
  'surplus',
] as const;
export type DropRule = (typeof DROP_RULES)[number];

/** What each rule means, for reports. */
export const RULE_TEXTS: Readonly<Record<DropRule, string>> = {
  truncated: 'cut by the length limit',
  failed: 'a reward failed on it',
  wrong: 'not right',
  'low-reward': 'below the least reward',
  'mixed-languages': 'mixes writing systems',
  repetitive: 'repeats itself',
  inexact: 'its text has other tokens than were sampled',
  duplicate: 'the same text again for its problem',
  surplus: 'more than wanted of its problem',
};

/** The options of the rules. */
export type KeepOptions = Pick<
  SampleOptions,
  | 'correct'
  | 'minReward'
  | 'maxPerProblem'
  | 'choose'
  | 'minLanguageShare'
  | 'maxRepetition'
  | 'repetitionNgram'
>;

/** A completion that was scored. */
export interface Candidate {
  readonly text: string;
  /** Its end included. */
  readonly tokens: number;
  /** Whether it ended by itself. */
  readonly ended: boolean;
  readonly scored: Scored;
  /** Whether the line that would be written is learned from as exactly the tokens that were sampled. */
  readonly exact: () => boolean;
}

/** The rule that drops each completion of a problem, null for those that are kept. */
export function dropRules(
  prompt: string,
  candidates: readonly Candidate[],
  o: KeepOptions,
): (DropRule | null)[] {
  const seen = new Set<string>();
  const rules = candidates.map((c): DropRule | null => {
    const rule = ownRule(prompt, c, o);
    if (rule !== null) return rule;
    const text = normal(c.text);
    if (seen.has(text)) return 'duplicate';
    seen.add(text);
    return null;
  });
  const kept = rules.flatMap((rule, i) => (rule === null ? [i] : []));
  // Equals stand in the order of the samples: sorting is stable.
  if (o.choose === 'shortest') kept.sort((a, b) => candidates[a].tokens - candidates[b].tokens);
  if (o.choose === 'reward') kept.sort((a, b) => candidates[b].scored.reward - candidates[a].scored.reward);
  for (const i of kept.slice(o.maxPerProblem ?? kept.length)) rules[i] = 'surplus';
  return rules;
}

/** What can be said of a completion by itself. */
function ownRule(prompt: string, c: Candidate, o: KeepOptions): DropRule | null {
  const { scored, text } = c;
  if (!c.ended) return 'truncated';
  if (scored.failed.length > 0) return 'failed';
  if (o.correct && !scored.correct) return 'wrong';
  if (o.minReward !== undefined && scored.reward < o.minReward) return 'low-reward';
  if (languageShare(prompt, text) < o.minLanguageShare) return 'mixed-languages';
  if (repetition(text, o.repetitionNgram) > o.maxRepetition) return 'repetitive';
  return c.exact() ? null : 'inexact';
}

function normal(text: string): string {
  return text.replace(/\s+/g, ' ').trim();
}
