// Flags made from schemas, and how their values are read.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Command, CommanderError } from 'commander';
import { z } from 'zod';
import { distillOptions } from '../train/distill-options.js';
import { grpoOptions } from '../train/grpo-options.js';
import { kebab } from '../train/option-flags.js';
import { ppoOptions } from '../train/ppo-options.js';
import { supervisedOptions } from '../train/supervised-options.js';
import {
  addDtypes,
  addSchemaFlags,
  type DtypeFlags,
  modelDtype,
  number,
  readSchemaFlags,
  weightsFromWords,
  whole,
} from './flags.js';

function parse(schema: z.ZodObject, ...words: string[]): Record<string, unknown> {
  const command = new Command().exitOverride().configureOutput({ writeErr() {} });
  addSchemaFlags(command, schema);
  command.parse(words, { from: 'user' });
  return readSchemaFlags(command, schema);
}

test('what was not given is absent, so that defaults stand in the schema alone', () => {
  assert.deepEqual(parse(grpoOptions), {});
  assert.deepEqual(parse(supervisedOptions), {});
});

test('how numbers are kept: as the files have them, or as it is said', () => {
  const read = (...words: string[]) => {
    const command = addDtypes(new Command().exitOverride().configureOutput({ writeErr() {} }));
    const o = command.parse(words, { from: 'user' }).opts<DtypeFlags>();
    return [modelDtype(o), o.kvCacheDtype];
  };
  assert.deepEqual(read(), [undefined, 'float32']);
  assert.deepEqual(read('--dtype', 'bfloat16'), ['bfloat16', 'float32']);
  assert.deepEqual(read('--dtype', 'float32', '--kv-cache-dtype', 'bfloat16'), ['float32', 'bfloat16']);
  for (const flag of ['--dtype', '--kv-cache-dtype'])
    assert.throws(() => read(flag, 'float16'), /Allowed choices are/);
});

test('completions are recorded by the loops that sample them, and by no other', () => {
  assert.deepEqual(parse(grpoOptions, '--log-completions', '3'), { logCompletions: 3 });
  assert.deepEqual(parse(ppoOptions, '--log-completions', '3'), { logCompletions: 3 });
  for (const schema of [supervisedOptions, distillOptions])
    assert.throws(() => parse(schema, '--log-completions', '3'), /unknown option/);
});

test('every option of the loops has a flag that is read back under its name', () => {
  for (const schema of [grpoOptions, supervisedOptions] as z.ZodObject[]) {
    const json = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' });
    for (const [name, field] of Object.entries(json.properties ?? {})) {
      const { type, enum: choices } = field as { type?: string; enum?: string[] };
      if (type === 'object') continue;
      const flag = `--${kebab(name)}`;
      if (type === 'boolean') {
        assert.deepEqual(parse(schema, flag), { [name]: true });
        assert.deepEqual(parse(schema, `--no-${kebab(name)}`), { [name]: false });
        continue;
      }
      const word = type === 'number' || type === 'integer' ? '7' : (choices?.[0] ?? 'word');
      const value = type === 'array' ? [word] : word === '7' ? 7 : word;
      assert.deepEqual(parse(schema, flag, word), { [name]: value }, flag);
    }
  }
});

test('records and lists are repeated, and take one word each', () => {
  const words =
    '--task-option count=4 --task-option operators=+- --reward-weight format=0.5 --stop a --stop b';
  assert.deepEqual(parse(grpoOptions, ...words.split(' ')), {
    taskOptions: { count: 4, operators: '+-' },
    rewardWeights: { format: 0.5 },
    stop: ['a', 'b'],
  });
});

test('numbers are numbers', () => {
  assert.deepEqual(parse(grpoOptions, '--learning-rate', '1e-5'), { learningRate: 1e-5 });
  for (const word of ['x', '', ' ', '1x', 'NaN', 'Infinity'])
    assert.throws(() => parse(grpoOptions, '--learning-rate', word), CommanderError, word);
  assert.equal(whole(0)('12'), 12);
  for (const word of ['-1', '1.5', '', 'a', '1e400'])
    assert.throws(() => whole(0)(word), CommanderError, word);
  assert.throws(() => whole(1, 64)('65'), CommanderError);
  assert.equal(number(0, 1)('0.25'), 0.25);
  for (const word of ['1.01', '-0.1', 'NaN', ''])
    assert.throws(() => number(0, 1)(word), CommanderError, word);
});

test('weights are numbers by name', () => {
  assert.deepEqual(weightsFromWords(['a=1', 'b-c=-0.5']), { a: 1, 'b-c': -0.5 });
  assert.throws(() => weightsFromWords(['a=much']), /weight of reward a: got "much"/);
  assert.throws(() => weightsFromWords(['a']), /name=value/);
});
