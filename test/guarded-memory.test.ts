// The guard zones themselves: they must notice what they are there for.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDevice } from '../src/compute/device/device.js';
import { buildKernel } from '../src/compute/kernel/builder.js';
import type { TargetInfo } from '../src/compute/kernel/ir.js';
import { guardMemory } from './support/guarded-memory.js';

const poke = (target: TargetInfo) =>
  buildKernel('poke', target, { x: 'f32*', at: 'i32' }, (b, p) =>
    b.items(() => b.store(p.x, p.at, b.float(1))),
  );

for (const kind of ['temporary', 'tensor'] as const)
  test(`a store beside a ${kind} is noticed, a store inside is not`, async () => {
    for (const [at, message] of [
      [-1, /1 elements before/],
      [-16, /16 elements before/],
      [0, null],
      [4, null],
      [5, /1 elements past/],
      [20, /16 elements past/],
    ] as const) {
      const device = guardMemory(createDevice({ target: 'wasm', threads: 1 }));
      const mark = device.mark();
      const x = kind === 'temporary' ? device.temporary([5]) : device.tensor('other', [5]);
      assert.ok(device.floats(x).every(Number.isNaN), 'fresh memory holds NaN');
      device.launch(device.kernel('poke', poke), 1, [x], [at]);
      if (message) assert.throws(() => device.rewind(mark), message);
      else device.rewind(mark);
      if (kind === 'tensor' && message) assert.throws(() => device.free(x), message);
      await device.close();
    }
  });

test('on the interpreter a load outside a tensor throws, though memory goes on', async () => {
  const peek = (target: TargetInfo) =>
    buildKernel('peek', target, { x: 'f32*', at: 'i32' }, (b, p) =>
      b.items(() => b.store(p.x, 0, b.load(p.x, p.at))),
    );
  const device = guardMemory(createDevice({ target: 'interpreter', threads: 1 }));
  const x = device.temporary([5]);
  const kernel = device.kernel('peek', peek);
  for (const at of [0, 4]) device.launch(kernel, 1, [x], [at]);
  for (const at of [-1, 5, 6]) assert.throws(() => device.launch(kernel, 1, [x], [at]), /peek/);
  await device.close();
});
