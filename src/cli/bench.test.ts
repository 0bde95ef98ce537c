// The benchmarks: operations counted by hand, medians, and the fields that others rely on.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDevice } from '../compute/device/device.js';
import { measure, median } from './bench-measure.js';
import { benchConfig, decodeFlops, trainFlops, withDecoding, withTraining } from './bench-models.js';
import { profile } from './bench-profile.js';

test('operations of a token, by hand', () => {
  const d = 128;
  const hidden = 352; // 8/3 x 128 = 341.3, up to a multiple of 32
  const layer = 4 * d * d + 3 * d * hidden + 2 * d;
  const working = 4 * layer + d + 64 * d; // final norm and head; the embedding is only looked up
  const config = benchConfig(d, 128);
  assert.equal(config.intermediateSize, hidden);
  assert.equal(decodeFlops(config, 128), 2 * working + 2 * 4 * d * 128);
  assert.equal(trainFlops(config, 128), 6 * working + 6 * 4 * d * 128);
});

test('medians', () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
});

test('work is measured beside the multiply-add loop', async () => {
  const device = createDevice({ threads: 2 });
  try {
    let runs = 0;
    const counted = (work: () => void) => () => {
      runs++;
      work();
    };
    const trained = withTraining(device, 16, { batch: 2, sequence: 8 }, (step) =>
      measure(device, 3, 1e6, counted(step)),
    );
    assert.equal(runs, 5);
    const decoded = withDecoding(device, 16, { batch: 3, tokens: 5 }, (round) =>
      measure(device, 2, 1e6, counted(round)),
    );
    assert.equal(runs, 9);
    for (const { seconds, shareOfPeak, peakGflops, disturbance } of [trained, decoded]) {
      assert.ok(seconds > 0 && shareOfPeak > 0 && peakGflops > 0 && disturbance >= 0 && disturbance < 1);
    }
    const { parameters, gradients, optimizer, kvCache } = device.memory();
    const left = [parameters, gradients, optimizer, kvCache].map((kind) => kind.current);
    assert.deepEqual(left, [0, 0, 0, 0]);
  } finally {
    await device.close();
  }
});

test('a profile of decoding tells its kernels apart', async () => {
  const device = createDevice({ threads: 2 });
  try {
    const { kernels, outside } = withDecoding(device, 32, { batch: 4, tokens: 6 }, (round) =>
      profile(device, 6, round),
    );
    const launches = (name: string) => kernels.find(({ kernel }) => kernel === name)?.launches ?? 0;
    // Four layers of four products each, and the head.
    assert.ok(launches('matmul') >= 17, JSON.stringify(kernels));
    assert.ok(outside < 1 && !device.stepwise);
  } finally {
    await device.close();
  }
});

test('a profile counts what the step does, and leaves the device as it was', async () => {
  const device = createDevice({ threads: 2 });
  try {
    const { launch } = device;
    const shape = { batch: 2, sequence: 8 };
    const { kernels, outside, secondsPerStep } = withTraining(device, 32, shape, (step) =>
      profile(device, 1, step),
    );
    assert.equal(device.launch, launch);
    assert.ok(secondsPerStep > 0 && outside > 0 && outside < 1);
    const shares = kernels.reduce((sum, k) => sum + k.shareOfTime, outside);
    assert.ok(Math.abs(shares - 1) < 1e-9);
    const products = kernels.filter(({ kernel }) => kernel.startsWith('matmul'));
    const flops = products.reduce((sum, k) => sum + k.flops, 0);
    // Panels and tails count as whole vectors, so the count is above the model's.
    const least = 16 * (trainFlops(benchConfig(32, 8), 8) - 6 * 4 * 32 * 8);
    assert.ok(flops >= 0.95 * least && flops < 3 * least, `${flops} of ${least}`);
    assert.ok(kernels.every((k) => k.launches >= 1 && k.bytes > 0));
  } finally {
    await device.close();
  }
});
