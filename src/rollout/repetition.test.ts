// The repetition penalty against its definition.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { repetitionPenalty } from './repetition.js';

test('each token of prompt and answer is divided or multiplied once', () => {
  const control = repetitionPenalty(2, [1, 1, 3]);
  const logits = () => Float32Array.of(4, 4, -4, -4, 0);
  const first = logits();
  assert.equal(control.adjust(first), true);
  assert.deepEqual([...first], [4, 2, -4, -8, 0]);
  for (const id of [2, 1, 4]) control.accept(id);
  const second = logits();
  control.adjust(second);
  assert.deepEqual([...second], [4, 2, -8, -8, 0]);
});
