// Which targets a set of numbers reaches, and how: every number once, whole intermediate results within a limit.
import type { Expression, Operator } from './expression.js';

type Reached = ReadonlyMap<number, Expression>;

/** More numbers than this are not searched: the work grows as 3^n times the square of the limit. */
export const MAX_SOLVED_NUMBERS = 6;

/**
 * Everything that the numbers reach when each is used exactly once and every intermediate result is a whole number
 * from 0 to `limit`: value -> one expression for it. (A negative intermediate result is never needed: the same
 * value comes out with the subtraction turned round.) Works subset by subset; at most 6 numbers.
 */
export function reachable(
  numbers: readonly number[],
  operators: ReadonlySet<Operator>,
  limit: number,
): Reached {
  const full = (1 << numbers.length) - 1;
  const reached: Map<number, Expression>[] = [new Map()];
  for (let subset = 1; subset <= full; subset++) {
    const here = new Map<number, Expression>();
    reached.push(here);
    const lowest = subset & -subset;
    if (subset === lowest) {
      const value = numbers[31 - Math.clz32(subset)];
      here.set(value, { kind: 'number', value });
      continue;
    }
    // Every way to cut the subset in two, counted once: the left part keeps the lowest member.
    for (let left = (subset - 1) & subset; left > 0; left = (left - 1) & subset) {
      if (left & lowest) combineAll(here, reached[left], reached[subset ^ left], operators, limit);
    }
  }
  return reached[full];
}

function combineAll(
  into: Map<number, Expression>,
  lefts: Reached,
  rights: Reached,
  operators: ReadonlySet<Operator>,
  limit: number,
): void {
  for (const [a, left] of lefts) {
    for (const [b, right] of rights) {
      for (const operator of operators) {
        const forward = applyWhole(operator, a, b);
        if (forward !== null && forward <= limit && !into.has(forward)) {
          into.set(forward, { kind: 'operation', operator, left, right });
        }
        if (operator === '+' || operator === '*') continue;
        const backward = applyWhole(operator, b, a);
        if (backward !== null && backward <= limit && !into.has(backward)) {
          into.set(backward, { kind: 'operation', operator, left: right, right: left });
        }
      }
    }
  }
}

/** The result of one step on whole numbers from 0 up, or null where it is negative, not whole or undefined. */
export function applyWhole(operator: Operator, a: number, b: number): number | null {
  switch (operator) {
    case '+':
      return a + b;
    case '-':
      return a >= b ? a - b : null;
    case '*':
      return a * b;
    case '/':
      return b !== 0 && a % b === 0 ? a / b : null;
  }
}
