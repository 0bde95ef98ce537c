// One, two and four threads give the same bits, at shapes that are really cut into four parts.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { Device } from '../src/compute/device/device.js';
import { adamw, norm } from '../src/compute/op/adamw/adamw.js';
import { mix } from '../src/compute/op/mix/mix.js';
import { fillSampling, readSampled, sample, samplingTensor } from '../src/compute/op/sample/sample.js';
import { columnSums } from '../src/compute/op/sum/sum.js';
import type { Tensor } from '../src/compute/tensor.js';
import { entropyBonus } from '../src/objective/entropy-bonus.js';
import { startsOf } from '../src/objective/importance-ratio.js';
import { policyLoss } from '../src/objective/policy-loss.js';
import { checkDevices, noise, type OpCase, type TestDevice, threadedDevices } from './support/op.js';
import {
  attentionCase,
  biasCase,
  divergenceCase,
  embeddingCase,
  feedForwardCase,
  gatherCase,
  headNormCase,
  linearCase,
  logprobCase,
  rmsnormCase,
  ropeCase,
  swigluCase,
  twoLinearCase,
} from './support/op-cases.js';

const devices = threadedDevices();
after(() => Promise.all(devices.map(({ device }) => device.close())));

/** The most parts that a launch of each kernel was cut into on four threads. */
const most = new Map<string, number>();
{
  const { device } = devices[2];
  const { launch } = device;
  device.launch = (compiled, items, buffers, scalars, grain = 1) => {
    const parts = Math.max(1, Math.min(device.threads, Math.floor(items / grain)));
    most.set(compiled.kernel.name, Math.max(parts, most.get(compiled.kernel.name) ?? 0));
    launch.call(device, compiled, items, buffers, scalars, grain);
  };
}

const range = (n: number, f: (i: number) => number) => Array.from({ length: n }, (_, i) => f(i));

const cases: OpCase[] = [
  { ...linearCase(203, 530, 201), tolerance: 1e-5 },
  // Rows so few that the panels are shared out instead.
  { ...linearCase(3, 700, 1500), tolerance: 1e-5 },
  rmsnormCase(131, 70),
  headNormCase(131, 5, 3, 70),
  biasCase(259, 70),
  divergenceCase(67, 9, 70, { beta: 0, temperature: 1, top: null }, 40),
  divergenceCase(67, 9, 70, { beta: 0.3, temperature: 2, top: null }, 40),
  divergenceCase(67, 9, 70, { beta: 1, temperature: 1, top: 9 }),
  swigluCase(129, 260),
  twoLinearCase(129, 260, 33),
  { ...feedForwardCase(70, 130, 200), tolerance: 1e-5 },
  embeddingCase(
    range(259, (i) => (i * 7) % 31),
    31,
    70,
  ),
  gatherCase(
    300,
    range(259, (i) => i + 11),
    70,
  ),
  ropeCase(
    range(131, (i) => i % 64),
    3,
    6,
  ),
  attentionCase(
    4,
    2,
    10,
    range(24, (i) => 1 + ((i * 5) % 23)),
  ),
  logprobCase(
    range(67, (i) => i % 33),
    9,
    33,
    0.8,
  ),
];

for (const op of cases) test(op.name, () => checkDevices(op, devices));

/** Runs the same on every device; all of a target must give the same numbers. */
function agree(run: (device: Device) => ArrayLike<number>[]): void {
  const first = new Map<string, ArrayLike<number>[]>();
  for (const { name, agree: target, device } of devices as readonly TestDevice[]) {
    const mark = device.mark();
    const got = run(device);
    device.rewind(mark);
    assert.ok(got.every((values) => Array.from(values).every(Number.isFinite)));
    assert.deepEqual(got, first.get(target) ?? got, name);
    first.set(target, got);
  }
}

const upload = (device: Device, size: number, seed: number, shape = [size]): Tensor =>
  device.upload(noise(size, seed), 'f32', shape);

test('AdamW and mixing', () => {
  const n = 40_001;
  const options = { learningRate: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, factor: 0.5 };
  agree((device) => {
    const [value, gradient, mean, target] = [1, 2, 3, 5].map((seed) => upload(device, n, seed));
    const square = device.upload(
      noise(n, 4).map((x) => x * x),
      'f32',
    );
    adamw(device, value, gradient, mean, square, { ...options, step: 3 });
    mix(device, value, target, 0.3);
    return [value, mean, square, target].map((t) => device.floats(t).slice());
  });
});

test('norms and column sums', () => {
  agree((device) => [
    [norm(device, upload(device, 40_001, 6))],
    columnSums(device, upload(device, 4_500 * 3, 7, [4_500, 3])),
  ]);
});

test('sampling', () => {
  const rows = range(67, (i) => i).map((i) => ({
    temperature: (i % 4) / 2,
    topK: i % 5,
    topP: 1 - (i % 3) / 5,
    minP: (i % 2) / 50,
    random: i / 67,
  }));
  agree((device) => {
    const sampling = samplingTensor(device, rows.length);
    fillSampling(device, sampling, rows);
    const logits = upload(device, 67 * 41, 8, [67, 41]);
    const { tokens, logprobs, samplingLogprobs } = readSampled(device, sample(device, logits, sampling));
    return [tokens, logprobs, samplingLogprobs];
  });
});

for (const surrogate of ['clip', 'cispo'] as const)
  for (const starts of [null, startsOf(range(110, (i) => 5 + (i % 11)))])
    test(`policy loss: ${surrogate}, a ratio for each ${starts ? 'completion' : 'token'}`, () => {
      const n = 1_100;
      const options = { surrogate, epsilon: 0.2, epsilonHigh: 1.28, delta: 1.5, beta: 0.1 };
      agree((device) => {
        const [logprob, entropy, old, reference, advantage, weight] = range(6, (i) => 10 + i).map((seed) =>
          upload(device, n, seed),
        );
        const into = device.temporary([n]);
        const dentropy = device.temporary([n]);
        const inputs = { logprob, entropy, old, reference, advantage, weight };
        const places = starts && device.upload(starts, 'i32');
        const sums = policyLoss(device, { ...inputs, starts: places }, options, into);
        entropyBonus(device, weight, 0.1, n, dentropy);
        return [device.floats(into).slice(), device.floats(dentropy).slice(), Object.values(sums)];
      });
    });

test('every kernel above was cut into four parts', () => {
  const serial = [...most].filter(([, parts]) => parts < devices[2].device.threads);
  assert.deepEqual(serial, []);
  assert.ok(most.size >= 24, `only ${most.size} kernels: ${[...most.keys()]}`);
});
