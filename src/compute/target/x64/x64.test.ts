// The x86-64 target against the interpreter, bit for bit, on random kernels whose buffers end at guard pages.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { checkRandomKernels } from '../../../../test/support/random-kernel.js';
import { x64Runner } from '../../../../test/support/x64-runner.js';
import { buildKernel } from '../../kernel/builder.js';
import { compileX64, X64_TARGETS } from './compile.js';
import { whyNotX64 } from './detect.js';
import { type Native, native } from './native.js';

const skip = whyNotX64() ?? false;

for (const instructions of ['avx2', 'avx512'] as const) {
  const target = X64_TARGETS[instructions];
  const skip = whyNotX64(instructions) ?? false;
  for (const at of ['end', 'start'] as const)
    test(`${instructions}: 1,000 random kernels as the interpreter, buffers at the ${at} of a page`, {
      skip,
    }, () => {
      checkRandomKernels(target, (kernel) => x64Runner(kernel, at));
    });

  test(`${instructions}: a value read from a variable, and an index made of it, outlast its change`, {
    skip,
  }, () => {
    const kernel = buildKernel('before', target, { q: 'i32*', n: 'i32' }, (b, { q, n }) => {
      const v = b.variable(n);
      const [first, second] = [b.int(10), b.int(20)];
      const old = v.get();
      const at = b.add(v.get(), 2);
      v.set(first);
      b.store(q, at, old);
      v.set(second);
      b.store(q, at, v.get(), undefined, 1);
    });
    const got = new Int32Array(8);
    x64Runner(kernel)([got], [0, 1, 0, 3]);
    assert.deepEqual([...got], [0, 0, 0, 0, 0, 3, 20, 0]);
  });

  test(`${instructions}: products with every kind of constant`, { skip }, () => {
    const factors = [0, 1, 2, 3, 5, 6, 7, 9, 24, 48, 96, 2 ** 30, 2 ** 30 + 1, 3 * 2 ** 29, 2 ** 31 - 1];
    const all = [...factors, ...factors.map((factor) => -factor), -(2 ** 31)];
    const kernel = buildKernel('times', target, { q: 'i32*', n: 'i32' }, (b, { q, n }) => {
      for (const [i, factor] of all.entries()) b.store(q, i, b.mul(n, factor));
    });
    for (const n of [0, 1, 2, -1, 12345, -98765, 2 ** 31 - 1, -(2 ** 31)]) {
      const got = new Int32Array(all.length);
      x64Runner(kernel)([got], [0, 1, 0, n]);
      assert.deepEqual(
        [...got],
        all.map((factor) => Math.imul(n, factor) + 0),
      );
    }
  });

  test(`${instructions}: a NaN equals nothing, whoever asks`, { skip }, () => {
    const kernel = buildKernel('unordered', target, { q: 'i32*', y: 'f32*', a: 'f32' }, (b, { q, y, a }) => {
      const [zero, one] = [b.int(0), b.int(1)];
      const [no, yes] = [b.float(2), b.float(3)];
      b.store(q, 0, b.select(b.eq(a, a), one, zero));
      b.store(y, 0, b.select(b.eq(a, a), yes, no));
      b.store(q, 1, b.eq(a, a));
      b.if(
        b.eq(a, a),
        () => b.store(y, 1, yes),
        () => b.store(y, 1, no),
      );
    });
    const [q, y] = [new Int32Array(2), new Float32Array(2)];
    x64Runner(kernel)([q, y], [0, 1, 0, Number.NaN]);
    assert.deepEqual([...q, ...y], [0, 0, 2, 2]);
    x64Runner(kernel)([q, y], [0, 1, 0, 5]);
    assert.deepEqual([...q, ...y], [1, 1, 3, 3]);
  });

  test(`${instructions}: an index whose constants together are no i32`, { skip }, () => {
    const kernel = buildKernel('far', target, { y: 'f32*', far: 'i32' }, (b, { y, far }) => {
      const less = () => b.add(far, -(2 ** 31));
      b.store(y, b.add(less(), b.add(less(), 7)), b.float(1), undefined, -4);
    });
    const got = new Float32Array(4);
    x64Runner(kernel)([got], [0, 1, 0, 2 ** 31 - 1]);
    assert.deepEqual([...got], [0, 1, 0, 0]);
  });
}

/** Runs code in a process of its own and gives its output. */
function inProcess(code: string, env: Record<string, string> = {}) {
  return spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    encoding: 'utf8',
    env: { ...process.env, RETORT_TARGET: undefined, ...env },
  });
}
const device = JSON.stringify(new URL('../../device/device.js', import.meta.url).href);

test('elsewhere kernels run as WebAssembly, without a word', () => {
  const { stdout, stderr } = inProcess(`
    Object.defineProperty(process, 'arch', { value: 'arm64' });
    const { createDevice } = await import(${device});
    console.log(createDevice({ threads: 1 }).target.name, createDevice({ threads: 1 }).target.name);
  `);
  assert.equal(stdout.trim(), 'wasm wasm');
  assert.equal(stderr, '');
});

test('asked for where there is none, machine code is refused with the reason', () => {
  const { stderr, status } = inProcess(
    `Object.defineProperty(process, 'platform', { value: 'darwin' });
    const { createDevice } = await import(${device});
    createDevice({ threads: 1 });`,
    { RETORT_TARGET: 'x64' },
  );
  assert.notEqual(status, 0);
  assert.match(stderr, /use wasm: machine code is made for Linux on x86-64, not darwin on x64/);
});

test('where koffi does not load, WebAssembly is taken and the reason said once', { skip }, () => {
  const { stdout, stderr } = inProcess(`
    import { Module } from 'node:module';
    const load = Module._load;
    Module._load = function (name, ...rest) {
      if (name === 'koffi') throw new Error('no koffi here');
      return load.call(this, name, ...rest);
    };
    const { createDevice } = await import(${device});
    console.log(createDevice({ threads: 1 }).target.name, createDevice({ threads: 1 }).target.name);
  `);
  assert.equal(stdout.trim(), 'wasm wasm');
  assert.equal(stderr.match(/RetortWarning/g)?.length, 1);
  assert.match(stderr, /WebAssembly.*no koffi here/);
});

test('memory that the system does not give for machine code is told', { skip: whyNotX64() ?? false }, () => {
  const { map } = native() as Native;
  assert.throws(() => map({ length: 2 ** 60 } as Uint8Array), { code: 'out-of-memory' });
});

test('a kernel that keeps its vectors is refused where they do not fit the registers', () => {
  for (const [instructions, fits] of [
    ['avx2', 15],
    ['avx512', 31],
  ] as const) {
    const build = (sums: number) =>
      buildKernel(
        'wide',
        X64_TARGETS[instructions],
        { x: 'f32*', n: 'i32' },
        (b, p) => {
          const all = Array.from({ length: sums }, () => b.variable(b.zero()));
          b.loop(0, p.n, 1, (i) => {
            const x = b.loadVec(p.x, b.mul(i, b.lanes));
            for (const sum of all) sum.set(b.mulAdd(x, x, sum.get()));
          });
          for (const [v, sum] of all.entries()) b.store(p.x, v * b.lanes, sum.get());
        },
        { keepsVectors: true },
      );
    compileX64(build(fits));
    assert.throws(
      () => compileX64(build(fits + 1)),
      /kernel wide that find no register: got \d+; make its tile/,
    );
  }
});
