// The options of rejection sampling, their defaults and their checks.
import { z } from 'zod';
import { refuse } from '../errors.js';
import { MAX_PROBLEMS } from './evaluate.js';
import { parseOptions, runFields } from './options.js';
import { passFields, samplingFields, scoringFields, taskFields } from './rollout-options.js';

const count = z.number().int().min(1);
const share = z.number().min(0).max(1);

/** The options of `retort sample`; plain JSON, as they stand in config.json. */
export const sampleOptions = z.strictObject({
  ...taskFields,
  model: z.string().describe('folder or GGUF file of the model to sample from'),
  out: z.string().describe('folder of the run: data.jsonl is the data set'),
  problems: count.max(MAX_PROBLEMS).default(500).describe('different problems of the train split'),
  firstProblem: z
    .number()
    .int()
    .min(0)
    .default(0)
    .describe('index of the train split to begin at, to go on where another run ended'),
  samples: count.default(8).describe('completions of each problem'),
  ...scoringFields,
  correct: z.boolean().default(true).describe('keep right completions only'),
  minReward: z.number().optional().describe('keep completions with at least this reward'),
  maxPerProblem: count.optional().describe('keep at most so many completions of a problem; default: all'),
  choose: z
    .enum(['first', 'shortest', 'reward'])
    .default('first')
    .describe('which of a problem are kept where there are more: the first, the shortest, the best rewarded'),
  minLanguageShare: share
    .default(1)
    .describe("least share of a completion's letters in the scripts of its prompt; 0 keeps all"),
  maxRepetition: share
    .default(0.3)
    .describe("greatest share of a completion's n-grams that stood in it before; 1 keeps all"),
  repetitionNgram: count.default(16).describe('words, numbers and signs of such an n-gram'),
  maxCompletionLength: count
    .optional()
    .describe("most tokens of a completion; default: what the model's context leaves"),
  temperature: z.number().min(0).max(100).default(1).describe('sampling temperature; 0 is greedy'),
  topK: samplingFields.topK,
  topP: samplingFields.topP,
  minP: samplingFields.minP,
  maxSequences: passFields.maxSequences,
  seed: runFields.seed.describe('seed of problems and sampling'),
  threads: runFields.threads,
});
export type SampleOptions = z.output<typeof sampleOptions>;

/** Checks options against each other. @throws RetortError bad-input naming the option, its value and the remedy */
export function settleSampleOptions(given: unknown): SampleOptions {
  const o = parseOptions('sample', sampleOptions, given);
  if (o.temperature === 0 && o.samples > 1) {
    const remedy = 'they would all be the same: give a temperature, or one sample';
    throw refuse('bad-input', 'samples at temperature 0', o.samples, remedy);
  }
  return o;
}
