// retort grpo: reinforcement learning on a task.
import type { Command } from 'commander';
import type { RewardFailure } from '../reward/score.js';
import { type GrpoInput, type GrpoStep, type GrpoSummary, grpo } from '../train/grpo.js';
import { grpoOptions } from '../train/grpo-options.js';
import { addSchemaFlags, readSchemaFlags } from './flags.js';
import { openGrpoProgress } from './grpo-progress.js';
import { stopSignal } from './stop.js';
import { type CommonOptions, duration, percentWithInterval, printResult, say, table } from './terminal.js';

export function addGrpo(program: Command): void {
  const command = program
    .command('grpo')
    .description(
      'reinforcement learning by GRPO: a model gets better at a task whose answers can be checked',
    );
  addSchemaFlags(command, grpoOptions, ['model', 'task']);
  command.action(async () => {
    const common = command.opts() as CommonOptions;
    const summary = await runGrpo(readSchemaFlags(command, grpoOptions) as unknown as GrpoInput);
    printResult(common, grpoResult(summary), () => grpoText(summary));
  });
}

/** What `--json` prints of a run. */
export function grpoResult(s: GrpoSummary): Record<string, unknown> {
  return { ...s };
}

/** Runs the loop with its live line; `onEvaluation` also hears of each evaluation. */
export async function runGrpo(
  input: GrpoInput,
  onEvaluation: NonNullable<GrpoInput['onEvaluation']> = () => {},
): Promise<GrpoSummary> {
  const progress = openGrpoProgress();
  const loop = grpo({
    ...input,
    signal: stopSignal.signal,
    warn: say,
    onProgress: progress.onProgress,
    onEvaluation(when, name, e) {
      onEvaluation(when, name, e);
      progress.onEvaluation(when, name, e);
    },
    onRewardFailure: sayFailure,
  });
  let result: IteratorResult<GrpoStep, GrpoSummary> = await loop.next();
  for (; !result.done; result = await loop.next()) progress.step(result.value);
  progress.end();
  return result.value;
}

/** Failures of a reward that are told one by one; the summary counts them all. */
const FAILURES_SHOWN = 5;
let failures = 0;
function sayFailure({ name, kind, message }: RewardFailure): void {
  failures++;
  if (failures <= FAILURES_SHOWN) say(`reward ${name} ${kind}: ${message}`);
  if (failures === FAILURES_SHOWN) say('further failures of rewards are counted, not shown');
}

export function grpoText(s: GrpoSummary): string {
  const lines: string[] = [];
  if (s.before && s.after) {
    const row = (name: string, a: NonNullable<GrpoSummary['before']>) => [
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
  return lines.join('\n');
}
