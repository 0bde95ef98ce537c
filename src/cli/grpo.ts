// retort grpo: reinforcement learning on a task.
import type { Command } from 'commander';
import { type GrpoInput, type GrpoStep, type GrpoSummary, grpo } from '../train/grpo.js';
import { grpoOptions } from '../train/grpo-options.js';
import { addSchemaFlags, readSchemaFlags } from './flags.js';
import { LASTING, openRolloutProgress, type Shown } from './rollout-progress.js';
import { rolloutText, sayFailure } from './rollout-text.js';
import { stopSignal } from './stop.js';
import { type CommonOptions, percent, printResult, say } from './terminal.js';

/** The live line: what TRL's users look at first. */
export const GRPO_SHOWN: Shown = {
  fields: (m) => [
    `entropy ${m.entropy.toFixed(2)}`,
    `kl ${m.kl.toFixed(4)}`,
    `flat groups ${percent(m.frac_reward_zero_std)}`,
    `loss ${m.loss.toFixed(3)}`,
  ],
  hints(m, hint) {
    hint(
      'loss',
      Math.abs(m.loss) < 0.05,
      1,
      'a loss near 0 is right: advantages cancel where a step begins, at the policy that sampled; watch the reward',
    );
    hint(
      'flat',
      m.frac_reward_zero_std > 0.8,
      LASTING,
      'most groups have equal rewards and teach nothing: try other problems (--task-option), more --num-generations, or --dynamic-sampling resample',
    );
  },
};

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
    printResult(common, { ...summary }, () => rolloutText(summary));
  });
}

/** Runs the loop with its live line; `onEvaluation` also hears of each evaluation. */
export async function runGrpo(
  input: GrpoInput,
  onEvaluation: NonNullable<GrpoInput['onEvaluation']> = () => {},
): Promise<GrpoSummary> {
  const progress = openRolloutProgress(GRPO_SHOWN);
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
