// Recordings: the same result as one by one, on every target and any number of threads.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetortError } from '../../errors.js';
import { buildKernel } from '../kernel/builder.js';
import type { TargetInfo } from '../kernel/ir.js';
import { whyNotX64 } from '../target/x64/detect.js';
import { createDevice, type Device } from './device.js';

const WIDTH = 6;

/** y[item] = x[item] * a + item, item by item. */
const step = (target: TargetInfo) =>
  buildKernel('step', target, { x: 'f32*', y: 'f32*', a: 'f32' }, (b, p) => {
    b.items((item) => b.store(p.y, item, b.add(b.mul(b.load(p.x, item), p.a), b.toFloat(item))));
  });

/** y[row] = the sum of x[row], x[rows, WIDTH]. */
const rowSum = (target: TargetInfo) =>
  buildKernel('row-sum', target, { x: 'f32*', y: 'f32*' }, (b, p) => {
    b.items((row) => {
      const sum = b.variable(b.float(0));
      b.loop(0, WIDTH, 1, (i) => sum.set(b.add(sum.get(), b.load(p.x, b.add(b.mul(row, WIDTH), i)))));
      b.store(p.y, row, sum.get());
    });
  });

/** Several steps over rows of WIDTH, each in memory of its own or given back, then their sums. */
function chain(device: Device, rows: number, steps: number): number[] {
  let x = device.upload(
    Array.from({ length: rows * WIDTH }, (_, i) => i % 7),
    'f32',
  );
  const kernel = device.kernel('step', step);
  for (let i = 0; i < steps; i++) {
    const mark = device.mark();
    const passing = device.temporary([rows * WIDTH]);
    device.launch(kernel, rows * WIDTH, [x, passing], [0.5]);
    const y = device.temporary([rows * WIDTH]);
    device.launch(kernel, rows * WIDTH, [passing, y], [0.25]);
    if (i === 0) device.rewind(mark);
    x = y;
  }
  const sums = device.temporary([rows]);
  device.launch(device.kernel('row-sum', rowSum), rows, [x, sums], []);
  return [sums.byteOffset, sums.size];
}

const read = (device: Device, [byteOffset, size]: number[]) =>
  Array.from(device.floats({ shape: [size], element: 'f32', size, byteOffset }));

/** Records and runs. */
function rowwise<T>(device: Device, rows: number, body: () => T): T {
  const recording = device.record(rows, body);
  device.replay(recording);
  return recording.result;
}

const targets = ['wasm', 'interpreter', ...(whyNotX64() ? [] : (['x64'] as const))] as const;

for (const target of targets)
  for (const threads of [1, 2, 3])
    test(`${target}, ${threads} threads: collected launches give what they give one by one`, async () => {
      const device = createDevice({ target, threads });
      for (const rows of [1, 2, 5, 64]) {
        const mark = device.mark();
        // Memory that is given back within is not used again before everything has run, so the first step's rewind is
        // harmless there; one by one it is harmless because that step is over.
        const together = read(
          device,
          rowwise(device, rows, () => chain(device, rows, 4)),
        );
        device.stepwise = true;
        const stepped = read(
          device,
          rowwise(device, rows, () => chain(device, rows, 4)),
        );
        device.stepwise = false;
        device.rewind(mark);
        const expected = Array.from({ length: rows }, (_, r) => {
          let sum = 0;
          for (let i = r * WIDTH; i < (r + 1) * WIDTH; i++) {
            let x = i % 7;
            for (let s = 0; s < 4; s++) x = (x * 0.5 + i) * 0.25 + i;
            sum = Math.fround(sum + x);
          }
          return sum;
        });
        assert.deepEqual(stepped, together);
        together.forEach((x, r) => {
          assert.ok(Math.abs(x - expected[r]) <= 1e-6 * expected[r], `row ${r} of ${rows}`);
        });
      }
      await device.close();
    });

test('more launches than a list holds run all the same', async () => {
  for (const target of targets) {
    const device = createDevice({ target, threads: 2 });
    const mark = device.mark();
    const x = device.upload(new Array(8).fill(1), 'f32');
    const kernel = device.kernel('step', step);
    const launchMany = () => {
      for (let i = 0; i < 2000; i++) device.launch(kernel, 8, [x, x], [1]);
    };
    rowwise(device, 8, launchMany);
    const added = (times: number) => Array.from({ length: 8 }, (_, i) => 1 + times * i);
    assert.deepEqual(Array.from(device.floats(x)), added(2000));
    device.inStretches(8, 1, launchMany);
    assert.deepEqual(Array.from(device.floats(x)), added(4000));
    device.rewind(mark);
    await device.close();
  }
});

test('what does not go row by row is refused, and the device goes on', async () => {
  const device = createDevice({ threads: 2 });
  const x = device.tensor('other', [8]);
  device.fill(x, 1);
  const kernel = device.kernel('step', step);
  const refused = (e: unknown) => e instanceof RetortError && /launch it alone/.test(e.message);
  assert.throws(() => rowwise(device, 3, () => device.launch(kernel, 8, [x, x], [1])), refused);
  assert.throws(
    () => rowwise(device, 8, () => rowwise(device, 8, () => 0)),
    (e) => e instanceof RetortError && /a recording within a recording/.test(e.message),
  );
  // What was collected before the refusal has not run.
  assert.throws(() =>
    rowwise(device, 4, () => {
      device.launch(kernel, 8, [x, x], [1]);
      throw new Error('stop');
    }),
  );
  assert.ok(device.floats(x).every((v) => v === 1));
  device.launch(kernel, 8, [x, x], [1]);
  assert.deepEqual(Array.from(device.floats(x)), [1, 2, 3, 4, 5, 6, 7, 8]);
  await device.close();
});

test('a recording runs again with what its buffers hold then', async () => {
  for (const target of targets) {
    const device = createDevice({ target, threads: 2 });
    const x = device.tensor('other', [8]);
    const recording = device.record(8, () => {
      const y = device.temporary([8]);
      device.launch(device.kernel('step', step), 8, [x, y], [2]);
      return y;
    });
    for (const value of [1, 5, -3]) {
      device.fill(x, value);
      device.replay(recording);
      const expected = Array.from({ length: 8 }, (_, i) => 2 * value + i);
      assert.deepEqual(Array.from(device.floats(recording.result)), expected, target);
    }
    await device.close();
    assert.throws(() => device.replay(recording), /closed device/);
  }
});

for (const target of targets)
  for (const threads of [1, 2, 3])
    test(`${target}, ${threads} threads: launches by stretches of rows give what they give one by one`, async () => {
      const device = createDevice({ target, threads });
      // 2 launches a step and one more, of some 16 and 12 words: 100 steps of a stretch take more than a third of a list.
      for (const [rows, stretch, steps] of [
        [2 * threads, 1, 4],
        [65, 5, 4],
        [64, 8, 100],
        [6 * threads - 1, 3, 4],
      ]) {
        const mark = device.mark();
        const before = device.launches;
        const stretched = read(
          device,
          device.inStretches(rows, stretch, () => chain(device, rows, steps)),
        );
        assert.equal(device.launches - before, 2 * steps + 1);
        device.rewind(mark);
        device.stepwise = true;
        const stepped = read(
          device,
          device.inStretches(rows, stretch, () => chain(device, rows, steps)),
        );
        device.stepwise = false;
        device.rewind(mark);
        assert.deepEqual(stepped, stretched);
        assert.deepEqual(stretched, read(device, chain(device, rows, steps)));
        device.rewind(mark);
      }
      await device.close();
    });

test('by stretches, what one launch wrote of a stretch the next reads before other rows are done', async () => {
  const device = createDevice({ target: 'interpreter', threads: 1 });
  /** x[0] counts the launches' calls; each writes down in y which call it was. */
  const stamp = device.kernel('stamp', (t) =>
    buildKernel('stamp', t, { x: 'f32*', y: 'f32*' }, (b, p) => {
      b.store(p.x, 0, b.add(b.load(p.x, 0), 1));
      b.items((item) => b.store(p.y, item, b.load(p.x, 0)));
    }),
  );
  const calls = device.upload([0], 'f32');
  const [first, second] = [device.temporary([5]), device.temporary([10])];
  const launchBoth = () => {
    device.launch(stamp, 5, [calls, first], []);
    device.launch(stamp, 10, [calls, second], []);
  };
  device.inStretches(5, 2, launchBoth);
  assert.deepEqual([...device.floats(first)], [1, 1, 3, 3, 5]);
  assert.deepEqual([...device.floats(second)], [2, 2, 2, 2, 4, 4, 4, 4, 6, 6]);
  // Fewer than two stretches for each thread: one by one.
  device.inStretches(5, 3, launchBoth);
  assert.deepEqual([...device.floats(first)], [7, 7, 7, 7, 7]);
  // Within a recording the recording decides.
  const { lists } = device.record(5, () => device.inStretches(5, 1, launchBoth));
  assert.equal(lists.length, 1);
  device.replay({ result: null, parts: 1, lists });
  assert.deepEqual([...device.floats(second)], Array(10).fill(10));
  await device.close();
});

test('by stretches, a launch whose items do not fit the rows is refused, and the device goes on', async () => {
  const device = createDevice({ target: 'interpreter', threads: 1 });
  const kernel = device.kernel('step', step);
  const [x, y] = [device.upload([1, 2, 3, 4, 5, 6], 'f32'), device.temporary([6])];
  device.fill(y, 0);
  assert.throws(
    () =>
      device.inStretches(4, 1, () => {
        device.launch(kernel, 4, [x, y], [1]);
        device.launch(kernel, 6, [x, y], [1]);
      }),
    /items of kernel step for 4 rows/,
  );
  assert.throws(() => device.inStretches(4, 0, () => {}), /rows of a stretch: got 0/);
  const recording = device.record(6, () => device.launch(kernel, 6, [x, y], [1]));
  assert.throws(() => device.inStretches(6, 1, () => device.replay(recording)), /launches wait/);
  assert.deepEqual([...device.floats(y)], Array(6).fill(0));
  device.launch(kernel, 6, [x, y], [1]);
  assert.deepEqual([...device.floats(y)], [1, 3, 5, 7, 9, 11]);
  await device.close();
});
