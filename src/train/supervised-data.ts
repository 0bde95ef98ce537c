// What a supervised run learns from: its sources, checked, and how many steps they make.
import { refuse } from '../errors.js';
import type { Split, Task } from '../task/task.js';
import type { Example } from '../text/dataset.js';
import { getTemplate } from '../text/template.js';
import { documentExamples, type ExampleSource, fileExamples, traceExamples, wholeText } from './examples.js';
import { tokensOf } from './packing.js';
import type { PolicyPlan } from './policy.js';
import type { SupervisedCommand, SupervisedOptions } from './supervised-options.js';

export interface Prepared {
  readonly train: ExampleSource;
  readonly heldout: ExampleSource | null;
  readonly steps: number;
}

/** Reads and checks the data: wrong data must not begin a run. @throws RetortError bad-input, bad-data */
export function prepareData(
  command: SupervisedCommand,
  o: SupervisedOptions,
  task: Task | null,
  policy: PolicyPlan,
): Prepared {
  const train = sourceOf(command, o, task, policy, 'train') as ExampleSource;
  const heldout = sourceOf(command, o, task, policy, 'heldout');
  if (task) checkTraces(train, 1000);
  if (task && heldout) checkTraces(heldout, o.evalExamples);
  return { train, heldout, steps: o.steps ?? stepsOfEpochs(train, o) };
}

/** Where a command's examples come from; null where there are no held-out ones. */
function sourceOf(
  command: SupervisedCommand,
  o: SupervisedOptions,
  task: Task | null,
  { config, tokenizer }: PolicyPlan,
  split: Split,
): ExampleSource | null {
  const context = config.maxPositionEmbeddings;
  if (task) {
    const template = getTemplate(o.template ?? task.template, tokenizer);
    const source = traceExamples(task, split, tokenizer, template, o.seed, context);
    if (command === 'sft') return source;
    return {
      size: source.size,
      at(index) {
        const { promptIds, completionIds } = source.at(index);
        return wholeText([...promptIds, ...completionIds]);
      },
    };
  }
  const path = split === 'train' ? o.data : o.evalData;
  if (!path) return null;
  if (command === 'pretrain') return documentExamples(path, tokenizer, context, o.seed);
  return fileExamples(path, tokenizer, getTemplate(o.template ?? 'raw', tokenizer), o.seed, context);
}

/** Makes a task's traces, all of a data set and some of those that never end: a wrong one is refused now. */
function checkTraces(source: ExampleSource, some: number): void {
  for (let i = 0; i < (source.size ?? some); i++) source.at(i);
}

/** Optimizer steps that cover the epochs. */
export function stepsOfEpochs(
  source: ExampleSource,
  o: Pick<SupervisedOptions, 'epochs' | 'batchTokens' | 'gradientAccumulationSteps'>,
): number {
  if (source.size === null) {
    if (o.epochs !== undefined)
      throw refuse('bad-input', 'epochs of an endless source', o.epochs, 'give steps instead');
    return 1000;
  }
  const examples = Math.ceil((o.epochs ?? 1) * source.size);
  let steps = 0;
  for (let at = 0; at < examples; steps++) {
    at = take(source, at, o.batchTokens * o.gradientAccumulationSteps).next;
  }
  return steps;
}

/** The next examples that fit into `tokens`, one at least. */
export function take(
  source: ExampleSource,
  from: number,
  tokens: number,
): { examples: Example[]; next: number } {
  const examples: Example[] = [];
  let next = from;
  for (let total = 0; ; next++) {
    const example = source.at(next);
    total += tokensOf(example);
    if (examples.length > 0 && total > tokens) return { examples, next };
    examples.push(example);
  }
}
