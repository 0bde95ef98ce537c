// Letter count: how many r are in strawberry?
import { z } from 'zod';
import { numberKey, numberScore } from '../reward/number.js';
import { defineTask } from './define.js';
import type { TaskKind } from './kind.js';
import { readOptions, readProblem } from './options.js';
import { type Random, randomFor } from './random.js';
import type { Task } from './task.js';
import { alphabetFor, noiseOption, templateFor, traceOptions, wordingOption, writeTrace } from './wording.js';
import { WORDS } from './words.js';

export interface LetterCountProblem {
  readonly word: string;
  readonly letter: string;
}

const LETTERS = 'abcdefghijklmnopqrstuvwxyz';

const optionSchema = z.object({
  words: z
    .enum(['english', 'random'])
    .default('english')
    .describe('English words, or strings of random letters'),
  wording: wordingOption,
  noise: noiseOption('letter that counts'),
  ...traceOptions,
});

export type LetterCountOptions = z.input<typeof optionSchema>;

const problemSchema = z.object({
  word: z.string().min(1).max(100),
  letter: z.string().length(1, 'give one character'),
});

const countOf = ({ word, letter }: LetterCountProblem) => String(word.split(letter).length - 1);

/** The letter-count task. Problems are split by the word. Three in four letters asked for are in the word. */
export function letterCount(options: LetterCountOptions = {}): Task<LetterCountProblem> {
  const o = readOptions('letter-count', optionSchema, options);
  return defineTask<LetterCountProblem>({
    name: 'letter-count',
    description: LETTER_COUNT.description,
    options: o,
    make(random) {
      const word = o.words === 'english' ? random.pick(WORDS) : randomWord(random);
      return { word, letter: random.pick([...(random.chance(0.75) ? word : LETTERS)]) };
    },
    splitKey: ({ word }) => word,
    parseProblem: (json) => readProblem('letter-count', problemSchema, json),
    prompt: ({ word, letter }) =>
      o.wording === 'words' ? `How many times is the letter ${letter} in ${word}?` : `${letter} in ${word}=?`,
    score: (problem, completion) => numberScore(completion, countOf(problem)),
    answerKey: (_, completion) => numberKey(completion),
    gold: countOf,
    trace({ word, letter }, seed) {
      // The word is spelled out; after each letter that counts stands the count so far: str1awber2r3y.
      const random = randomFor('letter-count trace', seed, letter, word);
      let count = 0;
      let spelled = '';
      for (const c of word) {
        const slip = c === letter && random.chance(o.noise);
        // Half of the slips skip the letter; the others pass it without counting.
        if (slip && random.chance(0.5)) continue;
        spelled += c === letter && !slip ? `${c}${++count}` : c;
      }
      return writeTrace(spelled, String(count), o, random);
    },
    alphabet: alphabetFor(o, `${LETTERS}0123456789 =?`),
    template: templateFor(o),
  });
}

/** The registry's entry. */
export const LETTER_COUNT: TaskKind = {
  description: 'how many times a letter is in a word',
  options: optionSchema,
  make: letterCount,
};

// Few different letters, so that repeats are common.
function randomWord(random: Random): string {
  const letters = random.shuffle([...LETTERS]).slice(0, 5);
  return Array.from({ length: random.integer(4, 9) }, () => random.pick(letters)).join('');
}
