// The sampler against exact distributions, and against sorting for its truncations.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { noise, testDevices } from '../../../../test/support/op.js';
import type { Device } from '../../device/device.js';
import { type Sampled, type Sampling, sample } from './sample.js';

const devices = testDevices();
after(() => Promise.all(devices.map(({ device }) => device.close())));

const plain: Sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, random: 0 };

function draw(device: Device, logits: readonly number[], rows: readonly Sampling[]): Sampled {
  const mark = device.mark();
  const all = device.upload(
    rows.flatMap(() => [...logits]),
    'f32',
    [rows.length, logits.length],
  );
  const sampled = sample(device, all, rows);
  device.rewind(mark);
  return sampled;
}

function softmax(logits: readonly number[], temperature: number): number[] {
  const z = logits.map((x) => x / temperature);
  const peak = Math.max(...z);
  const e = z.map((x) => Math.exp(x - peak));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}

/** What is kept, by sorting: top-k, then top-p over what is left, then min-p. */
function keptBySorting(logits: readonly number[], s: Sampling): Set<number> {
  let kept = logits.map((_, i) => i).sort((a, b) => logits[b] - logits[a]);
  const p = softmax(logits, s.temperature);
  if (s.topK > 0) kept = kept.slice(0, s.topK);
  if (s.topP < 1) {
    const all = kept.reduce((sum, i) => sum + p[i], 0);
    let mass = 0;
    kept = kept.filter((i) => {
      const before = mass;
      mass += p[i];
      return before < s.topP * all;
    });
  }
  if (s.minP > 0) kept = kept.filter((i) => p[i] >= s.minP * Math.max(...p));
  return new Set(kept);
}

test('greedy takes the likeliest token, the first of equals', () => {
  for (const { device } of devices) {
    const greedy = { ...plain, temperature: 0 };
    assert.deepEqual([...draw(device, [1, 5, 5, 2, -3], [greedy]).tokens], [1]);
    assert.deepEqual([...draw(device, [Number.NEGATIVE_INFINITY, 0.5], [greedy]).tokens], [1]);
    const { logprobs } = draw(device, [0, Math.log(3)], [greedy]);
    assert.ok(Math.abs(logprobs[0] - Math.log(0.75)) < 1e-6);
  }
});

test('evenly spread random numbers give the distribution, at any temperature', () => {
  const logits = [...noise(13, 3, 4)];
  const n = 2000;
  for (const temperature of [0.5, 1, 2]) {
    const rows = Array.from({ length: n }, (_, i) => ({ ...plain, temperature, random: (i + 0.5) / n }));
    const expected = softmax(logits, temperature);
    for (const { name, device } of devices) {
      const { tokens, logprobs, samplingLogprobs } = draw(device, logits, rows);
      const counts = logits.map((_, i) => tokens.filter((t) => t === i).length);
      // Inverting the cumulative distribution on an even grid misses each share by at most one grid step at each end.
      for (const [i, count] of counts.entries()) {
        assert.ok(
          Math.abs(count - n * expected[i]) <= 1.1,
          `${name}: token ${i}: ${count} of ${n * expected[i]}`,
        );
      }
      const model = softmax(logits, 1);
      tokens.forEach((token, i) => {
        assert.ok(Math.abs(logprobs[i] - Math.log(model[token])) < 2e-6);
        assert.ok(Math.abs(samplingLogprobs[i] - Math.log(expected[token])) < 4e-6);
      });
    }
  }
});

test('top-k, top-p and min-p keep what sorting keeps', () => {
  const cases: Partial<Sampling>[] = [
    { topK: 1 },
    { topK: 3 },
    { topK: 40 },
    { topP: 0.5 },
    { topP: 0.9 },
    { topP: 1e-6 },
    { minP: 0.1 },
    { minP: 1 },
    { topK: 5, topP: 0.7 },
    { topK: 8, minP: 0.2, temperature: 0.6 },
    { topP: 0.8, minP: 0.05, temperature: 1.7 },
  ];
  for (const seed of [1, 2, 3]) {
    const logits = [...noise(21, seed, 5)];
    for (const options of cases) {
      const s = { ...plain, ...options };
      const rows = Array.from({ length: 4000 }, (_, i) => ({ ...s, random: (i + 0.5) / 4000 }));
      const expected = keptBySorting(logits, s);
      for (const { name, device } of devices) {
        const got = new Set(draw(device, logits, rows).tokens);
        for (const token of got)
          assert.ok(expected.has(token), `${name} ${JSON.stringify(options)}: ${token} should be cut`);
        const p = softmax(logits, s.temperature);
        const mass = [...expected].reduce((sum, i) => sum + p[i], 0);
        for (const token of expected) {
          if (p[token] / mass > 1 / 3000)
            assert.ok(got.has(token), `${name} ${JSON.stringify(options)}: ${token} is missing`);
        }
      }
    }
  }
});

test('the ends of the random numbers pick possible tokens, impossible tokens are never picked', () => {
  const logits = [Number.NEGATIVE_INFINITY, 2, Number.NEGATIVE_INFINITY, 1, -200, Number.NEGATIVE_INFINITY];
  const almostOne = 1 - 2 ** -24;
  const rows = [0, 1e-9, 0.5, almostOne].map((random) => ({ ...plain, random }));
  for (const { name, device } of devices) {
    const { tokens, logprobs } = draw(device, logits, rows);
    assert.deepEqual([...tokens], [1, 1, 1, 3], name);
    assert.ok(logprobs.every((x) => Number.isFinite(x) && x <= 0));
  }
});

test('a row samples the same whatever stands beside it', () => {
  const logits = [...noise(50, 7, 3)];
  const rows = Array.from({ length: 64 }, (_, i) => ({
    ...plain,
    temperature: 0.5 + (i % 5) / 2,
    topK: i % 7,
    topP: 1 - (i % 3) / 4,
    random: ((i * 37) % 64) / 64,
  }));
  for (const { device } of devices) {
    const together = draw(device, logits, rows);
    rows.forEach((row, i) => {
      const alone = draw(device, logits, [row]);
      assert.equal(alone.tokens[0], together.tokens[i]);
      assert.equal(alone.samplingLogprobs[0], together.samplingLogprobs[i]);
    });
  }
});

test('what does not fit is refused', () => {
  const { device } = devices[0];
  assert.throws(() => sample(device, device.upload([1, 2], 'f32', [1, 2]), [plain, plain]), /give one a row/);
});
