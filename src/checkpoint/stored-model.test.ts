// What a model's files tell before its weights are read.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { storedDtype } from './stored-model.js';

test('a model is bfloat16 where every matrix is, whatever its vectors are', () => {
  const parameters = [
    { name: 'embed', shape: [10, 4] },
    { name: 'norm', shape: [4] },
    { name: 'head', shape: [10, 4] },
  ] as const;
  const told = (types: Readonly<Record<string, string>>) => storedDtype(parameters, (name) => types[name]);
  assert.equal(told({ embed: 'BF16', norm: 'BF16', head: 'BF16' }), 'bfloat16');
  assert.equal(told({ embed: 'BF16', norm: 'F32', head: 'BF16' }), 'bfloat16');
  for (const other of ['F32', 'F16', 'Q8_0']) {
    assert.equal(told({ embed: other, norm: 'BF16', head: 'BF16' }), 'float32');
    assert.equal(told({ embed: 'BF16', norm: 'BF16', head: other }), 'float32');
  }
});
