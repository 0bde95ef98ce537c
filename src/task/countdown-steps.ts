// The moves of countdown: which steps are open on the numbers that are left.
import { applyWhole } from './countdown-solver.js';
import type { Operator } from './expression.js';

/** Make `target` from `numbers`, each used exactly once. */
export interface CountdownProblem {
  readonly numbers: readonly number[];
  readonly target: number;
}

/** What a step may do. */
export interface StepRules {
  readonly operators: ReadonlySet<Operator>;
  /** No result of a step goes above this; none is below 1. */
  readonly maxIntermediate: number;
}

/** A number on the table: given, or reached by steps. */
export interface Part {
  readonly value: number;
  /** Compound expressions in parentheses. */
  readonly text: string;
}

/** One operation on two parts. */
export interface Step {
  readonly left: Part;
  readonly operator: Operator;
  readonly right: Part;
  readonly value: number;
  /** What is left to join after the step, without its result. */
  readonly rest: readonly Part[];
}

/** As traces write it: `12*12=144`. */
export function stepText({ left, operator, right, value }: Step): string {
  return `${left.value}${operator}${right.value}=${value}`;
}

/** What a step puts on the table. */
export function resultOf({ left, operator, right, value }: Step): Part {
  return { value, text: `(${left.text}${operator}${right.text})` };
}

/**
 * Every step on two of the parts whose result is whole, from 1 to the limit. The larger part stands first; the one that
 * was reached just before (`latest`), where the order does not matter.
 */
export function stepsOf(parts: readonly Part[], rules: StepRules, latest?: Part): Step[] {
  const steps: Step[] = [];
  for (let i = 0; i < parts.length; i++) {
    for (let j = i + 1; j < parts.length; j++) {
      // Of equals, the later one stands first: it is the result of the step before.
      const [large, small] = parts[i].value > parts[j].value ? [parts[i], parts[j]] : [parts[j], parts[i]];
      const rest = parts.filter((_, k) => k !== i && k !== j);
      for (const operator of rules.operators) {
        const value = applyWhole(operator, large.value, small.value);
        if (value !== null && value >= 1 && value <= rules.maxIntermediate) {
          const turn = small === latest && (operator === '+' || operator === '*');
          const [left, right] = turn ? [small, large] : [large, small];
          steps.push({ left, operator, right, value, rest });
        }
      }
    }
  }
  return steps;
}

/** Each step that is written alike once. */
export function distinctSteps(steps: readonly Step[]): Step[] {
  return [...new Map(steps.map((step) => [stepText(step), step])).values()];
}
