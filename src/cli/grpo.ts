// retort grpo: reinforcement learning on a task.
import type { Command } from 'commander';
import { type GrpoInput, type GrpoStep, type GrpoSummary, grpo } from '../train/grpo.js';
import { grpoOptions } from '../train/grpo-options.js';
import { addSchemaFlags, readSchemaFlags } from './flags.js';
import { stopSignal } from './stop.js';
import {
  type CommonOptions,
  dim,
  duration,
  openProgress,
  percent,
  percentWithInterval,
  printResult,
  say,
  table,
} from './terminal.js';

export function addGrpo(program: Command): void {
  const command = program
    .command('grpo')
    .description(
      'reinforcement learning by GRPO: a model gets better at a task whose answers can be checked',
    );
  addSchemaFlags(command, grpoOptions, ['model', 'task']);
  command.action(async () => {
    const common = command.opts() as CommonOptions;
    const summary = await runGrpo(readSchemaFlags(command, grpoOptions) as GrpoInput);
    printResult(common, grpoResult(summary), () => grpoText(summary));
  });
}

/** What `--json` prints of a run. */
export function grpoResult(s: GrpoSummary): Record<string, unknown> {
  return { ...s };
}

/** Every so many steps a sampled completion is shown. */
const SHOW_EVERY = 10;

/** Runs the loop with its live line; `onEvaluation` also hears of each evaluation. */
export async function runGrpo(
  input: GrpoInput,
  onEvaluation: NonNullable<GrpoInput['onEvaluation']> = () => {},
): Promise<GrpoSummary> {
  let stage = openProgress('evaluating', 'completions');
  let current = '';
  let heldOut = '';
  const loop = grpo({
    ...input,
    signal: stopSignal.signal,
    warn: say,
    onProgress(name, p) {
      if (name !== current) {
        stage.end();
        stage = openProgress(name, 'completions');
        current = name;
      }
      stage.update(p.finished, p.total, `${p.tokens} tokens`);
    },
    onEvaluation(when, name, e) {
      onEvaluation(when, name, e);
      heldOut = ` held-out ${percent(e.pass1.value)}`;
      const at = typeof when === 'number' ? `at step ${when}` : when;
      say(
        `held-out accuracy ${at}, ${name}: ${percentWithInterval(e.pass1.value, e.pass1.interval)} of ${e.problems} problems, ${e.meanLength.toFixed(0)} tokens each`,
      );
    },
    onRewardFailure({ name, kind, message }) {
      say(`reward ${name} ${kind}: ${message}`);
    },
  });
  const progress = openProgress('grpo', 'steps');
  let explained = false;
  let result: IteratorResult<GrpoStep, GrpoSummary> = await loop.next();
  for (; !result.done; result = await loop.next()) {
    const { step, steps, metrics: m, samples } = result.value;
    stage.end();
    if (!explained) {
      explained = true;
      say(
        dim(
          'The loss stays near 0: it starts each step at the policy that sampled, where advantages cancel. Watch the reward.',
        ),
      );
    }
    const line =
      `reward ${m.reward.toFixed(3)} right ${percent(m.accuracy)}${heldOut} length ${m['completions/mean_length'].toFixed(0)} ` +
      `entropy ${m.entropy.toFixed(2)} kl ${m.kl.toFixed(4)} flat groups ${percent(m.frac_reward_zero_std)} ${m.tokens_per_second.toFixed(0)} tokens/s`;
    say(`step ${step}/${steps} ${line} ${dim(duration(m.step_time))}`);
    progress.update(step, steps, line);
    warnOnce(m);
    if (step % SHOW_EVERY === 1) {
      const { prompt, completion, scored } = samples[step % samples.length];
      say(dim(`  ${prompt} → ${completion.text}  reward ${scored.reward.toFixed(2)}`));
    }
  }
  stage.end();
  progress.end();
  return result.value;
}

let warned = false;
/** Groups without differences teach nothing; users should not have to find that out from the paper. */
function warnOnce(metrics: Readonly<Record<string, number>>): void {
  if (warned || metrics.frac_reward_zero_std < 0.8) return;
  warned = true;
  say(
    'most groups have equal rewards and teach nothing: try easier problems, a larger --num-generations, or --dynamic-sampling resample',
  );
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
