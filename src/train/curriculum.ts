// Which problems are worth sampling: those of kinds that are neither too easy nor impossible come more often.
//
// A group whose completions are all right or all wrong has no gradient; with a success rate p the variance of a reward
// of 0 or 1 is p (1 - p), the greatest at 1/2. A problem is taken with a probability in proportion to it, and never
// below a floor, so that a kind that was impossible is seen again when the model has changed.
import { groupBy } from '../reward/statistics.js';
import { randomFor } from '../task/random.js';
import type { Task } from '../task/task.js';

/** Success by kind of problem; plain JSON, it is part of a run's state. */
export type SuccessRates = Readonly<Record<string, { readonly rate: number; readonly seen: number }>>;

/** The least probability with which a problem is taken. */
const FLOOR = 0.1;
/** Tries of earlier steps count so much less with each step. */
const MEMORY = 0.8;
/** A problem is taken after so many were passed over, whatever its kind. */
const MOST_PASSED = 64;

/** What a problem's success is recorded under: itself in a finite set, where it comes again, else its kind. */
export function kindOf(task: Task, problem: unknown): string {
  const member = task.memberOf?.(problem);
  if (member?.size) return `${member.name} ${JSON.stringify((problem as { problem: unknown }).problem)}`;
  if (task.size) return JSON.stringify(problem);
  return task.kind?.(problem) ?? task.name;
}

/** How often problems of a success rate are taken, from the floor to 1; 1 where nothing is known. */
export function takeProbability(rate: number | undefined): number {
  return rate === undefined ? 1 : Math.max(FLOOR, 4 * rate * (1 - rate));
}

/**
 * The next problems that the curriculum takes, from an index on.
 * @param problemAt problem number `index`
 * @returns the indices taken and the one to go on from; the same for the same arguments
 */
export function chooseProblems(
  task: Task,
  rates: SuccessRates,
  seed: number,
  from: number,
  count: number,
  problemAt: (index: number) => unknown,
): { readonly indices: number[]; readonly next: number } {
  const indices: number[] = [];
  let index = from;
  for (let passed = 0; indices.length < count; index++) {
    const { rate } = rates[kindOf(task, problemAt(index))] ?? {};
    const taken = passed >= MOST_PASSED || randomFor('curriculum', seed, index).chance(takeProbability(rate));
    passed = taken ? 0 : passed + 1;
    if (taken) indices.push(index);
  }
  return { indices, next: index };
}

/** The rates after a step whose completions were right or wrong. */
export function updateRates(
  rates: SuccessRates,
  results: readonly { readonly kind: string; readonly correct: boolean }[],
): SuccessRates {
  const next: Record<string, { rate: number; seen: number }> = { ...rates };
  const byKind = groupBy(results, ({ kind }) => kind);
  for (const [kind, tries] of byKind) {
    const { rate, seen } = rates[kind] ?? { rate: 0, seen: 0 };
    const old = MEMORY * seen;
    const right = tries.filter(({ correct }) => correct).length;
    next[kind] = { rate: (old * rate + right) / (old + tries.length), seen: old + tries.length };
  }
  return next;
}
