// Statistics: published values, exact enumeration, and the coverage of the intervals by simulation.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetortError } from '../errors.js';
import { randomFor } from '../task/random.js';
import {
  bestAtK,
  bestAtKOver,
  majorityAtK,
  majorityAtKOver,
  passAtK,
  passAtKOver,
  shareEstimate,
  type Vote,
  wilson,
} from './statistics.js';

const near = (got: number, expected: number, within = 5e-5) =>
  assert.ok(Math.abs(got - expected) <= within, `${got} is not ${expected}`);

test('Wilson intervals as published (Newcombe 1998, table I, method 3)', () => {
  for (const [successes, trials, low, high] of [
    [81, 263, 0.2553, 0.3662],
    [15, 148, 0.0624, 0.1605],
    [0, 20, 0, 0.1611],
    [1, 29, 0.0061, 0.1718],
  ]) {
    const { value, interval } = wilson(successes, trials);
    assert.equal(value, successes / trials);
    near(interval[0], low);
    near(interval[1], high);
  }
  assert.equal(wilson(20, 20).interval[1], 1);
  assert.throws(() => wilson(1, 0), RetortError);
  assert.throws(() => wilson(3, 2), RetortError);
});

test('pass@k equals the share of all subsets of size k that hold a right sample', () => {
  for (let n = 1; n <= 8; n++) {
    for (let c = 0; c <= n; c++) {
      for (let k = 1; k <= n; k++) {
        let subsets = 0;
        let hits = 0;
        for (let mask = 0; mask < 1 << n; mask++) {
          const members = Array.from({ length: n }, (_, i) => i).filter((i) => mask & (1 << i));
          if (members.length !== k) continue;
          subsets++;
          if (members.some((i) => i < c)) hits++;
        }
        near(passAtK(n, c, k), hits / subsets, 1e-12);
      }
    }
  }
  near(passAtK(200, 10, 100), 0.99921, 5e-5);
  assert.equal(passAtK(10_000, 0, 100), 0);
  assert.equal(passAtK(10, 10, 1), 1);
  assert.throws(() => passAtK(4, 1, 5), RetortError);
  assert.throws(() => passAtK(4, 5, 1), RetortError);
  assert.throws(() => passAtK(4, 1, 0), RetortError);
});

const votes = (text: string): Vote[] =>
  text
    .split('')
    .map((c) => ({ key: c === '-' ? null : c.toLowerCase(), correct: c !== '-' && c === c.toUpperCase() }));

test('maj@k: capital letters are right answers, - is no answer', () => {
  assert.equal(majorityAtK(votes('AAb'), 3), 1);
  assert.equal(majorityAtK(votes('Abb'), 3), 0);
  assert.equal(majorityAtK(votes('A--'), 3), 1, 'samples without an answer do not vote');
  assert.equal(majorityAtK(votes('---'), 3), 0);
  assert.equal(majorityAtK(votes('Ab'), 2), 0.5, 'a tie is broken by chance');
  near(majorityAtK(votes('Abc'), 3), 1 / 3, 1e-12);
  assert.equal(majorityAtK(votes('AAbbC'), 5), 0.5, 'only the tied keys share');
  assert.equal(majorityAtK(votes('AAbb'), 2), 0.5, 'two groups of two: one right, one wrong');
  assert.equal(majorityAtK(votes('AAbbb'), 2), 0.5, 'what is left over does not vote');
  assert.equal(majorityAtK(votes('Aa'), 2), 0.5, 'one key scored both ways counts its share');
  assert.throws(() => majorityAtK(votes('AA'), 3), RetortError);
});

test('best@k: the best rated of each group, equals by their share, NaN last', () => {
  const rated = (...pairs: readonly (readonly [rating: number, correct: boolean])[]) =>
    pairs.map(([rating, correct]) => ({ rating, correct }));
  const four = rated([0.1, false], [0.5, true], [0.9, false], [0.2, true]);
  assert.equal(bestAtK(four, 1), 0.5);
  assert.equal(bestAtK(four, 2), 0.5);
  assert.equal(bestAtK(four, 3), 0);
  assert.equal(bestAtK(four, 4), 0);
  assert.equal(bestAtK(rated([1, true], [1, false], [0, false]), 3), 0.5);
  assert.equal(bestAtK(rated([Number.NaN, false], [-5, true]), 2), 1);
  assert.equal(bestAtK(rated([Number.NaN, true], [Number.NaN, false]), 2), 0.5);
  assert.equal(bestAtKOver([four, rated([1, true], [0, false], [0, false], [0, false])], 4).value, 0.5);
  assert.throws(() => bestAtK(four, 5), /k of best@k: got 5; give 1 to the number of samples, which is 4/);
});

test('estimates over problems: the mean, and an interval that is no wider than for one sample and no point', () => {
  const oneSample = shareEstimate([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  near(oneSample.value, 0.2, 1e-12);
  assert.deepEqual(oneSample.interval, wilson(2, 10).interval);
  assert.deepEqual(shareEstimate([1, 1, 1]).interval, wilson(3, 3).interval);
  assert.deepEqual(shareEstimate([0.5]).interval, wilson(0.5, 1).interval);
  const equalShares = shareEstimate([0.5, 0.5, 0.5, 0.5], 8);
  assert.deepEqual(equalShares.interval, wilson(2, 4).interval);
  const manySamples = shareEstimate([0.4, 0.6, 0.5, 0.5], 8);
  const width = ({ interval: [low, high] }: { interval: readonly [number, number] }) => high - low;
  assert.ok(width(manySamples) < width(wilson(2, 4)));
  assert.ok(width(manySamples) >= width(wilson(16, 32)) - 1e-12);
  assert.throws(() => shareEstimate([]), RetortError);
  near(
    passAtKOver(
      [
        { samples: 4, right: 2 },
        { samples: 4, right: 0 },
      ],
      2,
    ).value,
    5 / 12,
    1e-12,
  );
  near(majorityAtKOver([votes('AAb'), votes('Abb')], 3).value, 0.5, 1e-12);
});

test('the interval holds the true pass@k about 95 times in 100', () => {
  // 60 problems of differing difficulty, 4 samples each, pass@2, 2,000 repetitions.
  const k = 2;
  let holds = 0;
  const repetitions = 2000;
  // Difficulty is uniform on 0..1, so the true pass@2 is the integral of 1-(1-p)^2, which is 2/3.
  for (let r = 0; r < repetitions; r++) {
    const random = randomFor('coverage', r);
    const counts = Array.from({ length: 60 }, () => {
      const p = random.fraction();
      let right = 0;
      for (let s = 0; s < 4; s++) if (random.chance(p)) right++;
      return { samples: 4, right };
    });
    const [low, high] = passAtKOver(counts, k).interval;
    if (low <= 2 / 3 && 2 / 3 <= high) holds++;
  }
  const coverage = holds / repetitions;
  assert.ok(coverage > 0.93 && coverage < 0.975, String(coverage));
});
