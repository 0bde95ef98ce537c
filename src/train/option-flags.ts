// How options are named on the command line: the flags of every verb that trains, and the line that makes a run again.
import { z } from 'zod';
import { distillOptions } from './distill-options.js';
import { grpoOptions } from './grpo-options.js';
import { ppoOptions } from './ppo-options.js';
import { sampleOptions } from './sample-options.js';
import { supervisedOptions } from './supervised-options.js';

/** Names of options whose values are written `name=value` and repeated: flag by option. */
export const RECORD_FLAGS: Readonly<Record<string, string>> = {
  taskOptions: 'task-option',
  rewardWeights: 'reward-weight',
};

/** `maxTokens` as `max-tokens`. */
export function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`);
}

const SCHEMAS: Readonly<Record<string, z.ZodObject>> = {
  distill: distillOptions,
  grpo: grpoOptions,
  ppo: ppoOptions,
  sft: supervisedOptions,
  pretrain: supervisedOptions,
  sample: sampleOptions,
};

/**
 * The command that makes a run again, without what is the default anyway.
 * @param show how the value of an option is written, a path for instance
 * @example commandLine('grpo', { model: 'base', task: 'countdown', steps: 30 }) // "retort grpo --model base --task ..."
 */
export function commandLine(
  command: string,
  options: Readonly<Record<string, unknown>>,
  show: (name: string, value: string) => string = (_, value) => value,
): string {
  const fallback = defaultsOf(SCHEMAS[command]);
  const words = ['retort', command];
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    if (JSON.stringify(value) === JSON.stringify(fallback[name])) continue;
    words.push(...flagOf(name, value, (word) => quote(show(name, word))));
  }
  return words.join(' ');
}

function flagOf(name: string, value: unknown, show: (word: string) => string): string[] {
  const flag = `--${RECORD_FLAGS[name] ?? kebab(name)}`;
  if (typeof value === 'boolean') return [value ? flag : flag.replace(/^--/, '--no-')];
  if (Array.isArray(value)) return value.flatMap((one) => [flag, show(String(one))]);
  if (typeof value === 'object')
    return Object.entries(value as object).flatMap(([key, one]) => [
      flag,
      show(`${key}=${typeof one === 'string' ? one : JSON.stringify(one)}`),
    ]);
  return [flag, show(String(value))];
}

function defaultsOf(schema: z.ZodObject | undefined): Record<string, unknown> {
  if (!schema) return {};
  const { properties = {} } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' });
  return Object.fromEntries(
    Object.entries(properties).map(([name, field]) => [name, (field as { default?: unknown }).default]),
  );
}

/** As a shell reads it. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
