// A run that goes on with another budget: it takes the place of the one that the run had, wherever that stands.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withBudgets } from './resume.js';

test('a budget takes the place of the one of the teacher, of a judge, of a judge in a mix', () => {
  const judge = (maxCost: number) => ({ task: 'judged', options: { judge: 'm', maxCost } });
  assert.deepEqual(withBudgets({ teacher: 't', maxCost: 1, maxApiTokens: 10 }, { maxCost: 2 }), {
    ...{ teacher: 't', maxCost: 2, maxApiTokens: 10 },
  });
  const options = { steps: 3, taskOptions: { tasks: ['multiply', judge(1)] }, final: { tasks: [judge(1)] } };
  assert.deepEqual(withBudgets(options, { maxCost: 2 }), {
    ...{ steps: 3, taskOptions: { tasks: ['multiply', judge(2)] }, final: { tasks: [judge(2)] } },
  });
  assert.deepEqual(withBudgets(options, {}), options);
  assert.throws(
    () => withBudgets(options, { maxApiTokens: 5 }),
    /maxApiTokens for this run: got 5; it began without such a budget: leave it out/,
  );
});
