// Countdown: make the target from the numbers, each used exactly once. Rewards 1 / 0.1 / 0 as in TinyZero.
import { z } from 'zod';
import { refuse } from '../errors.js';
import { answerScore, extractAnswer } from '../reward/answer.js';
import { inspectSearch, randomSearchChance } from './countdown-search.js';
import { MAX_SOLVED_NUMBERS, reachable } from './countdown-solver.js';
import type { CountdownProblem } from './countdown-steps.js';
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
import type { TaskKind } from './kind.js';
import { readOptions, readProblem } from './options.js';
import { randomFor } from './random.js';
import type { Task } from './task.js';
import { alphabetFor, templateFor, traceOptions, wordingOption } from './wording.js';

// Sets of numbers whose targets are remembered: all 1,540 of three numbers up to 20, and a bounded amount of memory.
const MAX_KNOWN = 5000;
const setKey = (numbers: readonly number[]) => [...numbers].sort((a, b) => a - b).join(' ');

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
  ...traceOptions,
  experts: z.number().min(0).max(1).default(0.25).describe('share of traces in which an expert searches'),
  maxTries: z.int().min(1).max(100).default(9).describe('most tries of a trace'),
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
  const ordered = (low: 'minNumber' | 'minTarget', high: 'maxNumber' | 'maxTarget') => {
    if (o[low] > o[high])
      throw refuse('bad-input', `${low} of task countdown`, o[low], `${high} is ${o[high]}`);
  };
  ordered('minNumber', 'maxNumber');
  ordered('minTarget', 'maxTarget');
  const operators = new Set(o.operators) as Set<Operator>;
  const known = new Map<string, ReadonlySet<number>>();
  const reaches = (numbers: readonly number[], target: number): boolean => {
    const key = setKey(numbers);
    let targets = known.get(key);
    if (!targets) {
      if (known.size >= MAX_KNOWN) known.clear();
      targets = new Set(reachable(numbers, operators, o.maxIntermediate).keys());
      known.set(key, targets);
    }
    return targets.has(target);
  };

  const task = defineTask<CountdownProblem>({
    name: 'countdown',
    description: COUNTDOWN.description,
    options: o,
    // Numbers and target are drawn apart, and what cannot be solved is drawn again: every solvable problem is
    // equally likely.
    make(random) {
      const numbers = Array.from({ length: o.count }, () => random.integer(o.minNumber, o.maxNumber));
      const target = random.integer(o.minTarget, o.maxTarget);
      return reaches(numbers, target) ? { numbers, target } : null;
    },
    splitKey: ({ numbers }) => setKey(numbers),
    parseProblem: (json) => readProblem('countdown', problemSchema, json),
    prompt: (problem) => (o.wording === 'words' ? inWords(problem, o.operators) : terse(problem)),
    score(problem, completion) {
      const answer = extractAnswer(completion);
      return answerScore(answer !== null, answer !== null && solves(problem, answer, operators));
    },
    answerKey(_, completion) {
      const parsed = parseExpression(extractAnswer(completion) ?? '');
      return parsed.ok ? normaliseExpression(parsed.expression) : null;
    },
    measures(problem, completion) {
      const report = inspectSearch(problem, completion);
      const rules = { operators, maxIntermediate: o.maxIntermediate };
      // All plays of six numbers would take a second.
      if (problem.numbers.length > 5) return { ...report };
      return { ...report, randomSearch: randomSearchChance(problem, rules, report.tries) };
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
        maxIntermediate: o.maxIntermediate,
        experts: o.experts,
        maxTries: o.maxTries,
        trace: o.trace,
        tagged: o.tagged,
      }),
    alphabet: alphabetFor(o, '0123456789+-*/=?<>(), '),
    template: templateFor(o),
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

function terse({ numbers, target }: CountdownProblem): string {
  return `${numbers.join(' ')}=${target}?`;
}

function inWords({ numbers, target }: CountdownProblem, operators: string): string {
  return (
    `Using the numbers ${numbers.join(', ')}, write an expression that equals ${target}. ` +
    `Use each number exactly once, only the operators ${[...operators].join(' ')} and parentheses. ` +
    'Give the expression alone as the answer, for example (1 + 2) * 3.'
  );
}
