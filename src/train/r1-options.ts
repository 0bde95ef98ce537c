// The configuration of R1's pipeline: its tasks, and what each stage does differently from the defaults.
import { z } from 'zod';
import { refuse } from '../errors.js';
import { type MixMemberOption, mixMember } from '../task/mix.js';
import { MAX_PROBLEMS } from './evaluate.js';
import { type grpoOptions, settleGrpoOptions } from './grpo-options.js';
import { parseOptions, runFields } from './options.js';
import { type SampleOptions, type sampleOptions, settleSampleOptions } from './sample-options.js';
import type { SupervisedInput } from './supervised.js';
import { settleSupervisedOptions } from './supervised-options.js';

const count = z.number().int().min(1);
const members = z.array(mixMember);

/** Examples to imitate: worked traces of tasks, a file, or both. */
const examplesSchema = z.strictObject({
  tasks: members.default([]).describe('tasks whose worked traces are learned, with options of their own'),
  examples: count.default(200).describe('traces of each of these tasks'),
  data: z.string().optional().describe('JSONL file of prompt and completion, as sft reads it'),
});
export type ExamplesOption = z.output<typeof examplesSchema>;

/** What the pipeline gives every stage itself. */
const GIVEN = [
  ...['model', 'task', 'taskOptions', 'data', 'template', 'out', 'save', 'seed', 'threads', 'evalEnds'],
];

/**
 * What a stage sets of its loop's options; they are checked by the loop's own schema, which also has the defaults.
 * @param own what the stage has beside them
 */
function stage<T extends z.ZodRawShape>(own: T) {
  return z.looseObject(own).superRefine((given, context) => {
    for (const name of GIVEN)
      if (name in given)
        context.addIssue({ code: 'custom', path: [name], message: 'the pipeline sets it: leave it out' });
  });
}

export const r1Options = z.strictObject({
  base: z.string().describe('folder or GGUF file of the base model'),
  out: z.string().describe('folder of the pipeline: a run for each stage, stages.json'),
  tasks: members.min(1).describe('tasks with rules: names, or {"task", "options", "weight"}'),
  template: z.string().optional().describe("prompt template of every stage; default: the tasks'"),
  zero: z.boolean().default(false).describe('R1-Zero: the base and rewards alone'),
  seed: runFields.seed,
  threads: runFields.threads,
  evalProblems: count.max(MAX_PROBLEMS).default(200).describe('held-out problems of each task after a stage'),
  coldStart: stage({ from: examplesSchema }).optional().describe('stage 1: SFT on few examples'),
  reasoning: stage({}).default({}).describe('stage 2: RL on the tasks; also the one stage of R1-Zero'),
  rejection: stage({}).default({}).describe('stage 3: what is sampled of stage 2 and kept'),
  sft: stage({ general: examplesSchema.optional().describe('further examples beside what was kept') })
    .default({})
    .describe('stage 3: SFT of the base on what was kept'),
  final: stage({ tasks: members.default([]).describe('further tasks of stage 4, judged ones for instance') })
    .prefault({})
    .describe('stage 4: RL on all tasks'),
});
export type R1Options = z.output<typeof r1Options>;

/** The task and its options as a loop takes them: the one, or a mix. */
export function taskOf(tasks: readonly MixMemberOption[]): {
  readonly task: string;
  readonly taskOptions: Record<string, unknown>;
} {
  const [only, ...others] = tasks;
  if (others.length > 0) return { task: 'mix', taskOptions: { tasks } };
  return typeof only === 'string'
    ? { task: only, taskOptions: {} }
    : { task: only.task, taskOptions: { ...only.options } };
}

/** Rewards of RL where a stage names none: the format's beside the tasks' own. */
const FORMAT = ['think-format'];
/** R1 adds the share of the words in the target language, which costs accuracy and makes thoughts readable. */
const READABLE = [...FORMAT, 'language-consistency'];

/** What a stage's loop is called with. */
export interface StageInputs {
  readonly coldStart: SupervisedInput;
  readonly reasoning: z.input<typeof grpoOptions>;
  readonly rejection: z.input<typeof sampleOptions>;
  readonly sft: SupervisedInput;
  readonly final: z.input<typeof grpoOptions>;
  readonly zero: z.input<typeof grpoOptions>;
}

/** The seed of stage n: the same problems in another order would teach less. */
const SEEDS_APART = 1000;

/** The options of every stage; folders and models of earlier stages are filled in as the pipeline comes to them. */
export function stageInputs(o: R1Options, model: string, out: string): StageInputs {
  const { from: _, ...coldStart } = o.coldStart ?? { from: null };
  const { general: __, ...sftOptions } = o.sft;
  const { tasks: more, ...final } = o.final;
  const common = (stage: number) => ({
    ...(o.template !== undefined && { template: o.template }),
    ...(o.threads !== undefined && { threads: o.threads }),
    seed: o.seed + SEEDS_APART * stage,
    model,
    out,
  });
  const rl = { evalEnds: false, ...taskOf(o.tasks) };
  return {
    coldStart: { ...coldStart, ...common(1) },
    reasoning: { rewards: READABLE, ...o.reasoning, ...rl, ...common(2) },
    rejection: { ...o.rejection, ...taskOf(o.tasks), ...common(3) },
    sft: { ...sftOptions, ...common(3) },
    final: { rewards: READABLE, ...final, ...rl, ...taskOf([...o.tasks, ...more]), ...common(4) },
    zero: { rewards: FORMAT, ...o.reasoning, ...rl, ...common(2) },
  };
}

/**
 * Checks the configuration and every stage's options, before anything is trained.
 * @throws RetortError bad-input naming the option, its value and the remedy
 */
export function settleR1Options(given: unknown): R1Options {
  const o = parseOptions('r1', r1Options, given);
  const inputs = stageInputs(o, o.base, o.out);
  settleGrpoOptions(o.zero ? inputs.zero : inputs.reasoning);
  if (o.zero) return o;
  if (!o.coldStart)
    throw refuse(
      'bad-input',
      'coldStart of r1',
      undefined,
      'say what the base imitates first, or give --zero',
    );
  for (const [name, examples] of [
    ['coldStart.from', o.coldStart.from],
    ['sft.general', o.sft.general],
  ] as const) {
    if (examples && examples.tasks.length === 0 && examples.data === undefined)
      throw refuse(
        'bad-input',
        `${name} of r1`,
        examples,
        'name tasks whose traces are learned, or a file (data)',
      );
  }
  settleSupervisedOptions('sft', { ...inputs.coldStart, data: 'examples' } as never, false);
  settleSampleOptions(inputs.rejection);
  settleSupervisedOptions('sft', { ...inputs.sft, data: 'examples' } as never, false);
  settleGrpoOptions(inputs.final);
  return o;
}

export type { SampleOptions };
