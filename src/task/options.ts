// Options of tasks: checked against a schema, with messages that name the option, the value and the remedy.
import { z } from 'zod';
import { RetortError, refuse } from '../errors.js';
import { remedyOf } from '../remedy.js';

/** The schema of a task's options: a zod object whose fields have defaults and descriptions. */
export type OptionSchema = z.ZodObject;

/** One option as `retort task NAME` lists it. */
export interface OptionHelp {
  readonly name: string;
  readonly description: string;
  /** The value used when none is given; undefined where one must be given. */
  readonly default: unknown;
}

/**
 * Checks options and fills the defaults.
 *
 * @throws RetortError (bad-input) for an unknown name or a value outside what the schema allows.
 */
export function readOptions<S extends OptionSchema>(task: string, schema: S, options: unknown): z.output<S> {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw refuse(
      'bad-input',
      `options of task ${task}`,
      options,
      'give an object of option names and values',
    );
  }
  const known = Object.keys(schema.shape);
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    const guess = nearest(name, known);
    const remedy = `its options are ${known.join(', ') || 'none'}${guess ? `; did you mean ${guess}?` : ''}`;
    throw refuse('bad-input', `unknown option of task ${task}`, name, remedy);
  }
  const result = schema.safeParse(options, { error: remedyOf });
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const name = issue.path.join('.');
  const value = issue.path.reduce<unknown>((o, key) => (o as Record<PropertyKey, unknown>)?.[key], options);
  throw refuse('bad-input', `option ${name} of task ${task}`, value, issue.message);
}

/** What can be set, for help texts. */
export function describeOptions(schema: OptionSchema): OptionHelp[] {
  const json = z.toJSONSchema(schema, { io: 'input' });
  return Object.entries(json.properties ?? {}).map(([name, field]) => {
    const { description, default: value } = field as { description?: string; default?: unknown };
    return { name, description: description ?? '', default: value };
  });
}

/**
 * Options as they are typed on a command line: `count=4`, `operators=+-`. A value that reads as JSON is taken as
 * JSON, anything else as text.
 *
 * @throws RetortError (bad-input) for a word without `=`.
 */
export function optionsFromWords(words: readonly string[]): Record<string, unknown> {
  const options: Record<string, unknown> = {};
  for (const word of words) {
    const at = word.indexOf('=');
    if (at < 1)
      throw refuse('bad-input', 'task option', word, 'write it as name=value, for instance count=4');
    options[word.slice(0, at)] = jsonOrText(word.slice(at + 1));
  }
  return options;
}

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/**
 * Reads a problem from parsed JSON with a schema.
 *
 * @throws RetortError (bad-data) that names the field that is wrong.
 */
export function readProblem<T>(task: string, schema: z.ZodType<T>, json: unknown): T {
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const field = issue.path.length > 0 ? `field ${issue.path.join('.')}` : 'the whole';
  throw new RetortError('bad-data', `${field} of a ${task} problem: ${issue.message}`);
}

/** The known word closest to a mistyped one, or null where none is close (more than a third of it differs). */
export function nearest(word: string, known: readonly string[]): string | null {
  let best: string | null = null;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of known) {
    const d = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (d < bestDistance) [best, bestDistance] = [candidate, d];
  }
  return best;
}

// Edits with neighbours swapped counting as one (optimal string alignment), since that is how fingers slip.
function editDistance(a: string, b: string): number {
  if (a.length > 100 || b.length > 100) return Number.POSITIVE_INFINITY;
  let before: number[] = [];
  let above = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      row[j] = Math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        row[j] = Math.min(row[j], before[j - 2] + 1);
      }
    }
    before = above;
    above = row;
  }
  return above[b.length];
}
