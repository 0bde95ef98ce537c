// Worked traces for countdown: an honest random search, with dead ends, that may fail and then gives its best guess.
import { thinkAnswer } from '../reward/answer.js';
import type { CountdownProblem } from './countdown.js';
import { applyWhole } from './countdown-solver.js';
import { type Expression, formatExpression, type Operator } from './expression.js';
import type { Random } from './random.js';

export interface SearchTraceOptions {
  readonly operators: ReadonlySet<Operator>;
  /** The budget of tries is drawn from this range. */
  readonly minTries: number;
  readonly maxTries: number;
  /** No step goes above this. */
  readonly maxIntermediate: number;
  /** Without think and answer tags: the working, then the expression. */
  readonly raw: boolean;
}

interface Part {
  readonly value: number;
  readonly expression: Expression;
}

/**
 * One search, for instance `12*12=144:144-3=141>3+12=15:15+12=27=`: steps of a try joined by `:`, each try closed
 * by how its result compares with the target (`<`, `>`, `=`), or by `?` where no operator fits what is left. The
 * search stops when it hits, or when its budget is spent; then the answer is the closest try. Every line of
 * arithmetic is right; nothing is hidden from the search.
 */
export function searchTrace(problem: CountdownProblem, random: Random, o: SearchTraceOptions): string {
  const budget = random.integer(o.minTries, o.maxTries);
  let working = '';
  let best: Part | null = null;
  const distance = (part: Part) => Math.abs(part.value - problem.target);
  for (let tries = 0; tries < budget && (best === null || distance(best) > 0); tries++) {
    const { steps, result } = oneTry(problem.numbers, random, o);
    working += steps.join(':') + verdict(result, problem.target);
    if (result !== null && (best === null || distance(result) < distance(best))) best = result;
  }
  // Without any finished try the guess is the numbers strung together.
  const answer = best ? formatExpression(best.expression) : problem.numbers.join([...o.operators][0]);
  return o.raw ? `${working} ${answer}` : thinkAnswer(working, answer);
}

function verdict(result: Part | null, target: number): string {
  if (result === null) return '?';
  return result.value < target ? '<' : result.value > target ? '>' : '=';
}

// Joins two parts at a time, at random, until one is left or nothing fits.
function oneTry(numbers: readonly number[], random: Random, o: SearchTraceOptions) {
  let parts = numbers.map((value): Part => ({ value, expression: { kind: 'number', value } }));
  const steps: string[] = [];
  while (parts.length > 1) {
    const [a, b, ...rest] = random.shuffle(parts);
    const joined = join(a, b, random, o);
    if (joined === null) return { steps, result: null };
    steps.push(joined.step);
    parts = [...rest, joined.part];
  }
  return { steps, result: parts[0] };
}

// A random operator that keeps the result whole and within the limit.
function join(a: Part, b: Part, random: Random, o: SearchTraceOptions): { part: Part; step: string } | null {
  for (const operator of random.shuffle([...o.operators])) {
    for (const [left, right] of random.chance(0.5)
      ? [
          [a, b],
          [b, a],
        ]
      : [
          [b, a],
          [a, b],
        ]) {
      const value = applyWhole(operator, left.value, right.value);
      if (value === null || value > o.maxIntermediate) continue;
      const expression: Expression = {
        kind: 'operation',
        operator,
        left: left.expression,
        right: right.expression,
      };
      return { part: { value, expression }, step: `${left.value}${operator}${right.value}=${value}` };
    }
  }
  return null;
}
