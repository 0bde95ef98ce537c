// Held-out problems: different ones, and a refusal that does not take for ever where there are too few.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defineTask } from '../task/define.js';
import { distinctProblems, MAX_PROBLEMS } from './evaluate.js';

test('different problems of a split, and what happens where it has fewer', () => {
  let drawn = 0;
  const dice = defineTask<{ n: number }>({
    name: 'dice',
    problem: (_, index, seed) => {
      drawn++;
      return { n: (index * 7 + seed) % 50 };
    },
    prompt: ({ n }) => String(n),
    gold: ({ n }) => String(n),
  });
  const all = distinctProblems(dice, 'heldout', 50, 3) as { n: number }[];
  assert.deepEqual(
    all.slice(0, 3).map(({ n }) => n),
    [3, 10, 17],
  );
  assert.equal(new Set(all.map(({ n }) => n)).size, 50);
  drawn = 0;
  assert.throws(
    () => distinctProblems(dice, 'heldout', MAX_PROBLEMS, 0),
    /different heldout problems of task dice: got 100000; the split has only about 50: ask for fewer/,
  );
  assert.ok(drawn < 2000, `${drawn} draws`);
});
