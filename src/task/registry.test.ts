// Every task that ships holds the contract: gold scores 1, splits stay apart, problems repeat and survive JSON.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gsm8k, noGsm8k } from '../../test/support/shared.js';
import { RetortError } from '../errors.js';
import type { ChainSumProblem } from './chain-sum.js';
import type { CountdownProblem } from './countdown-steps.js';
import type { Gsm8kProblem } from './gsm8k.js';
import type { LetterCountProblem } from './letter-count.js';
import type { MixProblem } from './mix.js';
import type { MultiplyProblem } from './multiply.js';
import type { NumberSortProblem } from './number-sort.js';
import { makeTask, taskHelp, taskNames } from './registry.js';
import type { Score, Task } from './task.js';

const tagged = (answer: string) => `<think></think><answer>${answer}</answer>`;

const sorted = (numbers: readonly number[]) => [...numbers].sort((a, b) => a - b).join(' ');

interface Row {
  make: () => Task;
  /** What makes two problems the same one; independent of the task's own key. */
  identity: (problem: unknown) => string;
  skip?: string | false;
}

// One row a task: how the tests make it.
const rows: Record<string, Row> = {
  countdown: {
    make: () => makeTask('countdown'),
    identity: (p) => sorted((p as CountdownProblem).numbers),
  },
  'chain-sum': {
    make: () => makeTask('chain-sum'),
    identity: (p) => sorted((p as ChainSumProblem).terms.map(Math.abs)),
  },
  multiply: {
    make: () => makeTask('multiply'),
    identity: (p) => sorted([(p as MultiplyProblem).a, (p as MultiplyProblem).b]),
  },
  'letter-count': {
    make: () => makeTask('letter-count'),
    identity: (p) => (p as LetterCountProblem).word,
  },
  'number-sort': {
    make: () => makeTask('number-sort'),
    identity: (p) => sorted((p as NumberSortProblem).numbers),
  },
  mix: {
    make: () => makeTask('mix', { tasks: 'chain-sum, number-sort,countdown' }),
    identity: (p) => {
      const { task, problem } = p as MixProblem;
      return `${task} ${rows[task].identity(problem)}`;
    },
  },
  gsm8k: {
    make: () => makeTask('gsm8k', { path: gsm8k }),
    identity: (p) => (p as Gsm8kProblem).question,
    skip: noGsm8k,
  },
};

test('every task that ships has a row here', () => {
  // What is judged has no gold answer: judged.test.ts.
  assert.deepEqual([...Object.keys(rows), 'judged'].sort(), taskNames().sort());
});

for (const [name, row] of Object.entries(rows)) {
  test(`${name}: the gold answer of 1,000 problems scores 1 and a wrong one less`, {
    skip: row.skip,
  }, async () => {
    const task = row.make();
    for (let i = 0; i < 1000; i++) {
      const problem = task.problem(i % 2 ? 'train' : 'heldout', i >> 1, 17);
      const gold = task.gold?.(problem);
      assert.ok(typeof gold === 'string', JSON.stringify(problem));
      const right = await task.score(problem, tagged(gold));
      assert.deepEqual(right, { rewards: { answer: 1 }, correct: true }, JSON.stringify(problem));
      const key = task.answerKey(problem, tagged(gold));
      assert.ok(key !== null && key !== task.answerKey(problem, tagged(`${gold}1`)));
      assert.equal(task.answerKey(problem, 'no answer'), null);
      const wrong = await task.score(problem, tagged(`${gold}1`));
      assert.deepEqual(wrong, { rewards: { answer: 0.1 }, correct: false }, JSON.stringify(problem));
      assert.deepEqual(await task.score(problem, `<answer>${gold}`), {
        rewards: { answer: 0 },
        correct: false,
      });
    }
  });

  test(`${name}: problems repeat, survive JSON and never cross the splits`, { skip: row.skip }, () => {
    const task = row.make();
    const train = new Set<string>();
    for (let seed = 0; seed < 20; seed++) {
      for (let i = 0; i < 50; i++) {
        const problem = task.problem('train', i, seed);
        assert.deepEqual(problem, task.problem('train', i, seed));
        assert.deepEqual(task.parseProblem(JSON.parse(JSON.stringify(problem))), problem);
        train.add(row.identity(problem));
      }
    }
    for (let seed = 0; seed < 20; seed++) {
      for (let i = 0; i < 50; i++) {
        const identity = row.identity(task.problem('heldout', i, seed));
        assert.ok(!train.has(identity), identity);
      }
    }
  });

  test(`${name}: the alphabet holds every character of prompt, gold and trace`, { skip: row.skip }, () => {
    const task = row.make();
    const alphabet = new Set(task.alphabet);
    for (let i = 0; i < 200; i++) {
      const problem = task.problem('train', i, 3);
      const trace = (task.trace?.(problem, i) ?? '').replace(/<\/?(think|answer)>/g, '');
      for (const c of `${task.prompt(problem)}${task.gold?.(problem)}${trace}`) assert.ok(alphabet.has(c), c);
    }
  });

  test(`${name}: an unknown option and a problem that is none are refused`, { skip: row.skip }, () => {
    assert.throws(() => makeTask(name, { colour: 1 }), /unknown option of task .*"colour"/);
    assert.throws(() => row.make().parseProblem({ nothing: 1 }), RetortError);
    assert.ok(taskHelp(name).description.length > 0);
    assert.ok(taskHelp(name).options.every((o) => o.description.length > 0));
  });
}

test('an unknown task is refused with the known ones and the nearest', () => {
  assert.throws(
    () => makeTask('cuontdown'),
    (e: unknown) =>
      e instanceof RetortError && e.code === 'bad-input' && /did you mean countdown/.test(e.message),
  );
  assert.throws(() => makeTask('toString'), /unknown task/);
});

// Traces are what a base model learns from: mostly right, so that it learns the task, and not always right, so that
// rewards have something to improve. Characters are tokens there.
for (const [name, right, characters] of [
  ['countdown', [0.15, 0.6], 120],
  ['chain-sum', [0.55, 0.85], 40],
  ['multiply', [0.5, 0.85], 60],
  ['letter-count', [0.7, 0.95], 30],
  ['number-sort', [0.45, 0.8], 60],
] as const) {
  test(`${name}: traces are imperfect, and short`, () => {
    const task = makeTask(name);
    let correct = 0;
    let length = 0;
    for (let i = 0; i < 1000; i++) {
      const problem = task.problem('train', i, 29);
      const trace = task.trace?.(problem, i) as string;
      if ((task.score(problem, trace) as Score).correct) correct++;
      length += `${task.prompt(problem)}${trace}`.replace(/<[^>]*>/g, '#').length;
    }
    assert.ok(correct / 1000 > right[0] && correct / 1000 < right[1], `${correct / 1000} right`);
    assert.ok(length / 1000 < characters, `${length / 1000} characters`);
  });
}

test('traces without noise are right throughout', () => {
  for (const name of ['chain-sum', 'multiply', 'letter-count', 'number-sort']) {
    const task = makeTask(name, { noise: 0 });
    for (let i = 0; i < 300; i++) {
      const problem = task.problem('train', i, 31);
      const trace = task.trace?.(problem, i) as string;
      assert.ok((task.score(problem, trace) as Score).correct, `${name}: ${trace}`);
    }
  }
});

test('worked examples', () => {
  const multiply = makeTask('multiply', { noise: 0 });
  assert.equal(multiply.prompt({ a: 34, b: 27 }), '34*27=?');
  assert.equal(
    multiply.trace?.({ a: 34, b: 27 }, 0),
    '<think>20*34=680;7*34=238;680+238=918</think><answer>918</answer>',
  );
  const chain = makeTask('chain-sum', { noise: 0 });
  assert.equal(chain.prompt({ terms: [12, 7, -3] }), '12+7-3=?');
  assert.equal(chain.trace?.({ terms: [12, 7, -3] }, 0), '<think>12+7=19;19-3=16</think><answer>16</answer>');
  const anyOrder = makeTask('chain-sum', { noise: 0, order: 'any' });
  const traces = Array.from(
    { length: 60 },
    (_, seed) => anyOrder.trace?.({ terms: [12, 7, -3] }, seed) ?? '',
  );
  assert.equal(new Set(traces).size, 6);
  assert.ok(traces.includes('<think>-3+7=4;4+12=16</think><answer>16</answer>'));
  for (const trace of traces) assert.match(trace, /<answer>16<.answer>$/);
  const letters = makeTask('letter-count', { noise: 0 });
  assert.equal(letters.gold?.({ word: 'strawberry', letter: 'r' }), '3');
  assert.equal(
    letters.trace?.({ word: 'strawberry', letter: 'r' }, 0),
    '<think>str1awber2r3y</think><answer>3</answer>',
  );
  const sort = makeTask('number-sort', { noise: 0 });
  assert.equal(sort.trace?.({ numbers: [38, 5, 71] }, 0), '<think>38;5 38</think><answer>5 38 71</answer>');
});
