// The curriculum: what it takes and what it passes over.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defineTask } from '../task/define.js';
import { mixTasks } from '../task/mix.js';
import { makeTask } from '../task/registry.js';
import { chooseProblems, kindOf, type SuccessRates, takeProbability, updateRates } from './curriculum.js';

const task = makeTask('chain-sum', { minTerms: 2, maxTerms: 4 });
const problemAt = (i: number) => task.problem('train', i, 1);
const kindAt = (i: number) => kindOf(task, problemAt(i));

test('kinds of middling success come most, too easy and impossible ones least, none never', () => {
  const rates: SuccessRates = {
    '2 terms': { rate: 1, seen: 50 },
    '3 terms': { rate: 0.5, seen: 50 },
    '4 terms': { rate: 0, seen: 50 },
  };
  const { indices, next } = chooseProblems(task, rates, 7, 100, 1000, problemAt);
  const share = (kind: string) => indices.filter((i) => kindAt(i) === kind).length / 1000;
  // Offered equally often, taken in proportion to 0.1 : 1 : 0.1.
  assert.ok(Math.abs(share('3 terms') - 1 / 1.2) < 0.05, `${share('3 terms')}`);
  assert.ok(Math.abs(share('2 terms') - 0.1 / 1.2) < 0.03 && Math.abs(share('4 terms') - 0.1 / 1.2) < 0.03);
  assert.equal(indices.at(-1), next - 1);
  assert.ok(indices.every((index, i) => i === 0 || index > indices[i - 1]) && indices[0] >= 100);
  assert.deepEqual(chooseProblems(task, rates, 7, 100, 1000, problemAt), { indices, next });
});

test('without experience every problem is taken, and a curriculum that likes nothing still ends', () => {
  const all = { indices: [5, 6, 7], next: 8 };
  assert.deepEqual(chooseProblems(task, {}, 0, 5, 3, problemAt), all);
  const solved = Object.fromEntries([2, 3, 4].map((n) => [`${n} terms`, { rate: 1, seen: 9 }]));
  const { next } = chooseProblems(task, solved, 0, 0, 200, problemAt);
  assert.ok(next > 1000 && next < 4000, `${next}`);
});

test('rates follow the results and forget', () => {
  const step = (correct: number) =>
    Array.from({ length: 10 }, (_, i) => ({ kind: 'a', correct: i < correct }));
  let rates = updateRates({}, step(2));
  assert.deepEqual(rates, { a: { rate: 0.2, seen: 10 } });
  rates = updateRates(rates, step(10));
  assert.ok(Math.abs(rates.a.rate - (0.8 * 10 * 0.2 + 10) / 18) < 1e-12);
  for (let i = 0; i < 50; i++) rates = updateRates(rates, step(10));
  assert.ok(rates.a.rate > 0.999 && rates.a.seen < 51);
  assert.deepEqual(updateRates(rates, []), rates);
  assert.equal(takeProbability(undefined), 1);
  assert.equal(takeProbability(0.5), 1);
});

test('problems of a data set are told apart, alone and in a mix', () => {
  const few = defineTask<{ n: number }>({
    name: 'few',
    problems: { train: [{ n: 1 }, { n: 2 }], heldout: [{ n: 3 }] },
    prompt: ({ n }) => `${n}`,
    gold: String,
    template: 'terse',
  });
  assert.notEqual(kindOf(few, { n: 1 }), kindOf(few, { n: 2 }));
  const mix = mixTasks([{ task: few }, { task }]);
  const at = (name: string, problem: unknown) => kindOf(mix, { task: name, problem });
  assert.notEqual(at('few', { n: 1 }), at('few', { n: 2 }));
  assert.equal(at('chain-sum', { terms: [1, 2, 3] }), 'chain-sum 3 terms');
  assert.equal(at('chain-sum', { terms: [1, 2, 3] }), at('chain-sum', { terms: [4, 5, 6] }));
});
