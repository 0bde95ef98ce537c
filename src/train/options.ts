// Options of the loops: what every run takes, and their checks with errors that name option, value and remedy.
import { readdirSync } from 'node:fs';
import { isAbsolute, relative, resolve, sep } from 'node:path';
import { z } from 'zod';
import { fileProblem, systemCode } from '../checkpoint/files.js';
import { writeModelFolder } from '../checkpoint/folder.js';
import { refuse } from '../errors.js';
import { remedyOf } from '../remedy.js';
import { nearest } from '../task/options.js';
import { type Policy, policyFiles } from './policy.js';

const positive = z.number().positive();

/** Options of the optimizer, shared by every loop. */
export const optimizerFields = {
  learningRate: positive.max(1, 'give a learning rate above 0, at most 1').describe('peak learning rate'),
  warmupSteps: z.number().int().min(0).default(0).describe('steps of linear warm-up'),
  schedule: z
    .enum(['constant', 'linear', 'cosine'])
    .default('linear')
    .describe('how the learning rate falls'),
  minLearningRateRatio: z
    .number()
    .min(0)
    .max(1)
    .default(0.1)
    .describe('share of the learning rate left at the end'),
  beta1: z.number().min(0).lt(1).default(0.9).describe("AdamW's decay of the mean"),
  beta2: z.number().min(0).lt(1).default(0.99).describe("AdamW's decay of the square"),
  adamEpsilon: positive.default(1e-8).describe("AdamW's epsilon"),
  weightDecay: z.number().min(0).default(0).describe('decoupled weight decay of matrices'),
  maxGradNorm: positive.default(1).describe('gradients are scaled down to this norm'),
};

/** Options of every run that trains. */
export const runFields = {
  gradientCheckpointing: z
    .boolean()
    .default(false)
    .describe(
      "keep only each layer's input and compute the layer again in backward: less memory, slower updates, the same gradients",
    ),
  out: z.string().optional().describe('folder of the run: metrics, completions, checkpoints'),
  save: z.string().optional().describe('folder to save the final model to'),
  seed: z.number().int().min(0).default(0).describe('seed of problems, weights and sampling'),
  threads: z.number().int().min(1).max(64).optional().describe('threads that compute; default: all cores'),
  saveEvery: z.number().int().min(0).default(50).describe('steps between checkpoints; 0: only at the ends'),
  keepLast: z.number().int().min(1).default(2).describe('checkpoints to keep'),
};

export type RunFields = z.output<z.ZodObject<typeof runFields>>;

/** Whether a path is a folder or somewhere in it. */
function isWithin(folder: string, path: string): boolean {
  const way = relative(resolve(folder), resolve(path));
  return way.split(sep)[0] !== '..' && !isAbsolute(way);
}

/** Checks options and fills the defaults. @throws RetortError bad-input naming the option, its value and the remedy */
export function parseOptions<S extends z.ZodObject>(command: string, schema: S, given: unknown): z.output<S> {
  const result = schema.safeParse(given, { error: remedyOf });
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  if (issue.code === 'unrecognized_keys') {
    const guess = nearest(issue.keys[0], Object.keys(schema.shape));
    const remedy = `there is no such option; ${guess ? `did you mean ${guess}?` : 'see --help'}`;
    throw refuse('bad-input', `option of ${command}`, issue.keys[0], remedy);
  }
  const name = issue.path.join('.');
  const value = issue.path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown>)?.[key], given);
  throw refuse('bad-input', `option ${name} of ${command}`, value, issue.message);
}

/**
 * Checks now that a model can be saved to a folder, and gives the function that does it at the end. A resumed run has
 * perhaps saved already; then nothing is to do.
 * @throws RetortError bad-input where the folder holds other files, or will hold the run
 */
export function saveModel(
  { save: dir, out }: { readonly save?: string; readonly out?: string },
  resumed: boolean,
): (policy: Policy) => string | null {
  if (dir === undefined) return () => null;
  const wrong = (why: string) =>
    refuse('bad-input', 'folder to save the model to', dir, `${why}: name a new or empty folder`);
  let full = false;
  try {
    full = readdirSync(dir).length > 0;
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw wrong(fileProblem(error));
  }
  if (full && !resumed) throw wrong('it holds other files');
  if (out !== undefined && isWithin(dir, out)) throw wrong('the run is written there (--out)');
  return (policy) => {
    if (!full) writeModelFolder(dir, policyFiles(policy));
    return dir;
  };
}
