// Held-out accuracy as every command measures it: one completion of each problem, the same problems whatever the run.
import { type EvaluateOptions, type Evaluation, evaluate } from './evaluate.js';
import type { Policy } from './policy.js';

/** Not a run's seed: every run of a task is measured on the same problems. */
export const EVALUATION_SEED = 0;

/** One completion of each of the problems. @throws RetortError bad-input, interrupted */
export function evaluateHeldOut(
  policy: Policy,
  o: Omit<EvaluateOptions, 'split' | 'samples' | 'seed'>,
): Promise<Evaluation> {
  return evaluate(policy, { ...o, samples: 1, seed: EVALUATION_SEED });
}

export type Drawing = 'greedy' | 'sampled';

/** The greedy completion, then one sampled at temperature 1. */
export async function greedyAndSampled(
  measure: (temperature: number, name: Drawing) => Promise<Evaluation>,
): Promise<Readonly<Record<Drawing, Evaluation>>> {
  const greedy = await measure(0, 'greedy');
  const sampled = await measure(1, 'sampled');
  return { greedy, sampled };
}

/** Held-out accuracies, as summaries tell them. */
export interface Accuracies {
  readonly greedy: number;
  readonly sampled: number;
  readonly greedyCi95: readonly [number, number];
  readonly sampledCi95: readonly [number, number];
}

export function accuraciesOf({ greedy, sampled }: Readonly<Record<Drawing, Evaluation>>): Accuracies {
  return {
    greedy: greedy.pass1.value,
    sampled: sampled.pass1.value,
    greedyCi95: greedy.pass1.interval,
    sampledCi95: sampled.pass1.interval,
  };
}
