// Held-out accuracy before, within and after a run with rollouts.
import type { Task } from '../task/task.js';
import { distinctProblems, type Evaluation, evaluate } from './evaluate.js';
import type { Job } from './rollout.js';
import type { RolloutOptions } from './rollout-options.js';

/** Held-out accuracies. */
export interface Accuracies {
  readonly greedy: number;
  readonly sampled: number;
  readonly greedyCi95: readonly [number, number];
  readonly sampledCi95: readonly [number, number];
}

/** Told of each evaluation of a run. */
export type OnEvaluation = (
  when: 'before' | 'after' | number,
  name: 'greedy' | 'sampled',
  e: Evaluation,
) => void;

/** Not the run's seed: every run of a task is measured on the same problems. */
const SEED = 0;

/** What the run's evaluations will ask. @throws RetortError bad-input where there are not so many */
export function evaluationProblems(task: Task, o: RolloutOptions): unknown[] {
  if (!o.evalEnds && o.evalEvery === 0) return [];
  return distinctProblems(task, 'heldout', o.evalProblems, SEED);
}

/** One sample of each held-out problem. */
export function evaluateNow(
  { policy, task, template, scorer, o, onProgress }: Job,
  temperature: number,
  stage: string,
  signal?: AbortSignal,
): Promise<Evaluation> {
  return evaluate(policy, {
    task,
    template,
    scorer,
    problems: o.evalProblems,
    samples: 1,
    temperature,
    maxTokens: o.maxCompletionLength,
    seed: SEED,
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
  const at = async (name: 'greedy' | 'sampled', temperature: number) => {
    const e = await evaluateNow(job, temperature, `held-out accuracy ${when}, ${name}`, job.signal);
    onEvaluation(when, name, e);
    return e.pass1;
  };
  const greedy = await at('greedy', 0);
  const sampled = await at('sampled', 1);
  return {
    greedy: greedy.value,
    sampled: sampled.value,
    greedyCi95: greedy.interval,
    sampledCi95: sampled.interval,
  };
}

/** Accuracy within the run, as metrics of its step. */
export async function measureAt(
  job: Job,
  step: number,
  onEvaluation: OnEvaluation,
): Promise<Record<string, number>> {
  const { evalTemperature } = job.o;
  const e = await evaluateNow(job, evalTemperature, `evaluation at step ${step}`);
  onEvaluation(step, evalTemperature === 0 ? 'greedy' : 'sampled', e);
  return {
    'eval/pass1': e.pass1.value,
    'eval/pass1_low': e.pass1.interval[0],
    'eval/pass1_high': e.pass1.interval[1],
    'eval/mean_length': e.meanLength,
  };
}
