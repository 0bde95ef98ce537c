// The policy loss with each surrogate and each kind of ratio: its float64 reference against finite differences, every
// device against the reference. The comparison with PyTorch is in test/golden.test.ts.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { noise, relativeError, testDevices } from '../../test/support/op.js';
import { entropyBonus } from './entropy-bonus.js';
import { startsOf } from './importance-ratio.js';
import { type PolicyLossOptions, policyLoss } from './policy-loss.js';
import { policyLossGradientReference, type ReferenceInputs, tokenLossReference } from './reference.js';

const devices = testDevices();
after(() => Promise.all(devices.map(({ device }) => device.close())));

const LENGTHS = [1, 7, 2, 19, 1, 33, 4, 12];
const TOKENS = LENGTHS.reduce((a, b) => a + b);
/** A number for each completion at each of its tokens. */
const spread = (values: ArrayLike<number>) =>
  Float64Array.from(LENGTHS.flatMap((length, i) => new Array<number>(length).fill(values[i])));

function inputsOf(perCompletion: boolean): ReferenceInputs {
  const logprob = noise(TOKENS, 1).map((x) => Math.fround(x - 2));
  const apart = (seed: number) => noise(TOKENS, seed, 0.6).map((x, t) => Math.fround(logprob[t] + x));
  const weights = noise(LENGTHS.length, 5).map((x, i) => (i === 3 ? 0 : Math.fround(0.6 + x / 2)));
  return {
    logprob,
    old: apart(2),
    reference: apart(3),
    // The tokens of a completion share its advantage; without that, each token has one of its own.
    advantage: perCompletion ? spread(noise(LENGTHS.length, 4)) : noise(TOKENS, 4),
    weight: spread(weights),
    lengths: perCompletion ? LENGTHS : null,
  };
}

const none = Number.POSITIVE_INFINITY;
const cases: [string, boolean, PolicyLossOptions][] = [
  ['clip', false, { surrogate: 'clip', epsilon: 0.2, epsilonHigh: 0.28, delta: none, beta: 0 }],
  ['clip, delta, KL', false, { surrogate: 'clip', epsilon: 0.2, epsilonHigh: 0.28, delta: 1.4, beta: 0.1 }],
  ['GSPO', true, { surrogate: 'clip', epsilon: 0.04, epsilonHigh: 0.05, delta: none, beta: 0 }],
  ['GSPO, delta, KL', true, { surrogate: 'clip', epsilon: 0.04, epsilonHigh: 0.05, delta: 1.1, beta: 0.1 }],
  ['CISPO', false, { surrogate: 'cispo', epsilon: 0.2, epsilonHigh: 1.2, delta: none, beta: 0 }],
  ['CISPO, KL', false, { surrogate: 'cispo', epsilon: 0.2, epsilonHigh: 1.2, delta: none, beta: 0.1 }],
  [
    'CISPO of completions',
    true,
    { surrogate: 'cispo', epsilon: 0.2, epsilonHigh: 1.05, delta: none, beta: 0 },
  ],
];

for (const [name, perCompletion, options] of cases) {
  const inputs = inputsOf(perCompletion);
  const weighted = (at: ReferenceInputs) =>
    tokenLossReference(at, options, inputs.logprob).reduce((sum, x, t) => sum + inputs.weight[t] * x, 0);
  const gradient = policyLossGradientReference(inputs, options);

  test(`${name}: central differences agree with the reference's gradient`, () => {
    const step = 1e-6;
    for (let t = 0; t < TOKENS; t++) {
      const at = (by: number) =>
        weighted({ ...inputs, logprob: Array.from(inputs.logprob, (x, u) => (u === t ? x + by : x)) });
      const numeric = (at(step) - at(-step)) / (2 * step);
      assert.ok(Math.abs(numeric - gradient[t]) < 1e-8, `token ${t}: ${gradient[t]}, numerically ${numeric}`);
    }
  });

  test(`${name}: every device agrees with the reference`, () => {
    for (const { name: where, device } of devices) {
      const mark = device.mark();
      const upload = (values: ArrayLike<number>) => device.upload(Array.from(values), 'f32');
      const into = device.temporary([TOKENS]);
      const tensors = {
        logprob: upload(inputs.logprob),
        entropy: upload(noise(TOKENS, 6)),
        old: upload(inputs.old),
        reference: upload(inputs.reference),
        advantage: upload(inputs.advantage),
        weight: upload(inputs.weight),
        starts: perCompletion ? device.upload(startsOf(LENGTHS), 'i32') : null,
      };
      const sums = policyLoss(device, tensors, options, into);
      const error = relativeError(device.floats(into), gradient);
      assert.ok(error < 1e-6, `${where}: gradient off by ${error}`);
      const off = Math.abs(sums.loss - weighted(inputs));
      assert.ok(off < 1e-5, `${where}: loss off by ${off}`);
      assert.equal(sums.tokens, TOKENS - LENGTHS[3]);
      const ratios = perCompletion ? LENGTHS.length - 1 : sums.tokens;
      assert.ok(Math.abs(sums.ratios - ratios) < 1e-5, `${where}: ${sums.ratios} ratios`);
      assert.ok(sums.clippedHigh > 0.9, `${where}: nothing is clipped from above`);
      assert.equal(sums.clippedLow > 0.9, options.surrogate === 'clip');
      device.rewind(mark);
    }
  });
}

test('a NaN in a completion that does not count stays out of everything', () => {
  const { device } = devices[0];
  const mark = device.mark();
  const [nan, one] = [Number.NaN, 1].map((x) => device.upload([x, x, -1], 'f32'));
  const into = device.temporary([3]);
  const inputs = { entropy: nan, old: one, reference: nan, advantage: one };
  const weight = device.upload([0, 0, 1], 'f32');
  for (const starts of [null, device.upload([0, 2, 3], 'i32')])
    for (const surrogate of ['clip', 'cispo'] as const) {
      const options = { surrogate, epsilon: 0.2, epsilonHigh: 2, delta: none, beta: 0.1 };
      const sums = policyLoss(device, { ...inputs, logprob: nan, weight, starts }, options, into);
      assert.ok(Object.values(sums).every(Number.isFinite), JSON.stringify(sums));
      assert.deepEqual([...device.floats(into)].slice(0, 2), [0, 0]);
    }
  device.rewind(mark);
});

test('entropy bonus: the same for each token that counts, whatever its weight', () => {
  for (const { device } of devices) {
    const mark = device.mark();
    const into = device.temporary([4]);
    entropyBonus(device, device.upload([0.5, 0, 0.1, 2], 'f32'), 0.25, 8, into);
    assert.deepEqual([...device.floats(into)], [-0.03125, 0, -0.03125, -0.03125]);
    device.rewind(mark);
  }
});
