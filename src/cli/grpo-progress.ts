// What is seen of a GRPO run while it goes: a live line, a sampled completion now and then, and hints in plain words.
import type { GrpoInput, GrpoStep } from '../train/grpo.js';
import { bar, openProgress, type Progress, REDRAW_MS } from './progress.js';
import {
  clearLive,
  dim,
  drawLive,
  duration,
  live,
  percent,
  percentWithInterval,
  printable,
  rowsOf,
  say,
} from './terminal.js';

type Metrics = GrpoStep['metrics'];

/** A sampled completion is shown every so many steps. */
const SAMPLE_EVERY = 10;
/** Seconds between lines of steps where there is no terminal. */
const LINE_SECONDS = 1;

export interface GrpoProgress {
  readonly onProgress: NonNullable<GrpoInput['onProgress']>;
  readonly onEvaluation: NonNullable<GrpoInput['onEvaluation']>;
  step(step: GrpoStep): void;
  end(): void;
}

export function openGrpoProgress(): GrpoProgress {
  let steps: { first: number; done: number; total: number; seconds: number } | null = null;
  let fields: readonly string[] = [];
  let drawn = 0;
  let heldOut: string | null = null;
  let stage: { name: string; progress: Progress } | null = null;
  let lastSaid = Number.NEGATIVE_INFINITY;
  const hints = openHints();

  return {
    onProgress(name, p) {
      if (steps && live && name.startsWith('step')) {
        if (performance.now() - drawn < REDRAW_MS) return;
        drawn = performance.now();
        const { done, total } = steps;
        const share = (done + p.finished / (2 * p.total)) / total;
        drawLive([
          `${bar(share)} step ${done + 1}/${total}${left()}  rollouts ${p.finished}/${p.total}`,
          ...rowsOf(fields),
        ]);
        return;
      }
      if (stage?.name !== name) stage = { name, progress: openProgress(name, 'completions') };
      stage.progress.update(p.finished, p.total, ...(live ? rowsOf(fields) : []));
    },
    onEvaluation(when, name, { pass1, problems, meanLength }) {
      heldOut = `held-out ${percent(pass1.value)}`;
      const at = typeof when === 'number' ? `at step ${when}` : when;
      const accuracy = percentWithInterval(pass1.value, pass1.interval);
      say(
        `held-out accuracy ${at}, ${name}: ${accuracy} of ${problems} problems, ${meanLength.toFixed(0)} tokens each`,
      );
    },
    step({ step, steps: total, metrics, samples }) {
      steps ??= { first: step - 1, done: step, total, seconds: 0 };
      steps = { ...steps, done: step, seconds: steps.seconds + metrics.step_time };
      fields = fieldsOf(metrics, heldOut);
      const shown = step === 1 || step % SAMPLE_EVERY === 0;
      const due = performance.now() - lastSaid > LINE_SECONDS * 1000;
      if (shown || step === total || (!live && due)) {
        lastSaid = performance.now();
        say(`step ${step}/${total}${left()}  ${fields.join('  ')}`);
      }
      if (shown) {
        const { prompt, completion, scored } = samples[step % samples.length];
        say(dim(`  ${prompt} → ${oneLine(completion.text)}  reward ${scored.reward.toFixed(2)}`));
      }
      drawLive([`${bar(step / total)} step ${step}/${total}${left()}`, ...rowsOf(fields)]);
      hints(metrics);
    },
    end: clearLive,
  };

  function left(): string {
    if (!steps || steps.done >= steps.total) return '';
    const each = steps.seconds / (steps.done - steps.first);
    return `, ${duration(each * (steps.total - steps.done))} left`;
  }
}

/** The live line: what TRL's users look at first. */
function fieldsOf(m: Metrics, heldOut: string | null): string[] {
  return [
    `reward ${m.reward.toFixed(3)}`,
    `right ${percent(m.accuracy)}`,
    ...(heldOut ? [heldOut] : []),
    `length ${m['completions/mean_length'].toFixed(0)}`,
    `entropy ${m.entropy.toFixed(2)}`,
    `kl ${m.kl.toFixed(4)}`,
    `flat groups ${percent(m.frac_reward_zero_std)}`,
    `${m.tokens_per_second.toFixed(0)} tokens/s`,
    `loss ${m.loss.toFixed(3)}`,
  ];
}

function oneLine(text: string): string {
  const line = printable(text).replace(/\s+/g, ' ').trim();
  return line.length > 300 ? `${line.slice(0, 297)}...` : line;
}

/** Steps that a sign must last before a hint is given. */
const LASTING = 3;

/** Says each of these once; what users of other trainers report as bugs should not have to be looked up. */
function openHints(): (m: Metrics) => void {
  const said = new Set<string>();
  const seen = new Map<string, number>();
  const hint = (name: string, holds: boolean, steps: number, text: string) => {
    seen.set(name, holds ? (seen.get(name) ?? 0) + 1 : 0);
    if ((seen.get(name) as number) < steps || said.has(name)) return;
    said.add(name);
    say(text);
  };
  return (m) => {
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
    for (const [name, value] of Object.entries(m)) {
      const reward = /^rewards\/(.+)\/mean$/.exec(name)?.[1];
      if (!reward) continue;
      hint(
        name,
        value === 0 && m[`rewards/${reward}/std`] === 0,
        LASTING,
        `reward ${reward} was 0 for every completion of ${LASTING} steps: compare a completion with the format that it asks for, or teach the format first (retort sft)`,
      );
    }
    hint(
      'cut',
      m['completions/clipped_ratio'] > 0.5,
      LASTING,
      'more than half of the completions are cut by the length limit: raise --max-completion-length, or --mask-truncated-completions',
    );
  };
}
