// Number sort: put a few numbers in ascending order, for instance 38 5 71=?
import { z } from 'zod';
import { refuse } from '../errors.js';
import { answerScore, extractAnswer } from '../reward/answer.js';
import { defineTask } from './define.js';
import type { TaskKind } from './kind.js';
import { readOptions, readProblem } from './options.js';
import { randomFor } from './random.js';
import type { Task } from './task.js';
import { alphabetFor, noiseOption, templateFor, traceOptions, wordingOption, writeTrace } from './wording.js';

export interface NumberSortProblem {
  readonly numbers: readonly number[];
}

const optionSchema = z.object({
  minCount: z.int().min(2).max(50).default(4).describe('fewest numbers'),
  maxCount: z.int().min(2).max(50).default(5).describe('most numbers'),
  maxNumber: z.int().min(1).max(1_000_000).default(99).describe('numbers are from 0 to this'),
  wording: wordingOption,
  noise: noiseOption('number'),
  ...traceOptions,
});

export type NumberSortOptions = z.input<typeof optionSchema>;

const problemSchema = z.object({ numbers: z.array(z.int()).min(1).max(1000) });
const sorted = (numbers: readonly number[]) => [...numbers].sort((a, b) => a - b).join(' ');

/** The number-sort task. Problems are split by the set of numbers, whatever their order. */
export function numberSort(options: NumberSortOptions = {}): Task<NumberSortProblem> {
  const o = readOptions('number-sort', optionSchema, options);
  if (o.minCount > o.maxCount) {
    throw refuse('bad-input', 'minCount of task number-sort', o.minCount, `maxCount is ${o.maxCount}`);
  }
  return defineTask<NumberSortProblem>({
    name: 'number-sort',
    description: NUMBER_SORT.description,
    options: o,
    make(random) {
      const count = random.integer(o.minCount, o.maxCount);
      return { numbers: Array.from({ length: count }, () => random.integer(0, o.maxNumber)) };
    },
    splitKey: ({ numbers }) => sorted(numbers),
    parseProblem: (json) => readProblem('number-sort', problemSchema, json),
    prompt: ({ numbers }) =>
      o.wording === 'words'
        ? `Sort these numbers in ascending order, separated by spaces: ${numbers.join(' ')}`
        : `${numbers.join(' ')}=?`,
    score({ numbers }, completion) {
      const answer = listOf(completion);
      return answerScore(answer !== null, answer === sorted(numbers));
    },
    answerKey: (_, completion) => listOf(completion),
    gold: ({ numbers }) => sorted(numbers),
    trace({ numbers }, seed) {
      // Insertion, one number after the other; every state is written down.
      const random = randomFor('number-sort trace', seed, ...numbers);
      const states: string[] = [];
      let done: number[] = [];
      for (const n of numbers) {
        let at = done.findIndex((m) => m > n);
        if (at < 0) at = done.length;
        // Half of the slips leave the number out; the others put it at a random place.
        if (random.chance(o.noise)) {
          if (random.chance(0.5)) continue;
          at = random.integer(0, done.length);
        }
        done = done.toSpliced(at, 0, n);
        states.push(done.join(' '));
      }
      // The last state is the answer itself.
      return writeTrace(states.slice(0, -1).join(';'), done.join(' '), o, random);
    },
    kind: ({ numbers }) => `${numbers.length} numbers`,
    alphabet: alphabetFor(o, '0123456789 -=?;'),
    template: templateFor(o),
  });
}

/** The registry's entry. */
export const NUMBER_SORT: TaskKind = {
  description: 'put a few numbers in ascending order',
  options: optionSchema,
  make: numberSort,
};

// Brackets and commas between the numbers are seen through; anything else stays and makes the answer wrong.
function listOf(completion: string): string | null {
  const answer = extractAnswer(completion);
  return answer === null ? null : answer.replace(/[[\],\s]+/g, ' ').trim();
}
