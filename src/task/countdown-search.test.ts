// Reports on searches: tries, right arithmetic, repeats, and the exact chance of random search.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countdown } from './countdown.js';
import { inspectSearch, randomSearchChance, randomTryChance, valueOfTry } from './countdown-search.js';
import { type Part, resultOf, stepsOf } from './countdown-steps.js';
import type { Operator } from './expression.js';
import { randomFor } from './random.js';

const rules = { operators: new Set<Operator>(['+', '-', '*', '/']), maxIntermediate: 150 };
const problem = { numbers: [3, 12, 12], target: 24 };

test('tries, right and repeated ones, as they are written', () => {
  const of = (completion: string) => Object.values(inspectSearch(problem, completion));
  assert.deepEqual(
    of('<think>12*12=144-3=141>12/12=1+3=4<12+3=15+12=27></think><answer>(12+3)+12</answer>'),
    [3, 3, 0],
  );
  assert.deepEqual(of('12/3=4,12+4=16<12*3=36-12=24</think><answer>1</answer>'), [2, 2, 0]);
  assert.deepEqual(of('<think>12+12=25-3=22<12+12=24+3=27>12+12=24+3=27></think>'), [3, 2, 1]);
  assert.deepEqual(of('<think>12+12=24+3=27>12+1'), [1, 1, 0], 'cut off');
  assert.deepEqual(of('12+12=24+3=27> (12+12)+3'), [1, 1, 0], 'raw');
  assert.deepEqual(of('<think></think><answer>1</answer>'), [0, 0, 0]);
  assert.deepEqual(of(''), [0, 0, 0]);
  assert.deepEqual(of('<think>hello></think>'), [1, 0, 0]);
});

test('the value of a try, null where a step is wrong', () => {
  assert.equal(valueOfTry('12+12=24-3=21', problem.numbers), 21);
  assert.equal(valueOfTry('12/3=4,12+4=16', problem.numbers), 16);
  for (const wrong of [
    '12+12=24',
    '12+12=24-3=20',
    '12+12=24-2=22',
    '12/5=2',
    '12+3=15,12+3=15',
    '',
    '12',
    '1+=2',
  ]) {
    assert.equal(valueOfTry(wrong, problem.numbers), null, wrong);
  }
});

test('the chance of a random try by hand: 2 and 3 make 6 in one step of three', () => {
  // 3+2, 3-2, 3*2; 3/2 is not whole.
  assert.equal(randomTryChance({ numbers: [2, 3], target: 6 }, rules), 1 / 3);
  assert.ok(Math.abs(randomSearchChance({ numbers: [2, 3], target: 6 }, rules, 2) - 5 / 9) < 1e-12);
  assert.equal(randomSearchChance({ numbers: [2, 3], target: 7 }, rules, 9), 0);
});

test('the chance of a random try agrees with trying', () => {
  for (const p of [problem, { numbers: [5, 7, 9, 2], target: 30 }]) {
    const random = randomFor('random tries', p.target);
    let hits = 0;
    const trials = 20_000;
    for (let i = 0; i < trials; i++) {
      let parts: Part[] = p.numbers.map((value) => ({ value, text: '' }));
      while (parts.length > 1) {
        const [a, b, ...rest] = random.shuffle(parts);
        const steps = stepsOf([a, b], rules);
        if (steps.length === 0) break;
        parts = [...rest, resultOf(random.pick(steps))];
      }
      if (parts.length === 1 && parts[0].value === p.target) hits++;
    }
    const chance = randomTryChance(p, rules);
    const error = Math.sqrt((chance * (1 - chance)) / trials);
    assert.ok(Math.abs(hits / trials - chance) < 4 * error, `${hits / trials} ${chance}`);
  }
});

test('traces of the task: every try is right', () => {
  const task = countdown();
  for (let i = 0; i < 200; i++) {
    const p = task.problem('train', i, 4);
    const m = task.measures?.(p, task.trace?.(p, i) as string) ?? assert.fail();
    assert.ok(m.tries > 0 && m.rightTries === m.tries && m.repeatedTries < m.tries);
    assert.ok(m.randomSearch > 0 && m.randomSearch < 1);
  }
});
