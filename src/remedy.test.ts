// What users are told to give instead of a value that a schema refuses.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { remedyOf } from './remedy.js';

test('each fault has its remedy', () => {
  const cases: [z.ZodType, unknown, string][] = [
    [z.number().positive(), 0, 'give a number above 0'],
    [z.number().min(2), 1, 'give at least 2'],
    [z.number().max(6), 100, 'give at most 6'],
    [z.number().lt(1), 2, 'give a number below 1'],
    [z.number().int(), 1.5, 'give a whole number'],
    [z.number(), 'x', 'give a number'],
    [z.string(), 5, 'give text'],
    [z.string().min(1), '', 'give some text'],
    [z.boolean(), 1, 'give true or false'],
    [z.enum(['a', 'b', 'c']), 'd', 'give a, b or c'],
    [z.number().min(2, 'a group has at least 2'), 1, 'a group has at least 2'],
  ];
  for (const [schema, value, remedy] of cases) {
    const issue = schema.safeParse(value, { error: remedyOf }).error?.issues[0];
    assert.equal(issue?.message, remedy);
  }
});
