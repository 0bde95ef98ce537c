// Countdown: rewards, the holes that models find, voting keys, splits, solvability, traces.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetortError } from '../errors.js';
import { countdown } from './countdown.js';
import type { CountdownProblem } from './countdown-steps.js';
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

// A step is checked by its own parser, not by the one of the task.
function checkTry(text: string, numbers: readonly number[]): number {
  let pool = [...numbers];
  let value = Number.NaN;
  const take = (n: number) => {
    const at = pool.lastIndexOf(n);
    assert.ok(at >= 0, `${text}: ${n} is not there`);
    pool = pool.toSpliced(at, 1);
  };
  // `15+12=27-3=24,30-24=6` is 15+12=27, 27-3=24, 30-24=6.
  for (const chain of text.split(',')) {
    const [, start, rest] = /^(\d+)((?:[-+*/]\d+=\d+)+)$/.exec(chain) ?? assert.fail(text);
    let left = Number(start);
    // Only the first step of a chain starts from numbers that are not the result before.
    let first = true;
    for (const [, operator, b, result] of rest.matchAll(/([-+*/])(\d+)=(\d+)/g)) {
      const right = Number(b);
      take(left);
      take(right);
      assert.ok(left >= right || (!first && (operator === '+' || operator === '*')), `${text}: larger first`);
      first = false;
      value = { '+': left + right, '-': left - right, '*': left * right, '/': left / right }[
        operator
      ] as number;
      assert.equal(value, Number(result), text);
      assert.ok(value >= 1 && value <= 150, text);
      pool.push(value);
      left = value;
    }
  }
  assert.deepEqual(pool, [value], `${text}: every number is used`);
  return value;
}

for (const options of [
  {},
  { count: 4 },
  { count: 2 },
  { count: 5, maxNumber: 9 },
  { operators: '+*' },
] as const) {
  test(`search traces are right in every step: ${JSON.stringify(options)}`, () => {
    const t = countdown(options);
    let solved = 0;
    let tries = 0;
    for (let i = 0; i < 200; i++) {
      const p = t.problem('train', i, 5);
      const trace = t.trace?.(p, i) as string;
      assert.equal(trace, t.trace?.(p, i));
      const [, working, final] =
        /^<think>(.*)<\/think><answer>(.*)<\/answer>$/.exec(trace) ?? assert.fail(trace);
      const attempts = [...working.matchAll(/([^<>]+)([<>]?)/g)];
      let nearest = Number.POSITIVE_INFINITY;
      for (const [j, [, text, verdict]] of attempts.entries()) {
        const value = checkTry(text, p.numbers);
        assert.equal(verdict, value > p.target ? '>' : value < p.target ? '<' : '', trace);
        assert.ok(verdict !== '' || j === attempts.length - 1, `${trace}: a hit ends the search`);
        nearest = Math.min(nearest, Math.abs(value - p.target));
      }
      tries += attempts.length;
      const parsed = parseExpression(final);
      assert.ok(parsed.ok, trace);
      assert.deepEqual(numbersOf(parsed.expression).sort(), [...p.numbers].sort());
      const { numerator, denominator } = evaluateExpression(parsed.expression) ?? assert.fail(trace);
      assert.equal(denominator, 1n);
      if (attempts.length > 0)
        assert.equal(Math.abs(Number(numerator) - p.target), nearest, 'the closest try');
      if (reward(trace, p, t) === 1) solved++;
    }
    // Imperfect, and some of it successful.
    assert.ok(solved > 0 && solved < 180 && tries > 200, `${solved} solved, ${tries} tries`);
  });
}

test('experts solve more with as few tries, novices only like random search', () => {
  const solvedBy = (experts: number) => {
    const t = countdown({ experts });
    let solved = 0;
    for (let i = 0; i < 500; i++) {
      const p = t.problem('train', i, 6);
      if (reward(t.trace?.(p, i) as string, p, t) === 1) solved++;
    }
    return solved / 500;
  };
  const [novices, experts] = [solvedBy(0), solvedBy(1)];
  assert.ok(novices < 0.35 && experts > 0.45, `${novices} ${experts}`);
});

test('raw traces have no tags, but for the share that does', () => {
  const raw = countdown({ trace: 'raw', tagged: 0 });
  const some = countdown({ trace: 'raw', tagged: 0.2 });
  assert.equal(raw.template, 'raw');
  let tagged = 0;
  for (let i = 0; i < 300; i++) {
    const p = raw.problem('train', i, 7);
    assert.match(raw.trace?.(p, i) as string, /^[-+*/=0-9,<>]+ [-+*/()0-9]+$/);
    if (some.trace?.(p, i).startsWith('<think>')) tagged++;
  }
  assert.ok(tagged > 30 && tagged < 90, String(tagged));
});

test('a trace for numbers on which no step fits is a guess, not a crash', () => {
  const t = countdown({ operators: '+*/' });
  const trace = t.trace?.({ numbers: [400, 401, 701], target: 3 }, 1);
  assert.equal(trace, '<think></think><answer>400+401+701</answer>');
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
