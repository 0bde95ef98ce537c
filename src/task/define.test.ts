// defineTask: what is filled in, what is refused, finite sets and drawn problems; options as they are typed.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetortError } from '../errors.js';
import { defineTask, type TaskDefinition } from './define.js';
import { nearest, optionsFromWords } from './options.js';
import { randomFor } from './random.js';
import { splitOf } from './split.js';

const parity: TaskDefinition<{ n: number }> = {
  name: 'parity',
  make: (random) => ({ n: random.integer(0, 999) }),
  prompt: ({ n }) => `Is ${n} odd or even?`,
  gold: ({ n }) => (n % 2 ? 'odd' : 'even'),
};
const refusal = (part: RegExp) => (e: unknown) => e instanceof RetortError && part.test(e.message);

test('a small definition is enough', async () => {
  const task = defineTask(parity);
  const problem = task.problem('train', 3, 9);
  assert.deepEqual(problem, task.problem('train', 3, 9));
  const gold = problem.n % 2 ? 'odd' : 'even';
  assert.deepEqual(await task.score(problem, `<answer> ${gold} </answer>`), {
    rewards: { answer: 1 },
    correct: true,
  });
  assert.deepEqual(await task.score(problem, '<answer>x</answer>'), {
    rewards: { answer: 0.1 },
    correct: false,
  });
  assert.deepEqual(await task.score(problem, gold), { rewards: { answer: 0 }, correct: false });
  assert.equal(task.answerKey(problem, '<answer>odd</answer>'), 'odd');
  assert.equal(task.template, 'r1');
  assert.equal(task.description, 'parity');
  assert.equal(task.size, undefined);
  assert.ok(task.alphabet.includes('\n') && task.alphabet.includes('~'));
  assert.deepEqual(task.parseProblem({ n: 1 }), { n: 1 });
  assert.throws(() => task.parseProblem([1]), RetortError);
});

test('problems with one key are in one split, whatever the seeds', () => {
  // The key is coarser than the problem: tens.
  const task = defineTask({ ...parity, splitKey: ({ n }) => String(Math.floor(n / 10)) });
  const tens = { train: new Set<number>(), heldout: new Set<number>() };
  for (const split of ['train', 'heldout'] as const) {
    for (let seed = 0; seed < 30; seed++) {
      for (let i = 0; i < 50; i++) tens[split].add(Math.floor(task.problem(split, i, seed).n / 10));
    }
  }
  assert.ok(tens.heldout.size > 5 && tens.train.size > 60);
  for (const ten of tens.heldout) assert.ok(!tens.train.has(ten));
});

test('about one key in eight is held out', () => {
  let heldout = 0;
  for (let i = 0; i < 8000; i++) if (splitOf(`key ${i}`) === 'heldout') heldout++;
  assert.ok(Math.abs(heldout - 1000) < 120, String(heldout));
});

test('a finite set is gone through once before anything comes again, in an order that the seed chooses', () => {
  const { make: _, ...rest } = parity;
  const list = (from: number, count: number) => Array.from({ length: count }, (_, i) => ({ n: from + i }));
  const task = defineTask({ ...rest, problems: { train: list(0, 20), heldout: list(100, 5) } });
  assert.deepEqual(task.size, { train: 20, heldout: 5 });
  const pass = (k: number, seed: number) =>
    list(0, 20).map((_, i) => task.problem('train', 20 * k + i, seed).n);
  const sorted = list(0, 20).map(({ n }) => n);
  assert.deepEqual(
    pass(0, 1).sort((a, b) => a - b),
    sorted,
  );
  assert.deepEqual(
    pass(3, 1).sort((a, b) => a - b),
    sorted,
  );
  assert.notDeepEqual(pass(0, 1), pass(1, 1));
  assert.notDeepEqual(pass(0, 1), pass(0, 2));
  // Jumping back and forth gives the same again.
  const first = task.problem('train', 7, 1);
  task.problem('heldout', 2, 5);
  assert.deepEqual(task.problem('train', 7, 1), first);
});

test('wrong definitions are refused by field', () => {
  const bad = (change: object) => () => defineTask({ ...parity, ...change } as TaskDefinition<{ n: number }>);
  assert.throws(bad({ name: 'My Task' }), refusal(/name of a task.*lower-case/));
  assert.throws(bad({ prompt: 'x' }), refusal(/prompt of task parity/));
  assert.throws(bad({ gold: undefined }), refusal(/score of task parity.*gold/));
  assert.throws(bad({ score: 3 }), refusal(/score of task parity.*function/));
  assert.throws(bad({ make: undefined }), refusal(/exactly one of make, problems and problem/));
  assert.throws(bad({ problem: () => ({ n: 1 }) }), refusal(/exactly one/));
  assert.throws(bad({ scoer: () => 1 }), refusal(/unknown field.*"scoer"/));
  assert.throws(bad({ template: 'r2' }), refusal(/template.*r2/));
  assert.throws(bad({ rewardWeights: { answer: Number.NaN } }), refusal(/weight of reward answer/));
  const set = { make: undefined, problems: { train: [{ n: 1 }], heldout: [{ n: 1 }] } };
  assert.throws(bad(set), refusal(/heldout\[0\].*also in train/));
  assert.throws(bad({ ...set, problems: { train: [], heldout: [{ n: 1 }] } }), refusal(/problems\.train/));
});

test('draws that never fit end with an error, not a hang', () => {
  const task = defineTask({ ...parity, make: () => null });
  assert.throws(() => task.problem('train', 0, 0), refusal(/no train problem.*widen/));
});

test('options as they are typed', () => {
  assert.deepEqual(optionsFromWords(['count=4', 'operators=+-', 'path=a=b', 'on=true']), {
    count: 4,
    operators: '+-',
    path: 'a=b',
    on: true,
  });
  assert.throws(() => optionsFromWords(['count']), refusal(/name=value/));
});

test('the nearest word', () => {
  assert.equal(nearest('cuontdown', ['chain-sum', 'countdown']), 'countdown');
  assert.equal(nearest('Countdown', ['chain-sum', 'countdown']), 'countdown');
  assert.equal(nearest('xyz', ['chain-sum', 'countdown']), null);
});

test('random streams repeat, differ by key, and cover their range evenly', () => {
  assert.equal(randomFor('a', 1).fraction(), randomFor('a', 1).fraction());
  assert.notEqual(randomFor('a', 1).fraction(), randomFor('a', 2).fraction());
  // The first draw of neighbouring keys, since problems are drawn from neighbouring keys.
  const counts = Array<number>(10).fill(0);
  for (let i = 0; i < 20_000; i++) counts[randomFor('even', 7, i).integer(0, 9)]++;
  // Chi-squared with 9 degrees of freedom: above 27.9 once in a thousand.
  const chi = counts.reduce((sum, c) => sum + (c - 2000) ** 2 / 2000, 0);
  assert.ok(chi < 27.9, String(chi));
  // Pinned: a change here would change every problem that was ever published.
  assert.deepEqual(
    Array.from({ length: 5 }, (_, i) => randomFor('pinned', 1, i).integer(0, 999_999)),
    [955008, 390544, 925091, 304824, 426588],
  );
});
