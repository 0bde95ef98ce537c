// retort sft, retort pretrain: supervised learning from data or a task's traces.
import type { Command } from 'commander';
import {
  pretrain,
  type SupervisedInput,
  type SupervisedStep,
  type SupervisedSummary,
  sft,
} from '../train/supervised.js';
import { type SupervisedCommand, supervisedOptions } from '../train/supervised-options.js';
import { addSchemaFlags, readSchemaFlags } from './flags.js';
import { openProgress } from './progress.js';
import { stopSignal } from './stop.js';
import { duration, printResult, say } from './terminal.js';

const LOOPS = { sft, pretrain } as const;
const TEXTS = {
  sft: "supervised fine-tuning: learn completions, from JSONL data or a task's traces",
  pretrain: "next-token pretraining: learn every token of texts, or of a task's problems and traces",
} as const;

export function addSupervised(program: Command): void {
  for (const name of ['pretrain', 'sft'] as const) {
    const command = program.command(name).description(TEXTS[name]);
    addSchemaFlags(command, supervisedOptions);
    command.action(async () => {
      const input = readSchemaFlags(command, supervisedOptions) as SupervisedInput;
      const summary = await runSupervised(name, input);
      printResult(command.opts(), summary, () => supervisedText(name, summary));
    });
  }
}

/** Runs the loop with progress. */
export async function runSupervised(
  name: SupervisedCommand,
  input: SupervisedInput,
): Promise<SupervisedSummary> {
  const loop = LOOPS[name]({ ...input, signal: stopSignal.signal, warn: say });
  const progress = openProgress(name, 'steps');
  let result: IteratorResult<SupervisedStep, SupervisedSummary> = await loop.next();
  for (; !result.done; result = await loop.next()) {
    const { step, steps, metrics } = result.value;
    const held = metrics.eval_loss === undefined ? '' : ` held-out ${metrics.eval_loss.toFixed(3)}`;
    progress.update(
      step,
      steps,
      `loss ${metrics.loss.toFixed(3)}${held} ${metrics.tokens_per_second.toFixed(0)} tokens/s`,
    );
    if (held) say(`step ${step}/${steps}: loss ${metrics.loss.toFixed(4)},${held}`);
  }
  progress.end();
  return result.value;
}

export function supervisedText(name: SupervisedCommand, s: SupervisedSummary): string {
  const held = s.evalLoss === null ? '' : `, held-out loss ${s.evalLoss.toFixed(4)}`;
  const lines = [
    `${name}: ${s.steps} steps, ${s.tokens} tokens in ${duration(s.seconds)}; loss ${s.loss.toFixed(4)}${held}`,
  ];
  if (s.run) lines.push(`run: ${s.run}`);
  if (s.saved) lines.push(`model: ${s.saved}`);
  return lines.join('\n');
}
