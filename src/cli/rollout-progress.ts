// What is seen of a run with rollouts while it goes: a live line, a sampled completion now and then, hints in plain words.
import type { Sample } from '../train/scoring.js';
import type { LoopInput } from '../train/setting.js';
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

type Metrics = Readonly<Record<string, number>>;

interface Step {
  readonly step: number;
  readonly steps: number;
  readonly metrics: Metrics;
  readonly samples: readonly Sample[];
}

/** A sampled completion is shown every so many steps. */
const SAMPLE_EVERY = 10;
/** Seconds between lines of steps where there is no terminal. */
const LINE_SECONDS = 1;

/** What a loop shows of a step beside what all show, and the hints it gives; a hint is given once. */
export interface Shown {
  fields(m: Metrics): string[];
  hints(m: Metrics, hint: Hint): void;
}

/** Says `text` once `holds` was true in so many steps on end. */
export type Hint = (name: string, holds: boolean, steps: number, text: string) => void;

export interface RolloutProgress {
  readonly onProgress: NonNullable<LoopInput['onProgress']>;
  readonly onEvaluation: NonNullable<LoopInput['onEvaluation']>;
  step(step: Step): void;
  end(): void;
}

export function openRolloutProgress(shown: Shown): RolloutProgress {
  let steps: { first: number; done: number; total: number; seconds: number } | null = null;
  let fields: readonly string[] = [];
  let drawn = 0;
  let heldOut: string | null = null;
  let stage: { name: string; progress: Progress } | null = null;
  let lastSaid = Number.NEGATIVE_INFINITY;
  const hints = openHints(shown);

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
      fields = fieldsOf(metrics, heldOut, shown);
      const showsSample = step === 1 || step % SAMPLE_EVERY === 0;
      const due = performance.now() - lastSaid > LINE_SECONDS * 1000;
      if (showsSample || step === total || (!live && due)) {
        lastSaid = performance.now();
        say(`step ${step}/${total}${left()}  ${fields.join('  ')}`);
      }
      if (showsSample) {
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
function fieldsOf(m: Metrics, heldOut: string | null, shown: Shown): string[] {
  return [
    `reward ${m.reward.toFixed(3)}`,
    `right ${percent(m.accuracy)}`,
    ...(heldOut ? [heldOut] : []),
    `length ${m['completions/mean_length'].toFixed(0)}`,
    ...shown.fields(m),
    `${m.tokens_per_second.toFixed(0)} tokens/s`,
  ];
}

function oneLine(text: string): string {
  const line = printable(text).replace(/\s+/g, ' ').trim();
  return line.length > 300 ? `${line.slice(0, 297)}...` : line;
}

/** Steps that a sign must last before a hint is given. */
export const LASTING = 3;

/** Says each of these once; what users of other trainers report as bugs should not have to be looked up. */
function openHints(shown: Shown): (m: Metrics) => void {
  const said = new Set<string>();
  const seen = new Map<string, number>();
  const hint: Hint = (name, holds, steps, text) => {
    seen.set(name, holds ? (seen.get(name) ?? 0) + 1 : 0);
    if ((seen.get(name) as number) < steps || said.has(name)) return;
    said.add(name);
    say(text);
  };
  return (m) => {
    shown.hints(m, hint);
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
