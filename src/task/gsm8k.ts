// GSM8K: grade-school word problems from OpenAI's JSONL files. A line is {"question": "Janet's ducks lay 16 eggs...",
// "answer": "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs a day.\n... #### 18"}; the number after #### is gold.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { RetortError, refuse } from '../errors.js';
import { answerScore, extractAnswer, thinkAnswer } from '../reward/answer.js';
import { lastBox, lastNumber } from '../reward/number.js';
import { defineTask } from './define.js';
import type { TaskKind } from './kind.js';
import { readOptions, readProblem } from './options.js';
import type { Task } from './task.js';

export interface Gsm8kProblem {
  readonly question: string;
  readonly answer: string;
}

const optionSchema = z.object({
  path: z.string().optional().describe('folder that holds train.jsonl and test.jsonl; must be given'),
});

export type Gsm8kOptions = z.input<typeof optionSchema>;

const problemSchema = z.object({
  question: z.string().min(1),
  answer: z.string().regex(/#### *[-$]?\.?\d/, 'there is no #### with a number behind it'),
});

const WHERE =
  'train.jsonl and test.jsonl are in github.com/openai/grade-school-math, folder grade_school_math/data';

/**
 * The gsm8k task: train.jsonl is the training split, test.jsonl the held-out one. The answer is read from the last
 * closed `<answer>`, else from the last `\boxed{}`, else from behind the last `####`; of it the last number counts.
 *
 * @throws RetortError (bad-input) without a folder that holds the files; (bad-data) for a malformed line, with the
 *   file and the number of the line.
 */
export function gsm8k(options: Gsm8kOptions = {}): Task<Gsm8kProblem> {
  const { path } = readOptions('gsm8k', optionSchema, options);
  if (path === undefined) {
    throw refuse(
      'bad-input',
      'option path of task gsm8k',
      path,
      `give the folder with the data (--task-option path=FOLDER); ${WHERE}`,
    );
  }
  const problems = {
    train: readLines(join(path, 'train.jsonl')),
    heldout: readLines(join(path, 'test.jsonl')),
  };
  const characters = new Set<string>();
  for (const p of [...problems.train, ...problems.heldout])
    for (const c of p.question + p.answer) characters.add(c);
  return defineTask<Gsm8kProblem>({
    name: 'gsm8k',
    description: GSM8K.description,
    options: { path },
    problems,
    parseProblem: (json) => readProblem('gsm8k', problemSchema, json),
    prompt: ({ question }) => question,
    score(problem, completion) {
      const answer = answerPart(completion);
      return answerScore(answer !== null, answer !== null && lastNumber(answer) === goldOf(problem));
    },
    answerKey: (_, completion) => lastNumber(answerPart(completion) ?? ''),
    gold: goldOf,
    trace(problem) {
      const working = problem.answer.slice(0, problem.answer.lastIndexOf('####'));
      return thinkAnswer(working.replace(/<<[^<>]*>>/g, '').trim(), goldOf(problem));
    },
    alphabet: [...characters].sort().join(''),
    template: 'r1',
  });
}

/** The registry's entry. */
export const GSM8K: TaskKind = {
  description: 'grade-school word problems, from the JSONL files of OpenAI',
  options: optionSchema,
  make: gsm8k,
};

function goldOf({ answer }: Gsm8kProblem): string {
  return lastNumber(answer.slice(answer.lastIndexOf('####'))) as string;
}

function answerPart(completion: string): string | null {
  const tagged = extractAnswer(completion) ?? lastBox(completion);
  if (tagged !== null) return tagged;
  const marker = completion.lastIndexOf('####');
  return marker < 0 ? null : (completion.slice(marker + 4).split('\n')[0] ?? null);
}

function readLines(file: string): Gsm8kProblem[] {
  if (!existsSync(file))
    throw refuse('bad-input', 'file of task gsm8k not found', file, `check path; ${WHERE}`);
  const problems: Gsm8kProblem[] = [];
  for (const [i, line] of readFileSync(file, 'utf8').split('\n').entries()) {
    if (line.trim() === '') continue;
    try {
      problems.push(readProblem('gsm8k', problemSchema, JSON.parse(line)));
    } catch (cause) {
      const why = cause instanceof RetortError ? cause.message : `not JSON (${(cause as Error).message})`;
      throw new RetortError('bad-data', `${file}, line ${i + 1}: ${why}; mend or remove the line`, { cause });
    }
  }
  return problems;
}
