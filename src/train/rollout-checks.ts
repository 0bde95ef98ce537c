// Checks of a run with rollouts before anything is generated: whether the task's prompts fit the model.
import { refuse } from '../errors.js';
import type { LlamaConfig } from '../model/config.js';
import type { Split, Task } from '../task/task.js';
import { encodePrompt, getTemplate, type PromptTemplate } from '../text/template.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { evaluationProblems } from './rollout-evaluation.js';
import type { RolloutOptions } from './rollout-options.js';

export function promptTemplate(
  o: { readonly template?: string },
  task: Task,
  tokenizer: Tokenizer,
): PromptTemplate {
  return getTemplate(o.template ?? task.template, tokenizer);
}

/** @throws RetortError bad-input for a prompt of `length` tokens that leaves no room for a completion */
export function checkPrompt(task: Task, split: Split, index: number, length: number, context: number): void {
  if (length < context) return;
  const remedy = `the model's context is ${context}: give another template or options with shorter prompts, or a model with a longer context`;
  throw refuse('bad-input', `tokens of ${split} prompt ${index} of task ${task.name}`, length, remedy);
}

/**
 * @param rounds of sampling in a step, at most
 * @throws RetortError bad-input for a model that the task does not fit
 */
export function checkFit(
  { maxPositionEmbeddings: context }: LlamaConfig,
  tokenizer: Tokenizer,
  task: Task,
  template: PromptTemplate,
  o: RolloutOptions,
  rounds = 1,
): void {
  const check = (split: Split, problems: readonly unknown[]) => {
    for (const [i, problem] of problems.entries()) {
      const { length } = encodePrompt(template, tokenizer, task.prompt(problem));
      checkPrompt(task, split, i, length, context);
    }
  };
  // All that a data set has, as far as the run will come; of endless problems some.
  const asked = (o.steps * rounds * o.batchSize) / o.numGenerations;
  const length = Math.min(asked, task.size?.train ?? 1000);
  check(
    'train',
    Array.from({ length }, (_, i) => task.problem('train', i, o.seed)),
  );
  check('heldout', evaluationProblems(task, o));
  if (o.maxCompletionLength >= context) {
    throw refuse(
      'bad-input',
      'maxCompletionLength',
      o.maxCompletionLength,
      `the model's context is ${context}, prompt included: give less`,
    );
  }
}
