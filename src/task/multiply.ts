// Multiply: the product of two numbers by partial products, for instance 34*27=?
import { z } from 'zod';
import { numberKey, numberScore } from '../reward/number.js';
import { defineTask } from './define.js';
import type { TaskKind } from './kind.js';
import { readOptions, readProblem } from './options.js';
import { randomFor } from './random.js';
import type { Task } from './task.js';
import { alphabetFor, noiseOption, templateFor, traceOptions, wordingOption, writeTrace } from './wording.js';

export interface MultiplyProblem {
  readonly a: number;
  readonly b: number;
}

const digits = z.int().min(1).max(7);

const optionSchema = z.object({
  digits: digits.default(2).describe('digits of the first factor'),
  byDigits: digits.default(2).describe('digits of the second factor'),
  wording: wordingOption,
  noise: noiseOption('step'),
  ...traceOptions,
});

export type MultiplyOptions = z.input<typeof optionSchema>;

const factor = z.int().min(-9_999_999).max(9_999_999);
const problemSchema = z.object({ a: factor, b: factor });

/** The multiply task. A product and the same one turned round are in the same split. */
export function multiply(options: MultiplyOptions = {}): Task<MultiplyProblem> {
  const o = readOptions('multiply', optionSchema, options);
  return defineTask<MultiplyProblem>({
    name: 'multiply',
    description: MULTIPLY.description,
    options: o,
    make(random) {
      const withDigits = (n: number) => random.integer(10 ** (n - 1), 10 ** n - 1);
      return { a: withDigits(o.digits), b: withDigits(o.byDigits) };
    },
    splitKey: ({ a, b }) => `${Math.min(a, b)} ${Math.max(a, b)}`,
    parseProblem: (json) => readProblem('multiply', problemSchema, json),
    prompt: ({ a, b }) => (o.wording === 'words' ? `What is ${a} * ${b}?` : `${a}*${b}=?`),
    score: ({ a, b }, completion) => numberScore(completion, String(a * b)),
    answerKey: (_, completion) => numberKey(completion),
    gold: ({ a, b }) => String(a * b),
    trace({ a, b }, seed) {
      const random = randomFor('multiply trace', seed, a, b);
      // Half of the slips leave the step out; the others miss the result by one or by ten.
      const step = (left: number, operator: '*' | '+', right: number, exact: number): number | null => {
        const slip = random.chance(o.noise);
        if (slip && random.chance(0.5)) return null;
        const result = exact + (slip ? random.pick([-10, -1, 1, 10]) : 0);
        steps.push(`${left}${operator}${right}=${result}`);
        return result;
      };
      const steps: string[] = [];
      // The factor with more digits is taken apart: 34*7 is 30*7 and 4*7.
      const [apart, other] = String(a).length > String(b).length ? [a, b] : [b, a];
      const parts = [...String(Math.abs(apart))]
        .map((digit, i, all) => Math.sign(apart) * Number(digit) * 10 ** (all.length - 1 - i))
        .filter((part) => part !== 0);
      let sum: number | null = null;
      for (const part of parts) {
        const product = step(part, '*', other, part * other);
        if (product === null) continue;
        sum = sum === null ? product : (step(sum, '+', product, sum + product) ?? sum);
      }
      return writeTrace(steps.join(';'), String(sum ?? 0), o, random);
    },
    alphabet: alphabetFor(o, '0123456789*+-=?;'),
    template: templateFor(o),
  });
}

/** The registry's entry. */
export const MULTIPLY: TaskKind = {
  description: 'the product of two numbers, by partial products',
  options: optionSchema,
  make: multiply,
};
