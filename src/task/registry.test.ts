// Every task that ships holds the contract: gold scores 1, splits stay apart, problems repeat and survive JSON.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetortError } from '../errors.js';
import { makeTask, taskHelp, taskNames } from './registry.js';
import type { Task } from './task.js';

const tagged = (answer: string) => `<think></think><answer>${answer}</answer>`;

// One row a task: how the tests make it.
const rows: Record<string, { make: () => Task }> = {
  countdown: { make: () => makeTask('countdown') },
};

test('every task that ships has a row here', () => {
  assert.deepEqual(Object.keys(rows).sort(), taskNames().sort());
});

for (const [name, row] of Object.entries(rows)) {
  test(`${name}: the gold answer of 1,000 problems scores 1 and a wrong one less`, async () => {
    const task = row.make();
    for (let i = 0; i < 1000; i++) {
      const problem = task.problem(i % 2 ? 'train' : 'heldout', i >> 1, 17);
      const gold = task.gold?.(problem);
      assert.ok(typeof gold === 'string', JSON.stringify(problem));
      const right = await task.score(problem, tagged(gold));
      assert.deepEqual(right, { rewards: { answer: 1 }, correct: true }, JSON.stringify(problem));
      assert.ok(task.answerKey(problem, tagged(gold)) !== null);
      const wrong = await task.score(problem, tagged(`${gold}1`));
      assert.deepEqual(wrong, { rewards: { answer: 0.1 }, correct: false }, JSON.stringify(problem));
      assert.deepEqual(await task.score(problem, gold), { rewards: { answer: 0 }, correct: false });
    }
  });

  test(`${name}: problems repeat, survive JSON and never cross the splits`, () => {
    const task = row.make();
    const train = new Set<string>();
    for (let seed = 0; seed < 20; seed++) {
      for (let i = 0; i < 50; i++) {
        const problem = task.problem('train', i, seed);
        assert.deepEqual(problem, task.problem('train', i, seed));
        assert.deepEqual(task.parseProblem(JSON.parse(JSON.stringify(problem))), problem);
        train.add(task.prompt(problem));
      }
    }
    for (let seed = 0; seed < 20; seed++) {
      for (let i = 0; i < 50; i++) {
        const prompt = task.prompt(task.problem('heldout', i, seed));
        assert.ok(!train.has(prompt), prompt);
      }
    }
  });

  test(`${name}: the alphabet holds every character of prompt, gold and trace`, () => {
    const task = row.make();
    const alphabet = new Set(task.alphabet);
    for (let i = 0; i < 200; i++) {
      const problem = task.problem('train', i, 3);
      const trace = (task.trace?.(problem, i) ?? '').replace(/<\/?(think|answer)>/g, '');
      for (const c of `${task.prompt(problem)}${task.gold?.(problem)}${trace}`) assert.ok(alphabet.has(c), c);
    }
  });

  test(`${name}: an unknown option and a problem that is none are refused`, () => {
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
