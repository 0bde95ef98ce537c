// Chain sum: add and take away a few numbers, for instance 12+7-3=?
import { z } from 'zod';
import { refuse } from '../errors.js';
import { numberKey, numberScore } from '../reward/number.js';
import { defineTask } from './define.js';
import type { TaskKind } from './kind.js';
import { readOptions, readProblem } from './options.js';
import { randomFor } from './random.js';
import type { Task } from './task.js';
import { alphabetFor, noiseOption, templateFor, traceOptions, wordingOption, writeTrace } from './wording.js';

/** Signed whole numbers to add up; the first is not negative. */
export interface ChainSumProblem {
  readonly terms: readonly number[];
}

const optionSchema = z.object({
  minTerms: z.int().min(2).max(20).default(3).describe('fewest terms'),
  maxTerms: z.int().min(2).max(20).default(4).describe('most terms'),
  maxNumber: z.int().min(1).max(1_000_000).default(50).describe('terms are from 1 to this'),
  wording: wordingOption,
  order: z
    .enum(['given', 'any'])
    .default('given')
    .describe('order in which traces take the terms: as given, or another one for each trace'),
  noise: noiseOption('step'),
  ...traceOptions,
});

export type ChainSumOptions = z.input<typeof optionSchema>;

const problemSchema = z.object({ terms: z.array(z.int()).min(1).max(100) });
const total = (terms: readonly number[]) => terms.reduce((sum, term) => sum + term, 0);
const signed = (term: number) => (term < 0 ? `${term}` : `+${term}`);

/** The chain-sum task. No running total is negative, but where traces take the terms in any order. Problems are split by the set of numbers, whatever the signs. */
export function chainSum(options: ChainSumOptions = {}): Task<ChainSumProblem> {
  const o = readOptions('chain-sum', optionSchema, options);
  if (o.minTerms > o.maxTerms) {
    throw refuse('bad-input', 'minTerms of task chain-sum', o.minTerms, `maxTerms is ${o.maxTerms}`);
  }
  return defineTask<ChainSumProblem>({
    name: 'chain-sum',
    description: CHAIN_SUM.description,
    options: o,
    make(random) {
      const terms = [random.integer(1, o.maxNumber)];
      for (let count = random.integer(o.minTerms, o.maxTerms); terms.length < count; ) {
        const term = random.integer(1, o.maxNumber);
        terms.push(random.chance(0.5) && term <= total(terms) ? -term : term);
      }
      return { terms };
    },
    splitKey: ({ terms }) =>
      terms
        .map(Math.abs)
        .sort((a, b) => a - b)
        .join(' '),
    parseProblem: (json) => readProblem('chain-sum', problemSchema, json),
    prompt({ terms }) {
      const sum = `${terms[0]}${terms.slice(1).map(signed).join('')}`;
      return o.wording === 'words' ? `What is ${sum.replace(/\B[-+]/g, ' $& ')}?` : `${sum}=?`;
    },
    score: ({ terms }, completion) => numberScore(completion, String(total(terms))),
    answerKey: (_, completion) => numberKey(completion),
    gold: ({ terms }) => String(total(terms)),
    trace({ terms }, seed) {
      const random = randomFor('chain-sum trace', seed, ...terms);
      const steps: string[] = [];
      const [first, ...rest] = o.order === 'any' ? random.shuffle(terms) : terms;
      let sum = first;
      for (const term of rest) {
        const slip = random.chance(o.noise);
        // Half of the slips skip the term; the others miss the result by one or by ten.
        if (slip && random.chance(0.5)) continue;
        const result = sum + term + (slip ? random.pick([-10, -1, 1, 10]) : 0);
        steps.push(`${sum}${signed(term)}=${result}`);
        sum = result;
      }
      return writeTrace(steps.join(';'), String(sum), o, random);
    },
    kind: ({ terms }) => `${terms.length} terms`,
    alphabet: alphabetFor(o, '0123456789+-=?;'),
    template: templateFor(o),
  });
}

/** The registry's entry. */
export const CHAIN_SUM: TaskKind = {
  description: 'add and take away a few numbers, step by step',
  options: optionSchema,
  make: chainSum,
};
