// retort distill: a student learns from a teacher, by its answers or its distributions.
import type { Command } from 'commander';
import { type DistillInput, type DistillSummary, distill } from '../train/distill.js';
import { distillOptions } from '../train/distill-options.js';
import { reasons } from '../train/distill-responses.js';
import type { SupervisedStep } from '../train/supervised-loop.js';
import { addSchemaFlags, readSchemaFlags } from './flags.js';
import { openProgress, type Progress } from './progress.js';
import { judgingText } from './rollout-text.js';
import { stopSignal } from './stop.js';
import { type CommonOptions, duration, percentWithInterval, printResult, say } from './terminal.js';

export function addDistill(program: Command): void {
  const command = program
    .command('distill')
    .description(
      'a student learns from a teacher, local or behind an API: from its answers, or from its distributions over tokens',
    );
  addSchemaFlags(command, distillOptions, ['teacher']);
  command.action(async () => {
    const summary = await runDistill(readSchemaFlags(command, distillOptions) as unknown as DistillInput);
    printResult(command.opts<CommonOptions>(), { ...summary }, () => distillText(summary));
  });
}

/** Runs the loop with progress. */
export async function runDistill(input: DistillInput): Promise<DistillSummary> {
  let stage: { name: string; progress: Progress } | null = null;
  const at = (name: string, unit: string): Progress => {
    if (stage?.name !== name) stage = { name, progress: openProgress(name, unit) };
    return stage.progress;
  };
  let lastLine = '';
  const loop = distill({
    ...input,
    signal: stopSignal.signal,
    warn: say,
    onProgress(name, { finished, total, tokens }) {
      // Within a step the live line stays that of the steps.
      if (!name.startsWith('step '))
        at(name, 'sequences').update(finished, total, tokens ? `${tokens} tokens` : '', lastLine);
    },
  });
  let result: IteratorResult<SupervisedStep, DistillSummary> = await loop.next();
  for (; !result.done; result = await loop.next()) {
    const { step, steps, metrics } = result.value;
    const measured = [
      metrics.eval_loss === undefined ? '' : `held-out loss ${metrics.eval_loss.toFixed(3)}`,
      metrics['eval/pass1'] === undefined ? '' : `held-out ${(100 * metrics['eval/pass1']).toFixed(1)}%`,
    ]
      .filter(Boolean)
      .join(' ');
    lastLine = `loss ${metrics.loss.toFixed(4)} ${measured} ${metrics.tokens_per_second.toFixed(0)} tokens/s`;
    at('distill', 'steps').update(step, steps, lastLine);
    if (measured) say(`step ${step}/${steps}: loss ${metrics.loss.toFixed(4)}, ${measured}`);
  }
  at('', '').end();
  return result.value;
}

/** Operations as a person reads them: 1.2e12. */
function operations(count: number): string {
  return count.toExponential(2).replace('+', '');
}

export function distillText(s: DistillSummary): string {
  const lines = [
    `distill by ${s.method}: ${s.steps} steps, ${s.tokens} tokens in ${duration(s.seconds)}; loss ${s.loss.toFixed(4)}`,
  ];
  if (s.answers)
    lines.push(`${s.answers.kept} of ${s.answers.answers} answers learned; ${reasons(s.answers)}`);
  if (s.api) {
    const { answers, inputTokens, outputTokens, cost, unanswered } = s.api;
    lines.push(
      `API: ${answers} answers, ${inputTokens} tokens in, ${outputTokens} out, cost ${cost}` +
        (unanswered > 0 ? `; ${unanswered} calls perhaps paid without an answer` : ''),
    );
  }
  if (s.judging) lines.push(judgingText(s.judging));
  if (s.evalLoss !== null) lines.push(`held-out loss ${s.evalLoss.toFixed(4)}`);
  if (s.after) {
    const { greedy, greedyCi95, sampled, sampledCi95 } = s.after;
    lines.push(
      `held-out accuracy: greedy ${percentWithInterval(greedy, greedyCi95)}, sampled ${percentWithInterval(sampled, sampledCi95)}`,
    );
  }
  lines.push(
    `operations of the student: ${operations(s.operations.trained)} trained, ${operations(s.operations.generated)} generated; of the teacher: ${operations(s.teacherOperations)}`,
  );
  if (s.run) lines.push(`run: ${s.run}`);
  if (s.saved) lines.push(`model: ${s.saved}`);
  return lines.join('\n');
}
