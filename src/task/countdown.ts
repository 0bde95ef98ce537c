// Countdown: make the target from the numbers, each used exactly once. Rewards 1 / 0.1 / 0 as in TinyZero.
import { z } from 'zod';
import { refuse } from '../errors.js';
import { answerScore, extractAnswer } from '../reward/answer.js';
import { MAX_SOLVED_NUMBERS, reachable } from './countdown-solver.js';
import { searchTrace } from './countdown-trace.js';
import { defineTask } from './define.js';
import {
  evaluateExpression,
  formatExpression,
  normaliseExpression,
  numbersOf,
  type Operator,
  operatorsOf,
  parseExpression,
} from './expression.js';
import { readOptions, readProblem, templateFor, wordingOption } from './options.js';
import { randomFor } from './random.js';
import type { TaskKind } from './registry.js';
import type { Task } from './task.js';

/** Make `target` from `numbers`, each used exactly once. */
export interface CountdownProblem {
  readonly numbers: readonly number[];
  readonly target: number;
}

const whole = z.int().min(0).max(1_000_000);

const optionSchema = z.object({
  count: z.int().min(2).max(MAX_SOLVED_NUMBERS).default(3).describe('how many numbers a problem has'),
  minNumber: whole.min(1).default(1).describe('smallest number'),
  maxNumber: whole.default(20).describe('largest number'),
  minTarget: whole.default(10).describe('smallest target'),
  maxTarget: whole.default(100).describe('largest target'),
  operators: z
    .string()
    .regex(/^(?!.*(.).*\1)[-+*/]+$/, 'use some of + - * /, each once')
    .default('+-*/')
    .describe('operators that answers may use'),
  maxIntermediate: whole.max(2000).default(150).describe('every problem has a solution within this limit'),
  wording: wordingOption,
  trace: z
    .enum(['search', 'raw'])
    .default('search')
    .describe('traces in think and answer tags, or raw working'),
  minTries: z.int().min(1).max(100).default(1).describe('smallest budget of tries of a trace'),
  maxTries: z.int().min(1).max(100).default(8).describe('largest budget of tries of a trace'),
});

export type CountdownOptions = z.input<typeof optionSchema>;

const problemSchema = z.object({
  numbers: z.array(z.int().min(0).max(Number.MAX_SAFE_INTEGER)).min(1).max(32),
  target: z.int().min(-Number.MAX_SAFE_INTEGER).max(Number.MAX_SAFE_INTEGER),
});

/**
 * The countdown task. Every generated problem can be solved with whole intermediate results. Problems are split by
 * their set of numbers, so that no held-out set of numbers is ever trained on. `answerKey` is the normalised
 * expression (see normaliseExpression), not its value.
 *
 * @throws RetortError (bad-input) for wrong options, or options under which no problem can be made.
 */
export function countdown(options: CountdownOptions = {}): Task<CountdownProblem> {
  const o = readOptions('countdown', optionSchema, options);
  const ordered = (
    low: 'minNumber' | 'minTarget' | 'minTries',
    high: 'maxNumber' | 'maxTarget' | 'maxTries',
  ) => {
    if (o[low] > o[high])
      throw refuse('bad-input', `${low} of task countdown`, o[low], `${high} is ${o[high]}`);
  };
  ordered('minNumber', 'maxNumber');
  ordered('minTarget', 'maxTarget');
  ordered('minTries', 'maxTries');
  const operators = new Set(o.operators) as Set<Operator>;
  const inRange = (target: number) => target >= o.minTarget && target <= o.maxTarget;

  const task = defineTask<CountdownProblem>({
    name: 'countdown',
    description: COUNTDOWN.description,
    options: o,
    make(random) {
      const numbers = Array.from({ length: o.count }, () => random.integer(o.minNumber, o.maxNumber));
      const targets = [...reachable(numbers, operators, o.maxIntermediate).keys()].filter(inRange);
      // Sorted, so that the choice does not depend on the order in which the solver works.
      targets.sort((a, b) => a - b);
      return targets.length === 0 ? null : { numbers, target: random.pick(targets) };
    },
    splitKey: ({ numbers }) => [...numbers].sort((a, b) => a - b).join(' '),
    parseProblem: (json) => readProblem('countdown', problemSchema, json),
    prompt: (problem) => (o.wording === 'words' ? inWords(problem, o.operators) : terse(problem, o)),
    score(problem, completion) {
      const answer = extractAnswer(completion);
      return answerScore(answer !== null, answer !== null && solves(problem, answer, operators));
    },
    answerKey(_, completion) {
      const parsed = parseExpression(extractAnswer(completion) ?? '');
      return parsed.ok ? normaliseExpression(parsed.expression) : null;
    },
    gold({ numbers, target }) {
      if (numbers.length > MAX_SOLVED_NUMBERS) return null;
      // A given problem may lie outside the options; up to here the search stays short.
      const limit = Math.max(o.maxIntermediate, Math.min(target, 10_000));
      const found = reachable(numbers, operators, limit).get(target);
      return found ? formatExpression(found) : null;
    },
    trace: (problem, seed) =>
      searchTrace(problem, randomFor('countdown trace', seed, problem.target, ...problem.numbers), {
        operators,
        minTries: o.minTries,
        maxTries: o.maxTries,
        maxIntermediate: o.maxIntermediate,
        raw: o.trace === 'raw',
      }),
    alphabet: o.wording === 'words' ? undefined : '0123456789 +-*/()=?:<>',
    template: templateFor(o.wording),
  });
  // Options under which a split is empty are refused now, not in the middle of a run.
  task.problem('train', 0, 0);
  task.problem('heldout', 0, 0);
  return task;
}

/** The registry's entry. */
export const COUNTDOWN: TaskKind = {
  description: 'make a target from some numbers, each used exactly once, with + - * /',
  options: optionSchema,
  make: countdown,
};

function solves(problem: CountdownProblem, answer: string, operators: ReadonlySet<Operator>): boolean {
  const parsed = parseExpression(answer);
  if (!parsed.ok) return false;
  const used = numbersOf(parsed.expression).sort((a, b) => a - b);
  const given = [...problem.numbers].sort((a, b) => a - b);
  if (used.length !== given.length || used.some((n, i) => n !== given[i])) return false;
  for (const operator of operatorsOf(parsed.expression)) if (!operators.has(operator)) return false;
  const value = evaluateExpression(parsed.expression);
  return value !== null && value.denominator === 1n && value.numerator === BigInt(problem.target);
}

// Fixed columns: a small model finds each number at the same place.
function terse({ numbers, target }: CountdownProblem, o: { maxNumber: number; maxTarget: number }): string {
  const column = (n: number, largest: number) => String(n).padStart(String(largest).length);
  return `${numbers.map((n) => column(n, o.maxNumber)).join(' ')}=${column(target, o.maxTarget)}?`;
}

function inWords({ numbers, target }: CountdownProblem, operators: string): string {
  return (
    `Using the numbers ${numbers.join(', ')}, write an expression that equals ${target}. ` +
    `Use each number exactly once, only the operators ${[...operators].join(' ')} and parentheses. ` +
    'Give the expression alone as the answer, for example (1 + 2) * 3.'
  );
}
