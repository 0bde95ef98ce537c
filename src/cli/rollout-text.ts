// What the verbs of loops with rollouts say in words: failures of rewards, and the end of a run.
import type { RewardFailure } from '../reward/score.js';
import type { Accuracies } from '../train/held-out.js';
import type { RolloutSummary } from '../train/rollout-run.js';
import { duration, percentWithInterval, say, table } from './terminal.js';

/** Failures of a reward that are told one by one; the summary counts them all. */
const FAILURES_SHOWN = 5;
let failures = 0;
export function sayFailure({ name, kind, message }: RewardFailure): void {
  failures++;
  if (failures <= FAILURES_SHOWN) say(`reward ${name} ${kind}: ${message}`);
  if (failures === FAILURES_SHOWN) say('further failures of rewards are counted, not shown');
}

/** What is printed of a finished run. */
export function rolloutText(s: RolloutSummary): string {
  const lines: string[] = [];
  if (s.before && s.after) {
    const row = (name: string, a: Accuracies) => [
      name,
      percentWithInterval(a.greedy, a.greedyCi95),
      percentWithInterval(a.sampled, a.sampledCi95),
    ];
    lines.push(
      table([['held-out accuracy', 'greedy', 'sampled'], row('before', s.before), row('after', s.after)]),
      '',
    );
  }
  lines.push(
    `${s.steps} steps, ${s.tokens} tokens generated, ${s.trainedTokens} trained on, ${duration(s.seconds)}`,
  );
  if (s.run) lines.push(`run: ${s.run}`);
  if (s.saved) lines.push(`model: ${s.saved}`);
  for (const [name, count] of Object.entries(s.rewardFailures))
    lines.push(`reward ${name} failed ${count} times`);
  if (s.judging) lines.push(judgingText(s.judging));
  return lines.join('\n');
}

/** What a judge cost, in words. */
export function judgingText({
  answers,
  inputTokens,
  outputTokens,
  cost,
}: Readonly<Record<string, number>>): string {
  const money = cost > 0 ? `, cost ${cost}` : '';
  return `judged ${answers} answers: ${inputTokens} input and ${outputTokens} output tokens${money}`;
}
