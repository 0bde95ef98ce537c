// Where supervised examples come from: a task's traces, made as they are needed, or a file, shuffled anew each epoch.
import { extname } from 'node:path';
import { RetortError, refuse } from '../errors.js';
import { permutation } from '../random.js';
import type { Split, Task } from '../task/task.js';
import { checkFits, type Example, encodePair, loadExamples, readDocuments } from '../text/dataset.js';
import { completionToLearn, type PromptTemplate } from '../text/template.js';
import type { Tokenizer } from '../text/tokenizer.js';

export interface ExampleSource {
  /** Examples of an epoch; null where they never end. */
  readonly size: number | null;
  /** Example number `index` of the whole training, epochs one after another. */
  at(index: number): Example;
}

/** Traces of a task, one a problem. @throws RetortError bad-input where the task has none, or one does not fit */
export function traceExamples(
  task: Task,
  split: Split,
  tokenizer: Tokenizer,
  template: PromptTemplate,
  seed: number,
  context: number,
): ExampleSource {
  const { trace } = task;
  if (!trace) {
    throw refuse(
      'bad-input',
      'task to learn from',
      task.name,
      'it has no worked traces: give data instead (--data)',
    );
  }
  const size = task.size?.[split] ?? null;
  return {
    size,
    at(index) {
      const problem = task.problem(split, size === null ? index : index % size, seed);
      const prompt = template.render(task.prompt(problem));
      const completion = completionToLearn(template, trace(problem, seed + index));
      const example = encodePair(tokenizer, prompt, completion, template.addSpecialTokens);
      checkFits(example, context, `tokens of ${split} example ${index} of task ${task.name}`);
      return example;
    },
  };
}

/** Examples of a JSONL file with prompts and completions or messages. */
export function fileExamples(
  path: string,
  tokenizer: Tokenizer,
  template: PromptTemplate,
  seed: number,
  context: number,
): ExampleSource {
  return shuffled(loadExamples(path, tokenizer, { template, context }), seed);
}

/** Documents of a text or JSONL file, cut into pieces of at most `length` tokens; every token but the first is learned. */
export function documentExamples(
  path: string,
  tokenizer: Tokenizer,
  length: number,
  seed: number,
): ExampleSource {
  const pieces: Example[] = [];
  for (const ids of readDocuments(path, tokenizer)) {
    // Neighbouring pieces share a token: the last of one is the first, given one of the next.
    for (let start = 0; start < ids.length - 1; start += length - 1) {
      pieces.push(wholeText(ids.slice(start, start + length)));
    }
  }
  if (pieces.length === 0)
    throw new RetortError('bad-data', `${path} holds no two tokens to learn from; give more text`);
  return shuffled(pieces, seed);
}

/** An example in which everything after the first token is learned. */
export function wholeText(ids: readonly number[]): Example {
  return { promptIds: ids.slice(0, 1), completionIds: ids.slice(1) };
}

/** Whether a path names a conversation or pair file rather than text. */
export function isJsonl(path: string): boolean {
  return ['.jsonl', '.ndjson'].includes(extname(path));
}

/** Examples in an order drawn anew for each epoch. */
export function shuffled(examples: readonly Example[], seed: number): ExampleSource {
  const size = examples.length;
  let epoch = -1;
  let order = permutation(0, seed, 0);
  return {
    size,
    at(index) {
      const wanted = Math.floor(index / size);
      if (wanted !== epoch) {
        epoch = wanted;
        order = permutation(size, seed, epoch);
      }
      return examples[order[index % size]];
    },
  };
}
