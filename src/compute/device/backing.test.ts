// Memory past 4 GiB: indices up to the longest tensor, limits and what is said at them, children, address space.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import os from 'node:os';
import { test } from 'node:test';
import { RetortError } from '../../errors.js';
import { buildKernel } from '../kernel/builder.js';
import type { TargetInfo } from '../kernel/ir.js';
import { whyNotX64 } from '../target/x64/detect.js';
import type { Tensor } from '../tensor.js';
import { createDevice, type Device } from './device.js';

const GIB = 2 ** 30;
const skip = whyNotX64() ?? false;
/** A reservation may be as large as the machine's memory, whatever of it is touched. */
const skipUnder = (gib: number) => skip || (os.totalmem() < gib * GIB && `needs ${gib} GiB of memory`);

const wrong = (code: string, ...texts: RegExp[]) => {
  return (e: unknown) => {
    assert.ok(e instanceof RetortError && e.code === code, String(e));
    for (const text of texts) assert.match(e.message, text);
    return true;
  };
};

const WIDTH = 37;
const ROWS = 8;
/** Elements that the kernel below touches from `from` on. */
const SPAN = 3 * ROWS * WIDTH;

/**
 * Every form an address takes, counted from element `from` of x: sums with an item's product, a loop's counter and
 * constants, an index that was loaded, single elements, whole and partial vectors. The first ROWS rows change in place,
 * the next are written, the last are only read.
 */
const everyForm = (target: TargetInfo) =>
  buildKernel(
    'every-form',
    target,
    { x: 'f32*', at: 'i32*', from: 'i32', n: 'i32' },
    (b, { x, at, from, n }) => {
      const second = ROWS * WIDTH;
      b.items((item) => {
        const row = b.add(from, b.mul(item, WIDTH));
        b.vectors(n, (i, count) => {
          const index = b.add(row, i);
          const value = b.mulAdd(b.loadVec(x, index, count), b.splat(1.5), b.splat(0.25));
          b.store(x, b.add(index, second), value, count);
        });
        const picked = b.add(b.loadInt(at, item), from);
        b.store(x, b.add(row, b.add(n, second)), b.load(x, picked, 1));
        b.loop(row, b.add(row, n), 5, (i) => {
          b.prefetch(x, i, 64);
          b.store(x, i, b.sub(b.load(x, i), b.load(x, i, 1)));
        });
      });
    },
  );

function runEveryForm(device: Device, x: Tensor, from: number): Uint32Array {
  const part = () => device.floats({ ...x, size: SPAN, byteOffset: x.byteOffset + 4 * from });
  part().set(Float32Array.from({ length: SPAN }, (_, i) => Math.sin(i) * 3));
  const at = device.upload(
    Array.from({ length: ROWS }, (_, i) => (2 * ROWS + ((i * 5) % ROWS)) * WIDTH + 3),
    'i32',
  );
  device.launch(device.kernel('every-form', everyForm), ROWS, [x, at], [from, WIDTH - 1]);
  const got = part();
  return new Uint32Array(got.buffer, got.byteOffset, SPAN).slice();
}

test('x64: the last elements of the longest tensor, 8 GiB in, as the interpreter at the first', {
  skip: skipUnder(9),
}, async () => {
  const longest = 2 ** 31 - 2 ** 20;
  for (const threads of [1, 2]) {
    const device = createDevice({ target: 'x64', threads });
    const { lanes, fusedMulAdd } = device.target;
    const reference = createDevice({ target: 'interpreter', threads: 1, interpret: { lanes, fusedMulAdd } });
    const wanted = runEveryForm(reference, reference.tensor('other', [SPAN]), 0);
    const x = device.tensor('other', [longest]);
    assert.equal(device.floats(x).length, longest);
    for (const from of [0, 2 ** 29 - 300, 2 ** 30 - 300, longest - SPAN])
      assert.deepEqual(runEveryForm(device, x, from), wanted, `from element ${from}, ${threads} threads`);
    await Promise.all([device.close(), reference.close()]);
  }
});

test('x64: the limit is what the machine has, and is told when it is reached', { skip }, async () => {
  const device = createDevice({ target: 'x64', threads: 1 });
  const piece = 2 ** 26;
  let pieces = 0;
  const allocate = () => {
    for (;;) {
      device.tensor('other', [piece]);
      pieces++;
    }
  };
  assert.throws(allocate, wrong('out-of-memory', /it ends at \d+\.\d MiB; use a smaller .*more memory/));
  assert.ok(
    pieces >= Math.floor((os.totalmem() - 2 ** 21) / (4 * piece)) ||
      process.constrainedMemory() < os.totalmem(),
  );
  device.fill(device.tensor('other', [10]), 1);
  await device.close();
  const small = createDevice({ target: 'x64', threads: 1, maxBytes: 2 ** 20 });
  small.tensor('other', [2 ** 18 - 16]);
  assert.throws(() => small.tensor('other', [1]), wrong('out-of-memory', /ends at 1.0 MiB.*raise maxBytes/));
  await small.close();
});

test('WebAssembly and the interpreter end at 4 GiB, and say what does not', async () => {
  for (const target of ['wasm', 'interpreter'] as const) {
    const device = createDevice({ target, threads: 1 });
    assert.throws(
      () => device.tensor('other', [2 ** 30]),
      wrong(
        'out-of-memory',
        /grow to 4096.1 MiB: it ends at 4096.0 MiB; .*use machine code.*RETORT_TARGET=x64/,
      ),
    );
    await device.close();
    assert.throws(
      () => createDevice({ target, maxBytes: 2 ** 33 }),
      wrong('bad-input', /maxBytes: got 8589934592; .*4 GiB.*RETORT_TARGET=x64/),
    );
  }
});

test('limits and tensors that cannot be are refused with the remedy', { skip }, async () => {
  for (const target of ['wasm', 'x64'] as const)
    for (const maxBytes of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])
      assert.throws(() => createDevice({ target, maxBytes }), wrong('bad-input', /maxBytes.*whole number/));
  assert.throws(
    () => createDevice({ target: 'x64', maxBytes: 2 ** 52 }),
    wrong('out-of-memory', /maxBytes: got 4503599627370496; the system refuses/),
  );
  const device = createDevice({ target: 'x64', threads: 1 });
  for (const shape of [[2 ** 31], [2 ** 16, 2 ** 15], [2 ** 40, 2 ** 40], [-1], [Number.NaN]])
    for (const make of [() => device.tensor('other', shape), () => device.temporary(shape)])
      assert.throws(make, wrong('out-of-memory', /elements of a tensor of shape \[.*at most 2146435072/));
  await device.close();
});

/** Runs code in a process of its own under a shell's limits and gives its output. */
function inProcess(code: string, limits = 'true') {
  const device = JSON.stringify(new URL('./device.js', import.meta.url).href);
  const program = `const { createDevice } = await import(${device});${code}`;
  const command = `${limits} && exec "$0" --input-type=module -e "$1"`;
  return spawnSync('bash', ['-c', command, process.execPath, program], { encoding: 'utf8' });
}

test('x64: a process with several devices starts other processes', { skip }, () => {
  const { stdout, stderr } = inProcess(`
    import { spawnSync } from 'node:child_process';
    const devices = [1, 2, 3].map(() => createDevice({ target: 'x64', threads: 1 }));
    for (const d of devices) d.fill(d.tensor('other', [1000]), 1);
    console.log(spawnSync('true').error?.message ?? 'started');
  `);
  assert.equal(stdout.trim(), 'started', stderr);
});

test('x64: where the address space is limited, less is taken, and the limit named', { skip }, () => {
  const { stdout, stderr } = inProcess(
    `const device = createDevice({ target: 'x64', threads: 1 });
    device.fill(device.tensor('other', [1000]), 1);
    try { for (;;) device.tensor('other', [2 ** 26]); } catch (e) { console.log(e.message); }`,
    'ulimit -v 6000000',
  );
  assert.match(stdout, /it ends at \d+\.\d MiB.*reserve more \(see ulimit -v/, stderr);
});
