// What goes wrong on one thread must not hang, poison or silently change what the device does afterwards.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetortError } from '../../errors.js';
import { buildKernel } from '../kernel/builder.js';
import type { TargetInfo } from '../kernel/ir.js';
import { createDevice, type Device } from './device.js';

/** y[item] = 10 / (item - hole): the item at `hole` traps, on whichever thread has it. */
const holed = (target: TargetInfo) =>
  buildKernel('holed', target, { y: 'i32*', hole: 'i32' }, (b, p) => {
    b.items((item) => b.store(p.y, item, b.div(10, b.sub(item, p.hole))));
  });

/** y[item] = part. */
const parts = (target: TargetInfo) =>
  buildKernel('parts', target, { y: 'i32*' }, (b, p) => {
    b.items((item) => b.store(p.y, item, b.part));
  });

/** Traps at item 0 at once, while the other parts still have a long loop to go. */
const slowElsewhere = (target: TargetInfo) =>
  buildKernel('slow-elsewhere', target, { y: 'i32*', rounds: 'i32' }, (b, p) => {
    b.items((item) => {
      b.store(p.y, item, b.div(10, item));
      b.loop(0, p.rounds, 1, (i) => b.store(p.y, item, b.add(b.loadInt(p.y, item), i)));
    });
  });

const each = (threads: number, body: (device: Device, target: string) => void) => async () => {
  for (const target of ['wasm', 'interpreter'] as const) {
    const device = createDevice({ target, threads });
    try {
      body(device, target);
    } finally {
      await device.close();
    }
  }
};

const run = (device: Device, hole: number, n = 8): number[] => {
  const y = device.temporary([n], 'i32');
  device.fill(y, 0);
  device.launch(device.kernel('holed', holed), n, [y], [hole]);
  return Array.from(device.ints(y));
};
const expected = (hole: number, n = 8) =>
  Array.from({ length: n }, (_, i) => Math.trunc(10 / (i - hole)) + 0);

for (const threads of [1, 2, 4])
  test(
    `${threads} threads: a trap in any part throws on the launching thread, and the next launch is right`,
    each(threads, (device, target) => {
      for (let hole = 0; hole < 8; hole++) {
        assert.throws(() => run(device, hole), RetortError, `${target}, hole ${hole}`);
        assert.deepEqual(run(device, -1), expected(-1), `${target} after hole ${hole}`);
      }
    }),
  );

test(
  'a trap in a worker is a RetortError that names what happened',
  each(4, (device) => {
    assert.throws(
      () => run(device, 7),
      (e) =>
        e instanceof RetortError &&
        e.code === 'bad-kernel' &&
        /worker failed: .*(divide|div of)/.test(e.message),
    );
  }),
);

/** Every item traps. */
const broken = (target: TargetInfo) =>
  buildKernel('broken', target, { y: 'i32*' }, (b, p) => {
    b.items((item) => b.store(p.y, item, b.div(1, b.loadInt(p.y, item))));
  });

test(
  'traps in every part at once are reported once',
  each(4, (device) => {
    const y = device.temporary([8], 'i32');
    device.fill(y, 0);
    for (let i = 0; i < 3; i++)
      assert.throws(() => device.launch(device.kernel('broken', broken), 8, [y], []), RetortError);
    assert.deepEqual(run(device, -1), expected(-1));
  }),
);

test(
  'a trap on the launching thread waits for the workers: they do not write into the next launch',
  each(4, (device, target) => {
    const n = 8;
    const rounds = target === 'wasm' ? 1_000_000 : 4_000;
    const slow = device.kernel('slow-elsewhere', slowElsewhere);
    const plain = device.kernel('parts', parts);
    const y = device.temporary([n], 'i32');
    for (let i = 0; i < 3; i++) {
      assert.throws(() => device.launch(slow, n, [y], [rounds]));
      device.launch(plain, n, [y], []);
      assert.deepEqual(Array.from(device.ints(y)), [0, 0, 1, 1, 2, 2, 3, 3]);
    }
  }),
);

test(
  'a kernel that cannot be built leaves the device as it was',
  each(2, (device) => {
    const malformed = (t: TargetInfo) => {
      const kernel = holed(t);
      return { ...kernel, body: [...kernel.body, { kind: 'set', variable: 9999, value: 9999 } as const] };
    };
    for (let i = 0; i < 2; i++) {
      assert.throws(() => device.kernel('malformed', malformed), RetortError);
      assert.deepEqual(run(device, -1), expected(-1));
    }
  }),
);

test('a closed device refuses kernels and launches, with workers or without', async () => {
  for (const threads of [1, 3]) {
    const device = createDevice({ target: 'wasm', threads });
    const kernel = device.kernel('parts', parts);
    const y = device.tensor('other', [3], 'i32');
    await device.close();
    const closed = (e: unknown) => e instanceof RetortError && /closed device/.test(e.message);
    assert.throws(() => device.launch(kernel, 3, [y], []), closed);
    assert.throws(() => device.kernel('holed', holed), closed);
    await device.close();
  }
});

test('RETORT_TARGET is read, and refused where there is no such target', async () => {
  const before = process.env.RETORT_TARGET;
  try {
    process.env.RETORT_TARGET = 'interpreter';
    const device = createDevice({ threads: 1 });
    assert.equal(device.target.name, 'interpreter');
    await device.close();
    process.env.RETORT_TARGET = 'abacus';
    assert.throws(() => createDevice({ threads: 1 }), /RETORT_TARGET.*"abacus"/);
  } finally {
    if (before === undefined) delete process.env.RETORT_TARGET;
    else process.env.RETORT_TARGET = before;
  }
});
