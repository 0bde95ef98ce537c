// Made-up lengths: the mean that was asked for, none past the most, all the same where the mean is the most.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { drawLengths, STAGED_END, stagedStream } from './lengths.js';

test('lengths have the mean that was asked for, and a spread', () => {
  for (const [mean, most] of [
    [1, 200],
    [5, 200],
    [40, 190],
    [100, 190],
    [180, 190],
  ] as const) {
    const next = drawLengths(mean, most);
    const lengths = Array.from({ length: 4000 }, next);
    const found = lengths.reduce((a, b) => a + b, 0) / lengths.length;
    assert.ok(Math.abs(found / mean - 1) < 0.06, `${found} for ${mean} of ${most}`);
    assert.ok(lengths.every((n) => Number.isInteger(n) && n >= 1 && n <= most));
    if (mean > 1) assert.ok(new Set(lengths).size > 3);
  }
  const all = drawLengths(50, 50);
  assert.ok(Array.from({ length: 100 }, all).every((n) => n === 50));
});

test('a stream says the end with the last token of the length', () => {
  const lengths = [1, 3];
  const open = stagedStream(() => lengths.shift() as number);
  assert.equal(open().push(7), STAGED_END);
  const { push } = open();
  assert.deepEqual([push(1), push(1), push(1)], ['', '', STAGED_END]);
});
