// AdamW, norms, sums and mixing against float64, at sizes around the chunks.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { noise, relativeError, testDevices } from '../../../../test/support/op.js';
import { mix } from '../mix/mix.js';
import { columnSums } from '../sum/sum.js';
import { type AdamwStep, adamw, norm } from './adamw.js';
import { adamwReference } from './reference.js';

const devices = testDevices();
after(() => Promise.all(devices.map(({ device }) => device.close())));

const SIZES = [1, 3, 8, 17, 1023, 1024, 1025, 3000];

const usual: Omit<AdamwStep, 'step'> = {
  learningRate: 1e-2,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-8,
  weightDecay: 0.1,
  factor: 0.5,
};

function difference(after: ArrayLike<number>, before: Float64Array): Float64Array {
  return before.map((x, i) => after[i] - x);
}

for (const [name, options, firstStep] of [
  ['usual', usual, 1],
  ['no decay, no clipping', { ...usual, weightDecay: 0, factor: 1 }, 1],
  ['an epsilon that matters', { ...usual, eps: 0.3 }, 1],
  ['a late step', usual, 10_000],
  ['no memory of gradients', { ...usual, beta1: 0, beta2: 0 }, 1],
] as const)
  test(`three AdamW steps agree with float64 and among devices: ${name}`, () => {
    for (const n of [0, ...SIZES]) {
      const start = noise(n, 1);
      // Some gradients are 0 in every step: nothing may be divided by 0.
      const gradients = [2, 3, 4].map((seed) => noise(n, seed).map((x, i) => (i % 5 === 3 ? 0 : x)));
      const [p, m, v] = [start.slice(), new Float64Array(n), new Float64Array(n)];
      gradients.forEach((g, i) => {
        adamwReference(p, g, m, v, { ...options, step: firstStep + i });
      });
      const first = new Map<string, Float32Array[]>();
      for (const { name: where, agree, device } of devices) {
        const mark = device.mark();
        const [value, mean, square] = [start, 0, 0].map((x) => {
          const t = device.temporary([n]);
          if (typeof x === 'number') device.fill(t, x);
          else device.floats(t).set(x);
          return t;
        });
        gradients.forEach((g, i) => {
          const step = { ...options, step: firstStep + i };
          adamw(device, value, device.upload(g, 'f32'), mean, square, step);
        });
        const got = [value, mean, square].map((t) => device.floats(t).slice());
        device.rewind(mark);
        // The moves are compared: next to the values a wrong epsilon would not show. A value is rounded in each step.
        const moved = difference(p, start);
        difference(got[0], start).forEach((move, i) => {
          const allowed = 1e-5 * Math.abs(moved[i]) + 4e-7 * Math.abs(start[i]);
          assert.ok(Math.abs(move - moved[i]) <= allowed, `${n} on ${where}: moved ${move}, not ${moved[i]}`);
        });
        assert.ok(relativeError(got[1], m) < 1e-6, `${n} on ${where}: mean`);
        assert.ok(relativeError(got[2], v) < 1e-6, `${n} on ${where}: square`);
        const before = first.get(agree);
        if (before) assert.deepEqual(got, before, `${n} on ${where}`);
        first.set(agree, got);
      }
    }
  });

test('the norm of nothing is 0; gradients that overflow give Infinity, and a NaN is not lost', () => {
  for (const { device } of devices) {
    const mark = device.mark();
    assert.equal(norm(device, device.temporary([0])), 0);
    assert.equal(norm(device, device.upload(new Array(5).fill(3e38), 'f32')), Number.POSITIVE_INFINITY);
    for (const at of [0, 1024, 3000]) {
      const x = noise(3001, 1);
      x[at] = Number.NaN;
      assert.ok(Number.isNaN(norm(device, device.upload(x, 'f32'))), `NaN at ${at}`);
    }
    device.rewind(mark);
  }
});

test('norms and column sums agree with float64 and among devices', () => {
  for (const n of SIZES) {
    const x = noise(n, 5);
    const rows = noise(n * 3, 6);
    const first = new Map<string, number[]>();
    for (const { name, agree, device } of devices) {
      const mark = device.mark();
      const got = [
        norm(device, device.upload(x, 'f32')),
        ...columnSums(device, device.upload(rows, 'f32', [n, 3])),
      ];
      device.rewind(mark);
      const expected = [
        Math.hypot(...x),
        ...[0, 1, 2].map((c) => rows.reduce((sum, v, i) => sum + (i % 3 === c ? v : 0), 0)),
      ];
      for (const [i, value] of got.entries()) {
        assert.ok(
          Math.abs(value - expected[i]) < 1e-5 * Math.max(1, Math.sqrt(n)),
          `${n} on ${name}: ${value}, ${expected[i]}`,
        );
      }
      const before = first.get(agree);
      if (before) assert.deepEqual(got, before);
      first.set(agree, got);
    }
  }
});

test('sums of nothing are 0, and of many rows pass through a second tree', () => {
  const { device } = devices[0];
  const mark = device.mark();
  assert.deepEqual(columnSums(device, device.temporary([0, 4])), [0, 0, 0, 0]);
  const rows = 256 * 256 + 1;
  const ones = device.temporary([rows, 2]);
  device.fill(ones, 1);
  assert.deepEqual(columnSums(device, ones), [rows, rows]);
  device.rewind(mark);
});

test('mixing moves a share of the way', () => {
  for (const { device } of devices) {
    for (const n of SIZES) {
      const mark = device.mark();
      const [from, into] = [device.upload(noise(n, 7), 'f32'), device.upload(noise(n, 8), 'f32')];
      mix(device, from, into, 0.25);
      const [a, b] = [noise(n, 7), noise(n, 8)];
      assert.ok(
        relativeError(
          device.floats(into),
          b.map((x, i) => x + 0.25 * (a[i] - x)),
        ) < 1e-6,
      );
      device.rewind(mark);
    }
  }
});
