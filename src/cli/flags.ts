// Command-line flags made from the options' schemas, so that a loop's options are written down once.
import { type Command, InvalidArgumentError, Option } from 'commander';
import { z } from 'zod';
import { optionsFromWords } from '../task/options.js';

interface JsonField {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly string[];
}

/** Names of options whose values are written `name=value` and repeated: flag by option. */
const RECORD_FLAGS: Readonly<Record<string, string>> = {
  taskOptions: 'task-option',
  rewardWeights: 'reward-weight',
};

export function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`);
}

function readNumber(word: string): number {
  const value = word === 'Infinity' ? Number.POSITIVE_INFINITY : Number(word);
  if (word.trim() === '' || Number.isNaN(value)) throw new InvalidArgumentError('give a number');
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
      command.addOption(new Option(`--${record} <name=value...>`, text).argParser(collect));
    } else if (field.type === 'boolean') {
      command.option(`--${kebab(name)}`, text);
      command.option(`--no-${kebab(name)}`, `not: ${field.description ?? ''}`);
    } else if (field.type === 'array') {
      command.addOption(new Option(`--${kebab(name)} <value...>`, text).argParser(collect));
    } else {
      const option = new Option(`--${kebab(name)} <value>`, text);
      if (field.type === 'number' || field.type === 'integer') option.argParser(readNumber);
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
