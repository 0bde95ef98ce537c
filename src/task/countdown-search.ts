// Looks into the searches that models write for countdown: tries, right ones, repeats, and what chance would have hit.
import type { CountdownProblem } from './countdown-steps.js';
import { distinctSteps, type Part, resultOf, type StepRules, stepsOf } from './countdown-steps.js';

/** What a completion's working holds. */
export interface SearchReport {
  /** Tries, each closed by `<` or `>` or by the end of the working; one cut off by the length limit does not count. */
  readonly tries: number;
  /** Those whose arithmetic is right in every step, and that use each number once. */
  readonly rightTries: number;
  /** Those that stand, letter for letter, earlier in the same working. */
  readonly repeatedTries: number;
}

/** Reads the working of a completion in the format of `searchTrace`, in tags or raw. */
export function inspectSearch(problem: CountdownProblem, completion: string): SearchReport {
  const { text, finished } = workingOf(completion);
  const tries = text.split(/[<>]/);
  // Behind the last `<` or `>` stands the hit, or nothing, or what was cut off.
  const last = tries.pop() as string;
  if (finished && last !== '') tries.push(last);
  const seen = new Set<string>();
  let rightTries = 0;
  for (const t of tries) {
    if (valueOfTry(t, problem.numbers) !== null) rightTries++;
    seen.add(t);
  }
  return { tries: tries.length, rightTries, repeatedTries: tries.length - seen.size };
}

function workingOf(completion: string): { text: string; finished: boolean } {
  const start = completion.startsWith('<think>') ? '<think>'.length : 0;
  const end = completion.slice(start).search(/<\/think>|<answer>| /);
  const text = end < 0 ? completion.slice(start) : completion.slice(start, start + end);
  return { text, finished: end >= 0 };
}

/**
 * The result of a try such as `15+12=27-3=24` or `3-2=1,12-1=11`; null where a step is wrong, uses a number that is
 * not there, or leaves one over.
 */
export function valueOfTry(text: string, numbers: readonly number[]): number | null {
  const left = [...numbers];
  const take = (n: number): boolean => {
    const at = left.lastIndexOf(n);
    if (at >= 0) left.splice(at, 1);
    return at >= 0;
  };
  for (const chain of text.split(',')) {
    const start = /^\d{1,15}(?=([-+*/]\d{1,15}=\d{1,15})+$)/.exec(chain);
    if (!start) return null;
    let value = Number(start[0]);
    for (const [, operator, right, result] of chain.slice(start[0].length).matchAll(/([-+*/])(\d+)=(\d+)/g)) {
      const operand = Number(right);
      if (!take(value) || !take(operand) || !holds(value, operator, operand, Number(result))) return null;
      value = Number(result);
      left.push(value);
    }
  }
  return left.length === 1 ? left[0] : null;
}

function holds(a: number, operator: string, b: number, result: number): boolean {
  if (operator === '+') return a + b === result;
  if (operator === '-') return a - b === result;
  if (operator === '*') return a * b === result;
  return b !== 0 && b * result === a;
}

/**
 * The chance that one random try hits the target: two numbers at random, an operator at random among those that the
 * rules allow on them, until one number is left. Exact, by going through all tries.
 */
export function randomTryChance(problem: CountdownProblem, rules: StepRules): number {
  const play = (parts: readonly Part[]): number => {
    if (parts.length === 1) return parts[0].value === problem.target ? 1 : 0;
    let chance = 0;
    for (let i = 0; i < parts.length; i++) {
      for (let j = i + 1; j < parts.length; j++) {
        const rest = parts.filter((_, k) => k !== i && k !== j);
        const steps = distinctSteps(stepsOf([parts[i], parts[j]], rules));
        for (const step of steps) chance += play([...rest, resultOf(step)]) / steps.length;
      }
    }
    return chance / ((parts.length * (parts.length - 1)) / 2);
  };
  return play(problem.numbers.map((value) => ({ value, text: '' })));
}

/** The chance that random search solves a problem within so many tries. */
export function randomSearchChance(problem: CountdownProblem, rules: StepRules, tries: number): number {
  return 1 - (1 - randomTryChance(problem, rules)) ** tries;
}
