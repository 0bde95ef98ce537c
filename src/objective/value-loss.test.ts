// The value loss: its float64 reference against finite differences, every device against the reference.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { noise, relativeError, testDevices } from '../../test/support/op.js';
import { valueLossGradientReference, valueLossReference } from './reference.js';
import { valueLoss } from './value-loss.js';

const devices = testDevices();
after(() => Promise.all(devices.map(({ device }) => device.close())));

const TOKENS = 531;
const inputs = {
  value: noise(TOKENS, 1),
  old: noise(TOKENS, 2, 0.5),
  returns: noise(TOKENS, 3),
  weight: noise(TOKENS, 4).map((x) => Math.fround((1 + x) / TOKENS)),
};

for (const range of [0.2, Number.POSITIVE_INFINITY]) {
  const gradient = valueLossGradientReference(inputs, range);

  test(`clip range ${range}: central differences agree with the reference's gradient`, () => {
    const step = 1e-6;
    for (let t = 0; t < TOKENS; t++) {
      const at = (by: number) =>
        valueLossReference({ ...inputs, value: inputs.value.map((x, u) => (u === t ? x + by : x)) }, range);
      const numeric = (at(step) - at(-step)) / (2 * step);
      assert.ok(Math.abs(numeric - gradient[t]) < 1e-8, `token ${t}: ${gradient[t]}, numerically ${numeric}`);
    }
  });

  test(`clip range ${range}: every device agrees with the reference`, () => {
    for (const { name, device } of devices) {
      const mark = device.mark();
      const upload = (values: ArrayLike<number>) => device.upload(Array.from(values), 'f32');
      const into = device.temporary([TOKENS]);
      const tensors = {
        value: upload(inputs.value),
        old: upload(inputs.old),
        returns: upload(inputs.returns),
        weight: upload(inputs.weight),
      };
      const sums = valueLoss(device, tensors, { cliprangeValue: range, vfCoef: 0.1 }, into);
      const expected = gradient.map((x) => 0.1 * x);
      const error = relativeError(device.floats(into), expected);
      assert.ok(error < 1e-6, `${name}: gradient off by ${error}`);
      const loss = valueLossReference(inputs, range);
      assert.ok(
        Math.abs(sums.loss - loss) < 1e-6 * loss,
        `${name}: loss ${sums.loss}, by definition ${loss}`,
      );
      assert.equal(sums.tokens, TOKENS);
      assert.equal(sums.clipped, gradient.filter((x) => x === 0).length);
      assert.equal(sums.clipped > 50, Number.isFinite(range), `${name}: ${sums.clipped} clipped`);
      device.rewind(mark);
    }
  });
}

test('no tokens give no loss', () => {
  const { device } = devices[0];
  const none = device.temporary([0]);
  const o = { cliprangeValue: 0.2, vfCoef: 1 };
  const sums = valueLoss(device, { value: none, old: none, returns: none, weight: none }, o, none);
  assert.deepEqual(sums, { loss: 0, tokens: 0, clipped: 0 });
});
