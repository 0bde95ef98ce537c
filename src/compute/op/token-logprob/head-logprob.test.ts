// Log-probabilities through a head: the same bits for any size of the chunks, memory that is bounded, wrong shapes.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { noise, testDevices } from '../../../../test/support/op.js';
import { type Parameter, Tape } from '../../autograd.js';
import { createDevice, type Device } from '../../device/device.js';
import { packedSizes, panelWidth } from '../linear/kernel.js';
import { headLogprob, LOGITS_BYTES } from './head-logprob.js';

const devices = testDevices();
after(() => Promise.all(devices.map(({ device }) => device.close())));

const [ROWS, D, VOCABULARY] = [37, 11, 50];

/** Outputs and gradients; the gradients of hidden states and head are added to what is there. */
function run(device: Device, rowsAtOnce: number): Float32Array[] {
  const mark = device.mark();
  const upload = (shape: number[], seed: number) =>
    device.upload(noise(shape[0] * shape[1], seed, 2), 'f32', shape);
  const hidden = upload([ROWS, D], 1);
  const [value, gradient] = [2, 3].map((seed) => upload([VOCABULARY, D], seed));
  const head: Parameter = { name: 'head', value, gradient, version: 0, packed: new Map() };
  const tokens = device.upload(
    Array.from({ length: ROWS }, (_, i) => (i * 7) % VOCABULARY),
    'i32',
  );
  const tape = new Tape(device);
  const options = { temperature: 0.7, logitsBytes: rowsAtOnce * 4 * VOCABULARY };
  const { logprob, entropy } = headLogprob({ device, tape }, hidden, head, tokens, options);
  const plain = headLogprob({ device, tape: null }, hidden, head, tokens, options);
  assert.deepEqual(device.floats(plain.logprob), device.floats(logprob), 'the same without a tape');
  device.floats(tape.contribute(logprob).tensor).set(noise(ROWS, 4));
  device.floats(tape.contribute(entropy).tensor).set(noise(ROWS, 5));
  const dhidden = tape.contribute(hidden).tensor;
  device.floats(dhidden).set(noise(ROWS * D, 6));
  tape.backward();
  const results = [logprob, entropy, dhidden, gradient].map((t) => device.floats(t).slice());
  for (const { tensor } of head.packed.values()) device.free(tensor);
  device.rewind(mark);
  return results;
}

test('no bit depends on how many rows of logits lie in memory', () => {
  for (const { name, device } of devices) {
    const whole = run(device, ROWS);
    for (const rowsAtOnce of [0, 1, 2, 5, 12, 18, 36, 100])
      assert.deepEqual(run(device, rowsAtOnce), whole, `${name}, ${rowsAtOnce} rows at once`);
  }
});

test('memory is bounded whatever the rows: a chunk of logits, and what the gradient of the head packs', async () => {
  const device = createDevice({ threads: 1 });
  const [rows, d, vocabulary] = [700, 4, 1000];
  const head: Parameter = {
    name: 'head',
    value: device.tensor('parameters', [vocabulary, d]),
    gradient: device.tensor('gradients', [vocabulary, d]),
    version: 0,
    packed: new Map(),
  };
  for (const t of [head.value, head.gradient!]) device.fill(t, 0);
  const peakOf = (logitsBytes?: number) => {
    const mark = device.mark();
    const before = device.memory().activations;
    const hidden = device.upload(new Float32Array(rows * d), 'f32', [rows, d]);
    const tokens = device.upload(new Int32Array(rows), 'i32');
    const tape = new Tape(device);
    const { logprob } = headLogprob({ device, tape }, hidden, head, tokens, { logitsBytes });
    device.fill(tape.contribute(logprob).tensor, 1);
    tape.backward();
    device.rewind(mark);
    assert.equal(device.memory().activations.current, before.current);
    return device.memory().activations.peak;
  };
  // Peaks only rise: the smallest first. Ten rows of logits, and what grows with the rows: hidden states and columns.
  const chunk = 40_000;
  const columns = 64 * 2 + rows * 4 * (2 * d + 10);
  const small = peakOf(chunk);
  const packed = packedSizes(device.target, Math.ceil(d / panelWidth(device.target)));
  assert.ok(small < 1.1 * chunk + columns + 4 * (packed.a + packed.b), `${small} bytes`);
  const whole = 4 * rows * vocabulary;
  assert.ok(whole < LOGITS_BYTES);
  assert.ok(peakOf() > whole, 'all the logits');
  await device.close();
});

test('tokens that are not one a row are refused', () => {
  const { device } = devices[0];
  const hidden = device.upload([1, 2, 3, 4], 'f32', [2, 2]);
  const value = device.upload([1, 2, 3, 4], 'f32', [2, 2]);
  const head: Parameter = { name: 'head', value, gradient: null, version: 0, packed: new Map() };
  const tokens = device.upload([0], 'i32');
  assert.throws(() => headLogprob({ device, tape: null }, hidden, head, tokens), /give one a row/);
});
