// retort ppo: reinforcement learning on a task with a critic.
import type { Command } from 'commander';
import { type PpoInput, type PpoStep, type PpoSummary, ppo } from '../train/ppo.js';
import { ppoOptions } from '../train/ppo-options.js';
import { addSchemaFlags, readSchemaFlags } from './flags.js';
import { LASTING, openRolloutProgress, type Shown } from './rollout-progress.js';
import { rolloutText, sayFailure } from './rollout-text.js';
import { stopSignal } from './stop.js';
import { type CommonOptions, percent, printResult, say } from './terminal.js';

/** The live line: what TRL's users look at first. */
const SHOWN: Shown = {
  fields: (m) => [
    ...('policy/entropy_avg' in m ? [`entropy ${m['policy/entropy_avg'].toFixed(2)}`] : ['critic alone']),
    ...('objective/kl' in m ? [`kl ${m['objective/kl'].toFixed(3)}`] : []),
    ...('policy/clipfrac_avg' in m ? [`clipped ${percent(m['policy/clipfrac_avg'])}`] : []),
    `value loss ${m['loss/value_avg'].toFixed(4)}`,
    `explained ${percent(m['val/explained_variance'])}`,
  ],
  hints(m, hint) {
    hint(
      'critic',
      m['val/explained_variance'] < 0,
      5 * LASTING,
      'the critic explains less than a constant would: raise --critic-learning-rate, give it --critic-warmup-steps, or set --lam 1, which trusts it less',
    );
    hint(
      'clipped',
      m['policy/clipfrac_avg'] > 0.4,
      LASTING,
      'more than 40% of the ratios are clipped: lower --learning-rate or --num-ppo-epochs',
    );
  },
};

export function addPpo(program: Command): void {
  const command = program
    .command('ppo')
    .description('reinforcement learning by PPO: as grpo, with a critic that learns what a token is worth');
  addSchemaFlags(command, ppoOptions, ['model', 'task']);
  command.action(async () => {
    const common = command.opts() as CommonOptions;
    const summary = await runPpo(readSchemaFlags(command, ppoOptions) as unknown as PpoInput);
    printResult(common, { ...summary }, () => rolloutText(summary));
  });
}

/** Runs the loop with its live line. */
export async function runPpo(input: PpoInput): Promise<PpoSummary> {
  const progress = openRolloutProgress(SHOWN);
  const { onProgress, onEvaluation } = progress;
  const { signal } = stopSignal;
  const loop = ppo({ ...input, signal, warn: say, onProgress, onEvaluation, onRewardFailure: sayFailure });
  let result: IteratorResult<PpoStep, PpoSummary> = await loop.next();
  for (; !result.done; result = await loop.next()) progress.step(result.value);
  progress.end();
  return result.value;
}
