// retort sample: rejection sampling, from a model to a data set for retort sft.
import type { Command } from 'commander';
import { DROP_RULES, RULE_TEXTS } from '../train/keep.js';
import { type SampleInput, type SampleStep, type SampleSummary, sample } from '../train/sample.js';
import { sampleOptions } from '../train/sample-options.js';
import { addSchemaFlags, readSchemaFlags } from './flags.js';
import { openProgress } from './progress.js';
import { judgingText } from './rollout-text.js';
import { stopSignal } from './stop.js';
import { duration, percent, printResult, say, table } from './terminal.js';

export function addSample(program: Command): void {
  const command = program
    .command('sample')
    .description(
      'rejection sampling: several completions of each problem, the good ones as data for retort sft',
    );
  addSchemaFlags(command, sampleOptions, ['model', 'task', 'out']);
  command.action(async () => {
    const summary = await runSample(readSchemaFlags(command, sampleOptions) as SampleInput);
    printResult(command.opts(), summary, () => sampleText(summary));
  });
}

/** Runs the loop with progress. */
export async function runSample(input: SampleInput): Promise<SampleSummary> {
  const loop = sample({
    ...input,
    signal: stopSignal.signal,
    warn: say,
    onRewardFailure: ({ name, kind, message }) => say(`reward ${name} ${kind}: ${message}`),
  });
  const progress = openProgress('sample', 'problems');
  try {
    let result: IteratorResult<SampleStep, SampleSummary> = await loop.next();
    for (; !result.done; result = await loop.next()) {
      const { step, steps, counts } = result.value;
      progress.update(step, steps, `${counts.kept} of ${counts.sampled} kept, ${counts.tokens} tokens`);
    }
    return result.value;
  } finally {
    progress.end();
  }
}

export function sampleText(s: SampleSummary): string {
  const share = (count: number) => percent(count / s.sampled);
  const rows = [
    ['sampled', String(s.sampled), ''],
    ...DROP_RULES.filter((rule) => s.dropped[rule] > 0).map((rule) => [
      `dropped: ${RULE_TEXTS[rule]}`,
      String(s.dropped[rule]),
      share(s.dropped[rule]),
    ]),
    ['kept', String(s.kept), share(s.kept)],
  ];
  return [
    table([['completions', 'number', 'share'], ...rows]),
    `${s.problemsKept} of ${s.problems} problems have kept completions, ${s.problemsRight} right ones; ${share(s.right)} of all completions are right`,
    `${s.tokens} tokens generated, ${s.keptTokens} kept, ${duration(s.seconds)}`,
    ...(s.judging ? [judgingText(s.judging)] : []),
    `run: ${s.run}`,
    `learn from it: retort sft --data ${s.data} --template ${s.template}`,
  ].join('\n');
}
