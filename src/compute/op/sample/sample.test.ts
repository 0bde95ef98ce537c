// The sampler against exact distributions and against truncation by sorting.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { noise, testDevices } from '../../../../test/support/op.js';
import type { Device } from '../../device/device.js';
import { greedyReference, softmaxReference, truncatedReference } from './reference.js';
import { fillSampling, readSampled, type Sampled, type Sampling, sample, samplingTensor } from './sample.js';

const devices = testDevices();
const wasm = devices[0].device;
after(() => Promise.all(devices.map(({ device }) => device.close())));

const plain: Sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, random: 0 };
const nothing = Number.NEGATIVE_INFINITY;

/** One row of the same logits for each sampling. */
function draw(device: Device, logits: readonly number[], rows: readonly Sampling[]): Sampled {
  const mark = device.mark();
  const all = device.upload(
    rows.flatMap(() => [...logits]),
    'f32',
    [rows.length, logits.length],
  );
  const sampling = samplingTensor(device, rows.length);
  fillSampling(device, sampling, rows);
  const sampled = readSampled(device, sample(device, all, sampling));
  device.rewind(mark);
  return sampled;
}

/** Draws on every device; those that must agree give the same bits. */
function drawEverywhere(
  logits: readonly number[],
  rows: readonly Sampling[],
  check: (sampled: Sampled, name: string) => void,
): void {
  const first = new Map<string, Sampled>();
  for (const { name, agree, device } of devices) {
    const sampled = draw(device, logits, rows);
    check(sampled, name);
    const before = first.get(agree);
    if (before) assert.deepEqual(sampled, before, `${name} differs in bits`);
    first.set(agree, sampled);
  }
}

const grid = (n: number, s: Sampling) =>
  Array.from({ length: n }, (_, i) => ({ ...s, random: (i + 0.5) / n }));

/** The middle of the grid step falls to the token whose share of [0, 1) it lies in, shares in the order of ids. */
function checkTokens(
  tokens: readonly number[],
  rows: readonly Sampling[],
  expected: readonly number[],
  name: string,
) {
  const upTo = [0];
  for (const x of expected) upTo.push(upTo[upTo.length - 1] + x);
  tokens.forEach((token, i) => {
    assert.ok(expected[token] > 0, `${name}: token ${token} is cut, but drawn`);
    const { random } = rows[i];
    assert.ok(
      random > upTo[token] - 1e-5 && random < upTo[token + 1] + 1e-5,
      `${name}: ${random} drew token ${token}, whose share is ${upTo[token]} to ${upTo[token + 1]}`,
    );
  });
}

const TRUNCATIONS: readonly Partial<Sampling>[] = [
  {},
  { temperature: 0.5 },
  { temperature: 2 },
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

for (const options of TRUNCATIONS)
  test(`draws the exact distribution: ${JSON.stringify(options)}`, () => {
    const s = { ...plain, ...options };
    for (const vocabulary of [1, 3, 8, 17, 33]) {
      const logits = [...noise(vocabulary, vocabulary, 4)];
      const expected = truncatedReference(logits, s);
      const n = 1000;
      const { tokens } = draw(wasm, logits, grid(n, s));
      // Inverting the cumulative distribution on an even grid misses a share by at most a step at each of its ends.
      expected.forEach((share, i) => {
        const count = tokens.filter((t) => t === i).length;
        assert.ok(Math.abs(count - n * share) <= 1.1, `${count} draws of ${i}, ${n * share} expected`);
      });
      const model = softmaxReference(logits, 1);
      const sharpened = softmaxReference(logits, s.temperature);
      const rows = grid(13, s);
      drawEverywhere(logits, rows, ({ tokens, logprobs, samplingLogprobs }, name) => {
        checkTokens(tokens, rows, expected, name);
        tokens.forEach((token, i) => {
          assert.ok(Math.abs(logprobs[i] - Math.log(model[token])) < 2e-6, name);
          assert.ok(Math.abs(samplingLogprobs[i] - Math.log(sharpened[token])) < 4e-6, name);
        });
      });
    }
  });

test('a vocabulary of many chunks', () => {
  const logits = [...noise(3001, 5, 6)];
  for (const options of [{}, { topK: 50 }, { topP: 0.9 }, { topK: 700, topP: 0.8, minP: 0.01 }]) {
    const rows = grid(200, { ...plain, ...options });
    const { tokens } = draw(wasm, logits, rows);
    checkTokens(tokens, rows, truncatedReference(logits, rows[0]), JSON.stringify(options));
  }
});

test('tokens tied with the last one kept are kept', () => {
  const logits = [1, 3, 3, 0, 3, 1];
  for (const options of [{ topK: 2 }, { topP: 0.3 }, { minP: 1 }]) {
    const rows = grid(30, { ...plain, ...options });
    const third = [0, 1 / 3, 1 / 3, 0, 1 / 3, 0];
    const expected = truncatedReference(logits, rows[0]);
    expected.forEach((x, i) => {
      assert.ok(Math.abs(x - third[i]) < 1e-12);
    });
    drawEverywhere(logits, rows, ({ tokens }, name) => checkTokens(tokens, rows, expected, name));
  }
});

test('greedy takes the likeliest token, the first of equals', () => {
  const rows = [{ ...plain, temperature: 0 }];
  const cases = [
    [7],
    [1, 5, 5, 2, -3],
    [5, 5, 5, 5, 5, 5, 5, 5, 5],
    [nothing, 0.5],
    [0, 0, nothing, 3e38, 3e38],
  ];
  for (const n of [5, 8, 33]) cases.push([...noise(n, n)]);
  for (const logits of cases) {
    const p = softmaxReference(logits, 1);
    drawEverywhere(logits, rows, ({ tokens, logprobs, samplingLogprobs }, name) => {
      const token = greedyReference(logits);
      assert.deepEqual([...tokens], [token], name);
      assert.ok(Math.abs(logprobs[0] - Math.log(p[token])) < 1e-6, name);
      assert.equal(samplingLogprobs[0], logprobs[0]);
    });
  }
});

test('the smallest temperatures are greedy, not broken', () => {
  const rows = [1e-30, 1e-38, 1e-39, 1e-44].map((temperature) => ({ ...plain, temperature, random: 0.5 }));
  drawEverywhere([1, 0, 4, -2, nothing], rows, ({ tokens, samplingLogprobs }, name) => {
    assert.deepEqual([...tokens], [2, 2, 2, 2], name);
    assert.deepEqual([...samplingLogprobs], [0, 0, 0, 0], name);
  });
});

test('the ends of the random numbers pick possible tokens, impossible tokens are never picked', () => {
  const logits = [nothing, 2, nothing, 1, -200, nothing];
  const rows = [0, 1e-9, 0.5, 1 - 2 ** -24, 1].map((random) => ({ ...plain, random }));
  drawEverywhere(logits, rows, ({ tokens, logprobs }, name) => {
    assert.deepEqual([...tokens], [1, 1, 1, 3, 3], name);
    assert.ok(logprobs.every((x) => Number.isFinite(x) && x <= 0));
  });
  for (const seed of [1, 2, 3, 4]) {
    const many = [...noise(61, seed, 9)].map((x, i) => (i % 3 === 0 ? nothing : x));
    const { tokens } = draw(wasm, many, [
      { ...plain, random: 0 },
      { ...plain, random: 1 - 2 ** -24 },
    ]);
    assert.deepEqual([...tokens], [1, 59]);
  }
});

test('a broken logit shows in the log-probability, greedy or not', () => {
  for (const broken of [Number.NaN, Number.POSITIVE_INFINITY])
    for (const at of [0, 4, 6])
      for (const temperature of [0, 1]) {
        const logits = [...noise(7, 1)].map((x, i) => (i === at ? broken : x));
        drawEverywhere(logits, [{ ...plain, temperature, random: 0.3 }], ({ tokens, logprobs }, name) => {
          assert.ok(Number.isNaN(logprobs[0]), `${name}: ${broken} at ${at}`);
          assert.ok(tokens[0] >= 0 && tokens[0] < 7);
        });
      }
});

test('a row samples the same whatever stands beside it', () => {
  const logits = [...noise(50, 7, 3)];
  const rows = Array.from({ length: 64 }, (_, i) => ({
    temperature: (i % 5) / 2,
    topK: i % 7,
    topP: 1 - (i % 3) / 4,
    minP: (i % 2) / 20,
    random: ((i * 37) % 64) / 64,
  }));
  const together = draw(wasm, logits, rows);
  rows.forEach((row, i) => {
    const alone = draw(wasm, logits, [row]);
    assert.equal(alone.tokens[0], together.tokens[i]);
    assert.equal(alone.samplingLogprobs[0], together.samplingLogprobs[i]);
  });
});

test('no rows give no tokens; a sampling too many or too few is refused', () => {
  assert.equal(draw(wasm, [1, 2], []).tokens.length, 0);
  const logits = wasm.upload([1, 2], 'f32', [1, 2]);
  for (const rows of [0, 2]) {
    const sampling = samplingTensor(wasm, rows);
    assert.throws(() => fillSampling(wasm, sampling, [plain]), /give one a row/);
    assert.throws(() => sample(wasm, logits, sampling), /give one a row/);
  }
});
