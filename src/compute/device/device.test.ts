// Devices: memory by kind, errors that leave the device usable, failing kernels, options.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetortError } from '../../errors.js';
import { buildKernel } from '../kernel/builder.js';
import type { TargetInfo } from '../kernel/ir.js';
import { createDevice } from './device.js';

const outside = (target: TargetInfo) =>
  buildKernel('outside', target, { x: 'f32*', at: 'i32' }, (b, p) => {
    b.items(() => b.store(p.x, p.at, b.float(1)));
  });

test('memory is counted by kind, peaks stay, blocks are used again', async () => {
  const device = createDevice({ threads: 1 });
  const a = device.tensor('parameters', [1000]);
  device.free(a);
  const b = device.tensor('gradients', [1000]);
  assert.equal(b.byteOffset, a.byteOffset);
  const { parameters, gradients } = device.memory();
  assert.deepEqual([parameters.current, parameters.peak], [0, 4032]);
  assert.deepEqual([gradients.current, gradients.peak], [4032, 4032]);
  assert.throws(
    () => device.free(a.byteOffset === b.byteOffset ? { ...a, byteOffset: 8 } : a),
    /not allocated/,
  );
  await device.close();
});

test('the step arena is rewound, and grows past its chunks without moving anything', async () => {
  const device = createDevice({ threads: 1 });
  const mark = device.mark();
  const kept = device.temporary([10]);
  device.fill(kept, 3);
  for (let i = 0; i < 5; i++) device.temporary([1 << 20]);
  assert.ok(device.floats(kept).every((x) => x === 3));
  const { activations } = device.memory();
  assert.ok(activations.current >= 5 * 4 * (1 << 20));
  device.rewind(mark);
  assert.equal(device.memory().activations.current, 0);
  assert.equal(device.temporary([10]).byteOffset, kept.byteOffset);
  await device.close();
});

test('memory that is not there is a clear error, and the device goes on', async () => {
  const device = createDevice({ threads: 1, maxBytes: 16 << 20 });
  assert.throws(
    () => device.tensor('parameters', [16 << 20]),
    (e) => e instanceof RetortError && e.code === 'out-of-memory' && /smaller batch/.test(e.message),
  );
  const t = device.tensor('other', [1000]);
  device.fill(t, 1);
  assert.equal(device.floats(t)[999], 1);
  await device.close();
});

test('a kernel that fails in a worker fails the launch, not the process, and later launches run', async () => {
  for (const target of ['interpreter', 'wasm'] as const) {
    const device = createDevice({ threads: 3, target });
    const kernel = device.kernel('outside', outside);
    const t = device.tensor('other', [4]);
    assert.throws(() => device.launch(kernel, 3, [t], [2 ** 28]), RetortError, target);
    device.launch(kernel, 3, [t], [2]);
    assert.equal(device.floats(t)[2], 1);
    await device.close();
  }
});

test('launches that do not fit their kernel are refused', async () => {
  const device = createDevice({ threads: 1 });
  const kernel = device.kernel('outside', outside);
  const t = device.tensor('other', [4]);
  assert.throws(() => device.launch(kernel, 1, [], [0]), /takes 1 buffers/);
  assert.throws(() => device.launch(kernel, 1, [t], []), /takes 1 buffers and 1 scalars/);
  assert.throws(() => device.launch(kernel, 1, [device.tensor('other', [4], 'i32')], [0]), /element type/);
  assert.throws(() => device.upload([1, 2, 3], 'f32', [2]), /give 2 numbers/);
  await device.close();
  assert.throws(() => device.launch(kernel, 1, [t], [0]), /closed device/);
  await device.close();
});

test('options that cannot be are refused with the remedy', () => {
  for (const threads of [0, 1.5, 65, -1])
    assert.throws(() => createDevice({ threads }), /whole number from 1 to 64/);
  assert.throws(
    () => createDevice({ target: 'cuda' as 'wasm' }),
    /use x64, avx2, avx512, wasm or interpreter/,
  );
});

test('steps of ever different sizes do not make the arena grow for ever', async () => {
  const device = createDevice({ threads: 1, maxBytes: 512 << 20 });
  for (let step = 0; step < 300; step++) {
    const mark = device.mark();
    for (let i = 0; i < 40; i++) device.temporary([100_000 + 997 * ((step * 31 + i * 7) % 50)]);
    const big = device.tensor('kvCache', [2_000_000 + 1000 * (step % 7)]);
    device.rewind(mark);
    device.free(big);
  }
  await device.close();
});
