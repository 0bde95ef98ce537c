// Curves and bands of a report's page: ranges, interpolation, running means, and the points that stand for long runs.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bandOf, curveOf, short } from './page/curves.js';
import { condense, MOST_POINTS } from './report-series.js';

const run = (columns: Record<string, (number | null)[]>) => ({ label: 'a', columns });

test('a curve has the rows where both are known; of rows at one place the last', () => {
  const columns = {
    step: [1, 2, 3, 4],
    num_tokens: [10, 10, null, 40],
    loss: [4, 3, 2, null],
    late: [null, 7, null, 9],
  };
  assert.deepEqual(curveOf(run(columns), 'step', 'loss'), { xs: [1, 2, 3], ys: [4, 3, 2] });
  assert.deepEqual(curveOf(run(columns), 'num_tokens', 'loss'), { xs: [10], ys: [3] });
  assert.deepEqual(curveOf(run(columns), 'step', 'late'), { xs: [2, 4], ys: [7, 9] });
  assert.deepEqual(curveOf(run(columns), 'seconds', 'loss'), { xs: [], ys: [] });
  assert.deepEqual(curveOf(run(columns), 'step', 'loss', 2).ys, [4, 3.5, 2.5]);
});

test('a band goes as far as all its curves do, each straight between its points', () => {
  const band = bandOf([
    { xs: [0, 10, 20], ys: [0, 10, 0] },
    { xs: [5, 15, 30], ys: [1, 3, 3] },
    { xs: [], ys: [] },
  ]);
  assert.deepEqual(band, {
    xs: [5, 10, 15, 20],
    mean: [3, 6, 4, 1.5],
    low: [1, 2, 3, 0],
    high: [5, 10, 5, 3],
  });
  assert.deepEqual(bandOf([]).xs, []);
  const apart = bandOf([
    { xs: [1, 2], ys: [1, 1] },
    { xs: [3, 4], ys: [1, 1] },
  ]);
  assert.deepEqual(apart.xs, []);
});

test('a band holds every curve at every x, and one curve is its own band', () => {
  const curve = fc.uniqueArray(fc.integer({ min: 0, max: 40 }), { minLength: 1 }).chain((xs) =>
    fc
      .array(fc.double({ min: -1e3, max: 1e3, noNaN: true }), {
        minLength: xs.length,
        maxLength: xs.length,
      })
      .map((ys) => ({ xs: [...xs].sort((a, b) => a - b), ys })),
  );
  fc.assert(
    fc.property(fc.array(curve, { minLength: 1, maxLength: 4 }), (curves) => {
      const { xs, mean, low, high } = bandOf(curves);
      xs.forEach((x, i) => {
        assert.ok(low[i] - 1e-9 <= mean[i] && mean[i] <= high[i] + 1e-9);
        for (const one of curves) {
          const at = one.xs.indexOf(x);
          if (at >= 0) assert.ok(low[i] <= one.ys[at] && one.ys[at] <= high[i]);
        }
      });
      // -0 as 0, as a sum has it.
      assert.deepEqual(
        bandOf([curves[0]]).mean,
        curves[0].ys.map((y) => y + 0),
      );
    }),
  );
});

test('long runs: means of stretches, counters at their ends', () => {
  const length = 2 * MOST_POINTS + 1;
  const step = Array.from({ length }, (_, i) => i + 1);
  const points = condense({
    step,
    loss: step.map(String).map(Number),
    eval: step.map((s) => (s % 6 ? null : s)),
  });
  assert.equal(points.step.length, Math.ceil(length / 3));
  assert.deepEqual(points.step.slice(0, 2), [3, 6]);
  assert.equal(points.step.at(-1), length);
  assert.deepEqual(points.loss.slice(0, 2), [2, 5]);
  assert.deepEqual(points.eval.slice(0, 4), [null, 6, null, 12]);
  const few = { step: [1, 2], x: [1 / 3, null] };
  assert.deepEqual(condense(few), { step: [1, 2], x: [0.333333, null] });
});

test('numbers as charts say them', () => {
  const said = [0, 0.25, 1234.567, 12345, 1.5e9, 0.00012345, -3].map(short);
  assert.deepEqual(said, ['0', '0.25', '1235', '12.35K', '1.5B', '1.23e-4', '-3']);
});
