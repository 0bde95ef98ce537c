// Held-out accuracy before, within and after a run with rollouts.
import type { Task } from '../task/task.js';
import { distinctProblems, type Evaluation } from './evaluate.js';
import {
  type Accuracies,
  accuraciesOf,
  type Drawing,
  EVALUATION_SEED,
  evaluateHeldOut,
  greedyAndSampled,
} from './held-out.js';
import type { Job } from './rollout.js';
import type { RolloutOptions } from './rollout-options.js';

/** Told of each evaluation of a run. */
export type OnEvaluation = (when: 'before' | 'after' | number, name: Drawing, e: Evaluation) => void;

/** What the run's evaluations will ask. @throws RetortError bad-input where there are not so many */
export function evaluationProblems(task: Task, o: RolloutOptions): unknown[] {
  if (!o.evalEnds && o.evalEvery === 0) return [];
  return distinctProblems(task, 'heldout', o.evalProblems, EVALUATION_SEED);
}

/** One completion of each held-out problem. */
export function evaluateNow(
  { policy, task, template, scorer, o, onProgress }: Job,
  temperature: number,
  stage: string,
  signal?: AbortSignal,
): Promise<Evaluation> {
  return evaluateHeldOut(policy, {
    task,
    template,
    scorer,
    problems: o.evalProblems,
    temperature,
    maxTokens: o.maxCompletionLength,
    engine: { maxSequences: o.maxSequences },
    signal,
    onProgress: (p) => onProgress(stage, p),
  });
}

/** Greedy and sampled accuracy, at one end of the run. */
export async function accuracies(
  job: Job,
  when: 'before' | 'after',
  onEvaluation: OnEvaluation,
): Promise<Accuracies> {
  const both = await greedyAndSampled(async (temperature, name) => {
    const e = await evaluateNow(job, temperature, `held-out accuracy ${when}, ${name}`, job.signal);
    onEvaluation(when, name, e);
    return e;
  });
  return accuraciesOf(both);
}

/** Accuracy within the run, as metrics of its step; none where it is not due. */
export async function measureAt(
  job: Job,
  step: number,
  onEvaluation: OnEvaluation,
): Promise<Record<string, number>> {
  const { evalEvery, evalTemperature } = job.o;
  if (evalEvery === 0 || step % evalEvery !== 0) return {};
  const e = await evaluateNow(job, evalTemperature, `evaluation at step ${step}`);
  onEvaluation(step, evalTemperature === 0 ? 'greedy' : 'sampled', e);
  return {
    'eval/pass1': e.pass1.value,
    'eval/pass1_low': e.pass1.interval[0],
    'eval/pass1_high': e.pass1.interval[1],
    'eval/mean_length': e.meanLength,
  };
}
