// The options of supervised learning, their defaults and their checks.
import { z } from 'zod';
import { refuse } from '../errors.js';
import { checkNewModelFields, newModelFields } from './new-model.js';
import { optimizerFields, parseOptions, runFields } from './options.js';

export type SupervisedCommand = 'sft' | 'pretrain';

/** The options of `retort sft` and `retort pretrain`; plain JSON, as they stand in config.json. */
export const supervisedOptions = z.strictObject({
  ...newModelFields,
  task: z.string().optional().describe('learn the traces of this task (name, or path of a module)'),
  taskOptions: z.record(z.string(), z.unknown()).default({}).describe('options of the task'),
  data: z
    .string()
    .optional()
    .describe('file to learn from instead: JSONL of prompt/completion, messages or text; plain text'),
  evalData: z
    .string()
    .optional()
    .describe('file of held-out data; default with a task: its held-out problems'),
  template: z.string().optional().describe("prompt template; default: the task's, or raw"),
  steps: z.number().int().min(1).optional().describe('optimizer steps; default: as the epochs say, or 1000'),
  epochs: z.number().positive().optional().describe('passes over the data'),
  batchTokens: z
    .number()
    .int()
    .min(1)
    .default(1536)
    .describe('tokens packed into one forward and backward pass'),
  gradientAccumulationSteps: z
    .number()
    .int()
    .min(1)
    .default(1)
    .describe('passes that make one optimizer step'),
  ...optimizerFields,
  learningRate: optimizerFields.learningRate.default(2e-3),
  warmupSteps: optimizerFields.warmupSteps.default(50),
  schedule: optimizerFields.schedule.default('cosine'),
  minLearningRateRatio: optimizerFields.minLearningRateRatio.default(0.02),
  beta2: optimizerFields.beta2.default(0.95),
  weightDecay: optimizerFields.weightDecay.default(0.05),
  evalEvery: z
    .number()
    .int()
    .min(0)
    .default(0)
    .describe('steps between losses on held-out data; 0: only at the end'),
  evalExamples: z.number().int().min(1).default(200).describe('held-out examples of such a loss'),
  onNonFinite: z
    .enum(['stop', 'skip'])
    .default('stop')
    .describe('an infinite or NaN gradient ends the run or skips the update'),
  ...runFields,
  saveEvery: runFields.saveEvery.default(500),
});
export type SupervisedOptions = z.output<typeof supervisedOptions>;

/**
 * Checks options against each other.
 * @param given the options as given, a task by its name
 * @param resumed whether they are those of a run: its options have their defaults filled in
 * @throws RetortError bad-input naming the option, its value and the remedy
 */
export function settleSupervisedOptions(
  command: SupervisedCommand,
  given: z.input<typeof supervisedOptions>,
  resumed: boolean,
): SupervisedOptions {
  const o = parseOptions(command, supervisedOptions, given);
  if (!resumed) checkNewModelFields(command, given);
  if (!o.task === !o.data) {
    throw refuse(
      'bad-input',
      `what ${command} learns from`,
      { task: o.task, data: o.data },
      'give either a task or data',
    );
  }
  return o;
}
