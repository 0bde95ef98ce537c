// Countdown: rewards, the holes that models find, voting keys, splits, solvability, traces.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetortError } from '../errors.js';
import { type CountdownProblem, countdown } from './countdown.js';
import { evaluateExpression, numbersOf, parseExpression } from './expression.js';
import type { Score } from './task.js';

const task = countdown();
const problem: CountdownProblem = { numbers: [3, 12, 12], target: 27 };
const reward = (completion: string, p = problem, t = task) =>
  (t.score(p, completion) as Score).rewards.answer;
const answer = (text: string) => `<think>12+12=24</think><answer>${text}</answer>`;

test('1 for a right equation, 0.1 for a wrong or invalid one, 0 without a closed answer', () => {
  assert.equal(reward(answer('12+12+3')), 1);
  assert.equal(reward(answer(' (3 + 12) + 12 ')), 1);
  assert.equal(reward(answer('12+12-3')), 0.1);
  assert.equal(reward(answer('27')), 0.1);
  assert.equal(reward(answer('')), 0.1);
  assert.equal(reward('12+12+3'), 0);
  assert.equal(reward('<answer>12+12+3'), 0);
  assert.equal(reward('12+12+3</answer>'), 0);
  assert.equal(reward(''), 0);
});

test('the last closed answer counts', () => {
  assert.equal(reward('<answer>1</answer><answer>12+12+3</answer>'), 1);
  assert.equal(reward('<answer>12+12+3</answer><answer>1</answer>'), 0.1);
  assert.equal(reward('<answer>12+12+3</answer><answer>1'), 1);
  assert.equal(reward('<answer>1<answer>12+12+3</answer>'), 1);
  assert.equal(reward('<answer>12+12+3</answer></answer>'), 1);
});

test('holes that other checkers left open score 0.1', () => {
  const p = { numbers: [2, 3, 5], target: 13 };
  assert.equal(reward(answer('2**3+5'), p), 0.1);
  assert.equal(reward(answer('7//2*1'), { numbers: [7, 2, 1], target: 3 }), 0.1);
  assert.equal(reward(answer('3.5*2'), { numbers: [3, 5, 2], target: 7 }), 0.1);
  assert.equal(reward(answer('5+5+3'), p), 0.1, 'a number used twice');
  assert.equal(reward(answer('5*3-2*1'), p), 0.1, 'a number that was not given');
  assert.equal(reward(answer('3+5'), { numbers: [2, 3, 5], target: 8 }), 0.1, 'a number left out');
  assert.equal(reward(answer('23-5-5'), { numbers: [2, 3, 5], target: 13 }), 0.1, 'digits glued together');
  assert.equal(reward(answer('-2+15'), { numbers: [2, 15], target: 13 }), 0.1, 'unary minus');
  assert.equal(reward(answer('9'.repeat(10_000))), 0.1);
  assert.equal(reward(answer(`${'('.repeat(1_000_000)}12+12+3${')'.repeat(1_000_000)}`)), 0.1);
  assert.equal(reward(answer('12+12+3=27')), 0.1);
  assert.equal(reward(answer('12/(3-3)'), { numbers: [12, 3, 3], target: 5 }), 0.1, 'division by zero');
});

test('arithmetic is exact: fractions on the way count, near misses do not', () => {
  assert.equal(reward(answer('3/(1-8/9)'), { numbers: [3, 1, 8, 9], target: 27 }), 1);
  assert.equal(reward(answer('1/3*3'), { numbers: [1, 3, 3], target: 1 }), 1);
  assert.equal(
    reward(answer('999999999999999+1'), { numbers: [999999999999999, 1], target: 10 ** 15 + 1 }),
    0.1,
  );
});

test('operators outside the options are refused in answers', () => {
  const plusOnly = countdown({ operators: '+', maxTarget: 60 });
  assert.equal(reward(answer('12*3'), { numbers: [12, 3], target: 36 }, plusOnly), 0.1);
  assert.equal(reward(answer('12+3'), { numbers: [12, 3], target: 15 }, plusOnly), 1);
});

test('the voting key is the normalised expression, null where there is none', () => {
  const key = (text: string) => task.answerKey(problem, answer(text));
  assert.equal(key('(3+12)+12'), '3+12+12');
  assert.equal(key('12+(12+3)'), '3+12+12');
  assert.notEqual(key('12*3-9'), key('12+12+3'));
  assert.equal(key('2**3'), null);
  assert.equal(task.answerKey(problem, '12+12+3'), null);
});

test('problems are solvable in whole numbers within the limit, in range, and the same again', () => {
  for (const options of [{}, { count: 4, maxNumber: 9 }, { operators: '+-', minNumber: 5 }] as const) {
    const t = countdown(options);
    const o = { count: 3, minNumber: 1, maxNumber: 20, ...options };
    for (let i = 0; i < 200; i++) {
      const p = t.problem(i % 2 ? 'train' : 'heldout', i, 11);
      assert.deepEqual(p, t.problem(i % 2 ? 'train' : 'heldout', i, 11));
      assert.equal(p.numbers.length, o.count);
      assert.ok(p.numbers.every((n) => n >= o.minNumber && n <= o.maxNumber));
      assert.ok(p.target >= 10 && p.target <= 100);
      assert.equal(reward(answer(t.gold?.(p) as string), p, t), 1);
      assert.deepEqual(t.parseProblem(JSON.parse(JSON.stringify(p))), p);
    }
  }
});

test('no set of numbers is in both splits, over 40 seeds', () => {
  const sets = { train: new Set<string>(), heldout: new Set<string>() };
  for (const split of ['train', 'heldout'] as const) {
    for (let seed = 0; seed < 40; seed++) {
      for (let i = 0; i < 100; i++) {
        const { numbers } = task.problem(split, i, seed);
        sets[split].add([...numbers].sort((a, b) => a - b).join());
      }
    }
  }
  for (const set of sets.heldout) assert.ok(!sets.train.has(set), set);
  // 1,540 sets of three numbers from 1 to 20; most of each side has been drawn by now.
  assert.ok(sets.train.size > 1000 && sets.heldout.size > 130, `${sets.train.size} ${sets.heldout.size}`);
});

test('gold is null where no solution is known', () => {
  assert.equal(task.gold?.({ numbers: [1, 1], target: 50 }), null);
  assert.equal(task.gold?.({ numbers: Array(10).fill(1), target: 10 }), null);
});

test('a search trace does right arithmetic and ends in an expression over the numbers', () => {
  let solved = 0;
  for (let i = 0; i < 300; i++) {
    const p = task.problem('train', i, 5);
    const trace = task.trace?.(p, i) as string;
    assert.equal(trace, task.trace?.(p, i));
    for (const c of task.prompt(p) + trace.replace(/<\/?(think|answer)>/g, '')) {
      assert.ok(task.alphabet.includes(c), c);
    }
    const steps = trace.match(/\d+[-+*/]\d+=\d+/g) ?? [];
    assert.ok(steps.length > 0, trace);
    for (const step of steps) {
      const [sum, result] = step.split('=');
      const parsed = parseExpression(sum);
      assert.ok(parsed.ok);
      assert.equal(evaluateExpression(parsed.expression)?.numerator, BigInt(result));
    }
    const parsed = parseExpression(/<answer>(.*)<\/answer>$/.exec(trace)?.[1] as string);
    assert.ok(parsed.ok, trace);
    assert.deepEqual(numbersOf(parsed.expression).sort(), [...p.numbers].sort());
    if (reward(trace, p) === 1) solved++;
  }
  // A budget of 1 to 8 random tries: some searches must fail, some must succeed.
  assert.ok(solved > 30 && solved < 200, String(solved));
});

test('wrong options and problems are refused with their name', () => {
  const refusal = (fragment: RegExp) => (e: unknown) => e instanceof RetortError && fragment.test(e.message);
  assert.throws(() => countdown({ count: 7 }), refusal(/count/));
  assert.throws(() => countdown({ minNumber: 30 }), refusal(/minNumber.*got 30.*maxNumber is 20/));
  assert.throws(() => countdown({ operators: '+^' }), refusal(/operators/));
  assert.throws(
    () => countdown({ operators: '+', minTarget: 500, maxTarget: 600 }),
    refusal(/no train problem/),
  );
  assert.throws(() => task.parseProblem({ numbers: [1, 2.5], target: 3 }), refusal(/numbers\.1/));
  assert.throws(() => task.parseProblem({ numbers: [1, 2] }), refusal(/target/));
  assert.throws(() => task.parseProblem(null), refusal(/countdown problem/));
});
