// The WebAssembly target against the interpreter, bit for bit, on random kernels with guard zones around the buffers.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkRandomKernels } from '../../../test/support/random-kernel.js';
import { wasmRunner } from '../../../test/support/wasm-runner.js';
import { buildKernel } from '../kernel/builder.js';
import type { TargetInfo } from '../kernel/ir.js';
import { compileWasm } from './wasm.js';
import { wasmTarget } from './wasm-detect.js';

const modes = [true, false].filter((fused) => !fused || wasmTarget().fusedMulAdd);

for (const fusedMulAdd of modes) {
  const target: TargetInfo = { ...wasmTarget(), fusedMulAdd };
  test(`1,000 random kernels as the interpreter, mulAdd ${fusedMulAdd ? '' : 'not '}fused`, () => {
    checkRandomKernels(target, (kernel) => wasmRunner(kernel, target));
  });
}

test('the guard zones notice a store outside a buffer', () => {
  const target = wasmTarget();
  for (const at of [8, -1]) {
    const kernel = buildKernel('stray', target, { y: 'f32*' }, (b, { y }) =>
      b.store(y, b.add(b.part, at), b.float(1)),
    );
    assert.throws(() => wasmRunner(kernel, target)([new Float32Array(8)], [0, 1, 0]), /outside its buffers/);
  }
});

test('a kernel built for other lanes is refused', () => {
  const eight: TargetInfo = { ...wasmTarget(), lanes: 8 };
  const kernel = buildKernel('wide', eight, {}, () => {});
  assert.throws(() => compileWasm(kernel, wasmTarget()), /lanes of kernel wide: got 8/);
});

test('long expressions and many values compile', () => {
  const target = wasmTarget();
  const kernel = buildKernel('long', target, { y: 'f32*' }, (b, { y }) => {
    let sum = b.load(y, 0);
    for (let i = 0; i < 20_000; i++) sum = b.add(sum, 1);
    b.store(y, 0, sum);
  });
  const y = Float32Array.of(5);
  wasmRunner(kernel, target)([y], [0, 1, 0]);
  assert.equal(y[0], 20_005);
});

test('both of a vector and every kind of mask', () => {
  const target = wasmTarget();
  const masks = [0, 1, -1, -2, -3, -4, -65536, -65535, 65535, 2 ** 30, -(2 ** 30), -(2 ** 31), 2 ** 31 - 1];
  const kernel = buildKernel('masks', target, { x: 'i32*', q: 'i32*' }, (b, { x, q }) => {
    const given = b.loadIVec(x, 0);
    masks.forEach((mask, i) => {
      b.store(q, 8 * i, b.and(given, b.splatInt(mask)));
      b.store(q, 8 * i + 4, b.and(b.splatInt(mask), given));
    });
  });
  const x = Int32Array.of(-1, 0x12345678, -0x12345679, 2 ** 31 - 1);
  const q = new Int32Array(8 * masks.length);
  wasmRunner(kernel, target)([x, q], [0, 1, 0]);
  const wanted = masks.flatMap((mask) => [...x, ...x].map((value) => value & mask));
  assert.deepEqual([...q], wanted);
});
