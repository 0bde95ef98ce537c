// Divergences at the ends of the range, the same bits for any size of the chunks, memory that is bounded, wrong shapes.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { noise, relativeError, testDevices } from '../../../../test/support/op.js';
import { type Parameter, Tape } from '../../autograd.js';
import { createDevice, type Device } from '../../device/device.js';
import { packedSizes, panelWidth } from '../linear/kernel.js';
import { type DivergenceOptions, divergence, divergenceGradient } from './divergence.js';
import { headDivergence, type TeacherRows } from './head-divergence.js';
import { divergenceGradientReference, divergenceReference } from './reference.js';

const devices = testDevices();
after(() => Promise.all(devices.map(({ device }) => device.close())));

/** Divergences and the gradient of their sum, from logits. */
function run(
  device: Device,
  student: ArrayLike<number>,
  teacher: ArrayLike<number>,
  n: number,
  options: DivergenceOptions,
): { divergences: number[]; gradient: Float32Array } {
  const mark = device.mark();
  const rows = student.length / n;
  const [s, t] = [student, teacher].map((x) => device.upload(x, 'f32', [rows, n]));
  const [divergences, inner, ...stats] = Array.from({ length: 6 }, () => device.temporary([rows]));
  const [studentPeak, studentLogSum, teacherPeak, teacherLogSum] = stats;
  const known = { divergence: divergences, inner, studentPeak, studentLogSum, teacherPeak, teacherLogSum };
  divergence(device, s, t, known, options);
  const seed = device.upload(new Float32Array(rows).fill(1), 'f32');
  divergenceGradient(device, s, t, known, seed, options);
  const result = { divergences: [...device.floats(divergences)], gradient: device.floats(s).slice() };
  device.rewind(mark);
  return result;
}

const BETAS = [0, 0.3, 1];

test('a student like its teacher diverges nowhere and has no gradient, however far the logits are from 0', () => {
  const logits = noise(35, 3, 6);
  for (const { name, device } of devices)
    for (const beta of BETAS)
      for (const shift of [0, 10_000]) {
        const teacher = logits.map((x) => Math.fround(x + shift));
        const student = teacher.map((x) => Math.fround(x - 2 * shift));
        const { divergences, gradient } = run(device, shift === 0 ? logits : student, teacher, 7, {
          beta,
          temperature: 1,
        });
        const nothing = shift === 0 ? 1e-6 : 1e-3;
        for (const d of divergences) assert.ok(Math.abs(d) < nothing, `${name}, beta ${beta}: ${d}`);
        for (const g of gradient) assert.ok(Math.abs(g) < nothing, `${name}, beta ${beta}: ${g}`);
      }
});

test('tokens that are impossible for one of the two weigh nothing, or without end where they must', () => {
  const n = 9;
  const student = noise(2 * n, 4, 3);
  const teacher = noise(2 * n, 5, 3).map((x, i) => (i % 4 === 1 ? Number.NEGATIVE_INFINITY : x));
  for (const { name, device } of devices) {
    for (const beta of [0, 0.3]) {
      const o = { beta, temperature: 0.6, top: null };
      const { divergences, gradient } = run(device, student, teacher, n, o);
      assert.ok(relativeError(divergences, divergenceReference(student, teacher, n, o)) < 1e-5, name);
      const slope = divergenceGradientReference(student, teacher, n, o, new Float64Array(2).fill(1));
      assert.ok(relativeError(gradient, slope) < 1e-5, name);
    }
    const reverse = run(device, student, teacher, n, { beta: 1, temperature: 1 });
    assert.ok(
      reverse.divergences.every((d) => d === Number.POSITIVE_INFINITY),
      name,
    );
    // The other way round the student has no mass there: only forward KL is infinite.
    const swapped = run(device, teacher, student, n, { beta: 1, temperature: 1 });
    const expected = divergenceReference(teacher, student, n, { beta: 1, temperature: 1, top: null });
    assert.ok(relativeError(swapped.divergences, expected) < 1e-5, name);
    assert.ok(swapped.gradient.every(Number.isFinite), name);
  }
});

test('a NaN logit makes its row NaN and no other', () => {
  const logits = noise(33, 9, 3);
  const broken = logits.slice();
  broken[15] = Number.NaN;
  for (const beta of BETAS) {
    const { divergences } = run(devices[0].device, broken, logits, 11, { beta, temperature: 1 });
    assert.deepEqual(divergences.map(Number.isNaN), [false, true, false]);
  }
});

const [ROWS, D, VOCABULARY, K] = [37, 11, 50, 5];

function parameter(device: Device, shape: [number, number], seed: number): Parameter {
  const upload = (s: number) => device.upload(noise(shape[0] * shape[1], s, 2), 'f32', shape);
  return { name: 'head', value: upload(seed), gradient: upload(seed + 1), version: 0, packed: new Map() };
}

function throughHeads(device: Device, beta: number, top: boolean, rowsAtOnce: number): Float32Array[] {
  const mark = device.mark();
  const hidden = device.upload(noise(ROWS * D, 1, 2), 'f32', [ROWS, D]);
  const [head, teacherHead] = [parameter(device, [VOCABULARY, D], 2), parameter(device, [VOCABULARY, 3], 4)];
  const ids = Array.from({ length: ROWS * K }, (_, i) => (7 * (i % K) + Math.floor(i / K)) % VOCABULARY);
  const teacher: TeacherRows = top
    ? {
        ids: device.upload(ids, 'i32', [ROWS, K]),
        logprobs: device.upload(
          ids.map((_, i) => Math.log(0.15) - 0.1 * (i % K)),
          'f32',
          [ROWS, K],
        ),
        rest: device.upload(new Float32Array(ROWS).fill(Math.log(0.3)), 'f32'),
      }
    : { hidden: device.upload(noise(ROWS * 3, 6, 2), 'f32', [ROWS, 3]), head: teacherHead };
  const options = { beta, temperature: 0.7, logitsBytes: rowsAtOnce * 8 * VOCABULARY };
  const tape = new Tape(device);
  const out = headDivergence({ device, tape }, hidden, head, teacher, options);
  const plain = headDivergence({ device, tape: null }, hidden, head, teacher, options);
  assert.deepEqual(device.floats(plain), device.floats(out), 'the same without a tape');
  device.floats(tape.contribute(out).tensor).set(noise(ROWS, 8));
  const dhidden = tape.contribute(hidden).tensor;
  device.floats(dhidden).set(noise(ROWS * D, 9));
  tape.backward();
  const results = [out, dhidden, head.gradient!].map((t) => device.floats(t).slice());
  for (const { packed } of [head, teacherHead]) for (const { tensor } of packed.values()) device.free(tensor);
  device.rewind(mark);
  return results;
}

test('no bit depends on how many rows of logits lie in memory', () => {
  for (const { name, device } of devices)
    for (const beta of BETAS)
      for (const top of [false, true]) {
        const whole = throughHeads(device, beta, top, ROWS);
        for (const rowsAtOnce of [0, 1, 5, 18, 100])
          assert.deepEqual(throughHeads(device, beta, top, rowsAtOnce), whole, `${name}, ${rowsAtOnce} rows`);
      }
});

test('memory is bounded whatever the rows: chunks of logits, and what the gradient of the head packs', async () => {
  const device = createDevice({ threads: 1 });
  const [rows, d, vocabulary] = [700, 4, 1000];
  const make = (): Parameter => {
    const value = device.tensor('parameters', [vocabulary, d]);
    const gradient = device.tensor('gradients', [vocabulary, d]);
    for (const t of [value, gradient]) device.fill(t, 0);
    return { name: 'head', value, gradient, version: 0, packed: new Map() };
  };
  const [head, teacherHead] = [make(), make()];
  const chunk = 80_000;
  const hidden = device.upload(new Float32Array(rows * d), 'f32', [rows, d]);
  const tape = new Tape(device);
  const options = { beta: 0.5, logitsBytes: chunk };
  const out = headDivergence({ device, tape }, hidden, head, { hidden, head: teacherHead }, options);
  device.fill(tape.contribute(out).tensor, 1);
  tape.backward();
  const { peak } = device.memory().activations;
  const columns = 64 * 2 + rows * 4 * (3 * d + 12);
  const packed = packedSizes(device.target, Math.ceil(d / panelWidth(device.target)));
  assert.ok(peak < 1.1 * chunk + columns + 4 * (packed.a + packed.b), `${peak} bytes`);
  await device.close();
});

test('teachers of other shapes and a beta out of range are refused', () => {
  const { device } = devices[0];
  const hidden = device.upload(noise(2 * D, 1), 'f32', [2, D]);
  const head = parameter(device, [4, D], 2);
  const asked = (teacher: TeacherRows, beta = 0) =>
    headDivergence({ device, tape: null }, hidden, head, teacher, { beta });
  assert.throws(() => asked({ hidden, head: parameter(device, [5, D], 2) }), /shapes must fit/);
  assert.throws(() => asked({ hidden: device.upload(noise(D, 1), 'f32', [1, D]), head }), /shapes must fit/);
  const rest = device.upload([0, 0], 'f32');
  const three = device.upload([1, 2, 3], 'i32');
  assert.throws(() => asked({ ids: three, logprobs: rest, rest }), /shapes must fit/);
  assert.throws(() => asked({ hidden, head }, 1.5), /beta.*0 \(forward KL\) to 1/);
});
