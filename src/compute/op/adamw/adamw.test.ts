// AdamW, norms, sums and mixing against float64, at sizes around the chunks.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { noise, relativeError, testDevices } from '../../../../test/support/op.js';
import { mix } from '../mix/mix.js';
import { columnSums } from '../sum/sum.js';
import { adamw, norm } from './adamw.js';

const devices = testDevices();
after(() => Promise.all(devices.map(({ device }) => device.close())));

const SIZES = [1, 3, 8, 17, 1023, 1024, 1025, 3000];

/** One step in float64, as PyTorch's AdamW does it. */
function reference(p: Float64Array, g: Float64Array, m: Float64Array, v: Float64Array, step: number) {
  const [lr, b1, b2, eps, wd, factor] = [1e-2, 0.9, 0.95, 1e-8, 0.1, 0.5];
  for (let i = 0; i < p.length; i++) {
    const gradient = factor * g[i];
    m[i] = b1 * m[i] + (1 - b1) * gradient;
    v[i] = b2 * v[i] + (1 - b2) * gradient ** 2;
    p[i] *= 1 - lr * wd;
    p[i] -= (lr * (m[i] / (1 - b1 ** step))) / (Math.sqrt(v[i] / (1 - b2 ** step)) + eps);
  }
}

test('three AdamW steps agree with float64 and among devices', () => {
  for (const n of SIZES) {
    const [p, m, v] = [noise(n, 1), new Float64Array(n), new Float64Array(n)];
    const gradients = [2, 3, 4].map((seed) => noise(n, seed));
    gradients.forEach((g, i) => {
      reference(p, g, m, v, i + 1);
    });
    const first = new Map<string, Float32Array>();
    for (const { name, agree, device } of devices) {
      const mark = device.mark();
      const [value, gradient, mean, square] = [0, 1, 2, 3].map(() => device.temporary([n]));
      device.floats(value).set(noise(n, 1));
      device.fill(mean, 0);
      device.fill(square, 0);
      gradients.forEach((g, i) => {
        device.floats(gradient).set(g);
        adamw(device, value, gradient, mean, square, {
          learningRate: 1e-2,
          beta1: 0.9,
          beta2: 0.95,
          eps: 1e-8,
          weightDecay: 0.1,
          step: i + 1,
          factor: 0.5,
        });
      });
      const got = device.floats(value).slice();
      device.rewind(mark);
      assert.ok(relativeError(got, p) < 1e-6, `${n} on ${name}: ${relativeError(got, p)}`);
      const before = first.get(agree);
      if (before) assert.deepEqual(got, before, `${n} on ${name}`);
      first.set(agree, got);
    }
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

test('sums of nothing are 0', () => {
  const { device } = devices[0];
  assert.deepEqual(columnSums(device, device.temporary([0, 4])), [0, 0, 0, 0]);
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
