// The options of distillation, their defaults and their checks.
import { z } from 'zod';
import { apiFields, type apiOptions } from '../api/options.js';
import { refuse } from '../errors.js';
import { SEQUENCES_AT_ONCE } from '../rollout/generate.js';
import { MAX_PROBLEMS } from './evaluate.js';
import { checkNewModelFields, newModelFields } from './new-model.js';
import { optimizerFields, parseOptions, runFields } from './options.js';
import { samplingFields } from './rollout-options.js';
import { sampleOptions } from './sample-options.js';
import { supervisedOptions } from './supervised-options.js';

const count = z.number().int().min(1);
const supervised = supervisedOptions.shape;
const sample = sampleOptions.shape;

/** The options of `retort distill`; plain JSON, as they stand in config.json. */
export const distillOptions = z.strictObject({
  teacher: z.string().describe('folder or GGUF file of the teacher; with an endpoint: the name of its model'),
  method: z
    .enum(['responses', 'logits', 'on-policy'])
    .default('responses')
    .describe(
      "learn the teacher's answers, its distributions on given sequences, or its distributions on the student's own (GKD)",
    ),
  ...newModelFields,
  model: newModelFields.model.describe('folder of the student to go on from; default: a new model'),
  tokenizer: newModelFields.tokenizer.describe(
    "folder with a new student's tokenizer; default: the teacher's, or the task's characters",
  ),
  task: z.string().optional().describe('task whose train problems are asked, or path of a module'),
  taskOptions: supervised.taskOptions,
  data: z
    .string()
    .optional()
    .describe('JSONL instead of a task: prompts to ask (responses), or prompts with completions'),
  evalData: supervised.evalData.describe('file of held-out data, for a loss on it'),
  template: supervised.template.describe("prompt template of the student; default: the task's, or raw"),
  teacherTemplate: z
    .string()
    .optional()
    .describe("prompt template of a local teacher; default: the student's"),
  system: z.string().optional().describe('system message for an API teacher'),
  // What the teacher is asked for.
  problems: count
    .optional()
    .describe('train problems that the teacher answers; default: 1000, with data all its prompts'),
  samples: count.default(1).describe('answers to each'),
  ...samplingFields,
  temperature: sample.temperature,
  correct: z
    .boolean()
    .optional()
    .describe(
      'learn right answers only; default: with a task, which tells what is right (--no-correct learns all)',
    ),
  minReward: sample.minReward.describe('learn answers with at least this reward'),
  maxPerProblem: sample.maxPerProblem.describe('learn at most so many answers to a problem; default: all'),
  choose: sample.choose,
  minLanguageShare: sample.minLanguageShare,
  maxRepetition: sample.maxRepetition,
  repetitionNgram: sample.repetitionNgram,
  maxSequences: count.default(SEQUENCES_AT_ONCE).describe('completions generated at once'),
  rewardTimeout: z.number().positive().default(10).describe('seconds that scoring an answer may take'),
  // What is learned of its distributions.
  beta: z
    .number()
    .min(0)
    .max(1)
    .optional()
    .describe(
      'divergence: 0 forward KL, 1 reverse KL, between Jensen-Shannon; default: 0 for logits, 0.5 on-policy',
    ),
  lossTemperature: z
    .number()
    .positive()
    .max(100)
    .default(1)
    .describe('what the logits of both are divided by in the divergence'),
  topLogits: count
    .optional()
    .describe("store the teacher's k likeliest tokens and learn from them; default: all, computed as needed"),
  lmbda: z
    .number()
    .min(0)
    .max(1)
    .default(0.5)
    .describe("share of steps on the student's own samples (on-policy)"),
  seqKd: z.boolean().default(false).describe('the other steps are on samples of the teacher, made anew'),
  batchSize: count.default(32).describe('completions of a step (on-policy)'),
  // The API.
  ...apiFields,
  termsAllowTraining: z
    .boolean()
    .default(false)
    .describe("you declare that the API provider's terms allow training on its outputs"),
  answers: z
    .string()
    .optional()
    .describe('file of API answers, to share between runs; default: answers.jsonl in the run'),
  // The training.
  steps: supervised.steps,
  epochs: supervised.epochs,
  batchTokens: supervised.batchTokens,
  gradientAccumulationSteps: supervised.gradientAccumulationSteps,
  ...optimizerFields,
  learningRate: supervised.learningRate.default(1e-3),
  warmupSteps: supervised.warmupSteps.default(10),
  schedule: supervised.schedule,
  minLearningRateRatio: supervised.minLearningRateRatio,
  beta2: supervised.beta2,
  weightDecay: supervised.weightDecay,
  evalEvery: supervised.evalEvery.describe(
    'steps between measurements on held-out problems or data; 0: at the end',
  ),
  evalExamples: supervised.evalExamples,
  evalProblems: z
    .number()
    .int()
    .min(0)
    .max(MAX_PROBLEMS)
    .default(200)
    .describe('held-out problems of the task that accuracy is measured on; 0: none'),
  onNonFinite: supervised.onNonFinite,
  ...runFields,
  saveEvery: runFields.saveEvery.default(100),
});
export type DistillOptions = z.output<typeof distillOptions> & {
  readonly beta: number;
  readonly correct: boolean;
  /** Undefined asks every prompt of the data. */
  readonly problems?: number;
};

/** What the client of an API needs of them. */
export function apiOptionsOf(o: DistillOptions): z.input<typeof apiOptions> {
  return Object.fromEntries(Object.keys(apiFields).map((name) => [name, o[name as keyof DistillOptions]]));
}

/** Whether the teacher answers questions before the steps, and what it answered is learned. */
export function asksTeacher({
  method,
  data,
  seqKd,
  lmbda,
}: Pick<DistillOptions, 'method' | 'data' | 'seqKd' | 'lmbda'>): boolean {
  return (
    method === 'responses' || (data === undefined && !(method === 'on-policy' && (seqKd || lmbda === 1)))
  );
}

/** Options of one method or of one kind of teacher; given to another they would do nothing. */
const ONLY: readonly (readonly [
  names: readonly (keyof DistillOptions)[],
  of: (o: DistillOptions) => boolean,
  what: string,
])[] = [
  [['beta', 'lossTemperature'], (o) => o.method !== 'responses', 'the methods logits and on-policy'],
  [['topLogits'], (o) => o.method === 'logits', 'the method logits'],
  [['lmbda', 'seqKd', 'batchSize'], (o) => o.method === 'on-policy', 'the method on-policy'],
  [['gradientAccumulationSteps'], (o) => o.method !== 'on-policy', 'the methods responses and logits'],
  [
    [
      ...(['samples', 'correct', 'minReward', 'maxPerProblem', 'choose'] as const),
      ...(['minLanguageShare', 'maxRepetition', 'repetitionNgram'] as const),
    ],
    asksTeacher,
    'answers of the teacher, and nothing is asked of the teacher here',
  ],
  [['teacherTemplate'], (o) => o.endpoint === undefined, 'a local teacher'],
  [
    ['system', 'answers', 'termsAllowTraining', ...(Object.keys(apiFields) as (keyof DistillOptions)[])],
    (o) => o.endpoint !== undefined,
    'an API teacher (--endpoint)',
  ],
];

/**
 * Checks options against each other and fills what depends on them.
 * @param resumed whether they are those of a run: its options have their defaults filled in
 * @throws RetortError bad-input naming the option, its value and the remedy
 */
export function settleDistillOptions(
  given: z.input<typeof distillOptions>,
  resumed: boolean,
): DistillOptions {
  const parsed = parseOptions('distill', distillOptions, given);
  const o: DistillOptions = {
    ...parsed,
    beta: parsed.beta ?? (parsed.method === 'on-policy' ? 0.5 : 0),
    correct: parsed.correct ?? parsed.task !== undefined,
    problems: parsed.problems ?? (parsed.task === undefined ? undefined : 1000),
  };
  if (!resumed) {
    checkNewModelFields('distill', given);
    for (const [names, of, what] of ONLY) {
      if (of(o)) continue;
      for (const name of names)
        if (given[name] !== undefined)
          throw refuse(
            'bad-input',
            `option ${name} of distill`,
            given[name],
            `it is for ${what}: leave it out`,
          );
    }
  }
  if (!o.task === !o.data)
    throw refuse(
      'bad-input',
      'what distill asks',
      { task: o.task, data: o.data },
      'give either a task or data',
    );
  for (const name of ['correct', 'minReward'] as const)
    if (o[name] && !o.task)
      throw refuse(
        'bad-input',
        `${name} without a task`,
        o[name],
        'only a task tells what is right: leave it out',
      );
  if (o.temperature === 0 && o.samples > 1) {
    const remedy = 'they would all be the same: give a temperature, or one sample';
    throw refuse('bad-input', 'samples at temperature 0', o.samples, remedy);
  }
  if (o.endpoint !== undefined) checkApiTeacher(o);
  return o;
}

function checkApiTeacher(o: DistillOptions): void {
  if (o.method !== 'responses')
    throw refuse(
      'bad-input',
      'method with an API teacher',
      o.method,
      'an API gives texts, not distributions over its tokens: use --method responses',
    );
  if (!o.termsAllowTraining)
    throw refuse(
      'bad-input',
      'termsAllowTraining with an API teacher',
      false,
      `the terms of many providers forbid training models on their outputs: read those of ${o.endpoint}, and give --terms-allow-training if they allow it`,
    );
  if (o.maxCompletionLength === undefined)
    throw refuse(
      'bad-input',
      'maxCompletionLength',
      undefined,
      'say how many tokens an API answer may cost at most',
    );
  const unheard = { topK: o.topK !== 0, minP: o.minP !== 0 };
  for (const [name, set] of Object.entries(unheard))
    if (set)
      throw refuse(
        'bad-input',
        `${name} with an API teacher`,
        o[name as 'topK'],
        'the OpenAI API has no such parameter',
      );
}
