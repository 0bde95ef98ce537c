// Command-line flags made from the options' schemas, so that a loop's options are written down once.
import { type Command, InvalidArgumentError, Option } from 'commander';
import { z } from 'zod';
import { type Dtype, dtypes } from '../compute/kernel/bfloat16.js';
import { refuse } from '../errors.js';
import { optionsFromWords } from '../task/options.js';
import type { Split } from '../task/task.js';
import { kebab, RECORD_FLAGS } from '../train/option-flags.js';

interface JsonField {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly string[];
}

/** Reads a whole number from a flag. */
export function whole(min: number, max = Number.MAX_SAFE_INTEGER): (word: string) => number {
  return (word) => {
    const value = word.trim() === '' ? Number.NaN : Number(word);
    if (Number.isInteger(value) && value >= min && value <= max) return value;
    const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    throw new InvalidArgumentError(`Give a whole number ${range}.`);
  };
}

/** Reads a number from a flag. */
export function number(min: number, max: number): (word: string) => number {
  return (word) => {
    const value = word.trim() === '' ? Number.NaN : Number(word);
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Give a number from ${min} to ${max}.`);
  };
}

export function splitOption(fallback: Split): Option {
  return new Option('--split <split>', 'problems of which split')
    .choices(['train', 'heldout'])
    .default(fallback);
}

/** Adds a flag that may be given several times. */
export function repeatable(command: Command, flags: string, text: string): Command {
  return command.addOption(new Option(flags, `${text} (repeatable)`).argParser(collect));
}

export function addSeed(command: Command, what: string): Command {
  return command.option('--seed <n>', `seed of ${what}`, whole(0), 0);
}

export function addThreads(command: Command): Command {
  return command.option('--threads <n>', 'threads that compute; default: all cores', whole(1, 64));
}

/** Flags for how numbers are kept while a model generates. */
export interface DtypeFlags {
  readonly dtype: Dtype | 'auto';
  readonly kvCacheDtype: Dtype;
}

export function addDtypes(command: Command): Command {
  const matrices =
    'how matrices are packed for products; auto: bfloat16 where all in the files are; it is faster, and rounds others';
  const cache = 'how keys and values are kept; bfloat16 takes half the memory and less time, and rounds them';
  return command
    .addOption(new Option('--dtype <dtype>', matrices).choices(['auto', ...dtypes]).default('auto'))
    .addOption(new Option('--kv-cache-dtype <dtype>', cache).choices(dtypes).default('float32'));
}

/** What a model's options take of the flags. */
export function modelDtype({ dtype }: Pick<DtypeFlags, 'dtype'>): Dtype | undefined {
  return dtype === 'auto' ? undefined : dtype;
}

/** Weights as they are typed: `format=0.5`. @throws RetortError bad-input for what is no number */
export function weightsFromWords(words: readonly string[]): Record<string, number> {
  const weights: Record<string, number> = {};
  for (const [name, value] of Object.entries(optionsFromWords(words))) {
    if (typeof value !== 'number') {
      throw refuse('bad-input', `weight of reward ${name}`, value, 'give a number, for instance format=0.5');
    }
    weights[name] = value;
  }
  return weights;
}

/** The flags that choose a task. */
export function addTask(command: Command): Command {
  command.requiredOption('--task <name>', 'name of a task, or path of a module that exports one');
  return repeatable(command, '--task-option <name=value>', 'an option of the task, count=4 for instance');
}

/** The flags that say how tokens are sampled. */
export function addSampling(command: Command): Command {
  return command
    .option('--top-k <k>', 'keep the k likeliest tokens; 0 keeps all', whole(0), 0)
    .option('--top-p <p>', 'keep the fewest tokens whose probability reaches p', number(0, 1), 1)
    .option('--min-p <p>', 'keep tokens at least this share as likely as the likeliest', number(0, 1), 0);
}

function readNumber(word: string): number {
  const value = Number(word);
  if (word.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('Give a number.');
  return value;
}

function collect(word: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), word];
}

/** Adds a flag for each field of a schema. Defaults are shown, but left to the schema. */
export function addSchemaFlags(
  command: Command,
  schema: z.ZodObject,
  required: readonly string[] = [],
): void {
  const json = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' });
  for (const [name, raw] of Object.entries(json.properties ?? {})) {
    const field = raw as JsonField;
    const fallback =
      field.default === undefined || typeof field.default === 'object' ? '' : ` (default: ${field.default})`;
    const text = `${field.description ?? ''}${fallback}`;
    const record = RECORD_FLAGS[name];
    if (record) {
      repeatable(command, `--${record} <name=value>`, field.description ?? '');
    } else if (field.type === 'boolean') {
      // The one that changes the default is shown; the other is there for scripts.
      const [yes, no] = [`--${kebab(name)}`, `--no-${kebab(name)}`];
      command.addOption(new Option(yes, field.description).hideHelp(field.default === true));
      command.addOption(new Option(no, `do not: ${field.description}`).hideHelp(field.default !== true));
    } else if (field.type === 'array') {
      repeatable(command, `--${kebab(name)} <value>`, field.description ?? '');
    } else {
      const numeric = field.type === 'number' || field.type === 'integer';
      const option = new Option(`--${kebab(name)} <${numeric ? 'n' : 'value'}>`, text);
      if (numeric) option.argParser(readNumber);
      if (field.enum) option.choices(field.enum);
      if (required.includes(name)) option.makeOptionMandatory();
      command.addOption(option);
    }
  }
}

/** The options given on the command line, by the schema's names; what was not given is absent. */
export function readSchemaFlags(command: Command, schema: z.ZodObject): Record<string, unknown> {
  const values = command.opts() as Record<string, unknown>;
  const given: Record<string, unknown> = {};
  for (const name of Object.keys(schema.shape)) {
    const record = RECORD_FLAGS[name];
    const key = record ? camel(record) : name;
    if (values[key] === undefined || command.getOptionValueSource(key) === 'default') continue;
    given[name] = record ? optionsFromWords(values[key] as string[]) : values[key];
  }
  return given;
}

function camel(flag: string): string {
  return flag.replace(/-([a-z])/g, (_, c: string) => c.toUpperCase());
}
