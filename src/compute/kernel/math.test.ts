// exp and log against double precision, over dense sweeps and at the edges of their ranges.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wasmRunner } from '../../../test/support/wasm-runner.js';
import { wasmTarget } from '../target/wasm-detect.js';
import { type Builder, buildKernel, type Value } from './builder.js';
import { interpret } from './interpreter.js';
import type { Kernel, TargetInfo } from './ir.js';
import { exp, log, rsqrt, sigmoid } from './math.js';

type MathFunction = <T extends 'f32' | 'vec'>(b: Builder, x: Value<T>) => Value<T>;

function elementwise(target: TargetInfo, f: MathFunction, scalar = false): Kernel {
  return buildKernel('elementwise', target, { x: 'f32*', y: 'f32*', n: 'i32' }, (b, { x, y, n }) => {
    if (scalar) b.loop(0, n, 1, (i) => b.store(y, i, f(b, b.load(x, i))));
    else b.vectors(n, (i, count) => b.store(y, i, f(b, b.loadVec(x, i, count)), count));
  });
}

const modes = [true, false].filter((fused) => !fused || wasmTarget().fusedMulAdd);

/** Through WebAssembly; interpreter.test.ts holds the two together. */
function compute(f: MathFunction, x: Float32Array, fusedMulAdd: boolean, scalar = false): Float32Array {
  const target: TargetInfo = { ...wasmTarget(), fusedMulAdd };
  const y = new Float32Array(x.length);
  wasmRunner(elementwise(target, f, scalar), target)([x, y], [0, 1, 0, x.length]);
  return y;
}

/** Distance between neighbours of f32 at the size of x. */
function ulp(x: number): number {
  const exponent = Math.max(-126, Math.floor(Math.log2(Math.abs(x) || 2 ** -149)));
  return 2 ** (exponent - 23);
}

function largestError(x: Float32Array, y: Float32Array, f: (x: number) => number): [ulps: number, x: number] {
  let worst: [number, number] = [0, 0];
  for (let i = 0; i < x.length; i++) {
    const wanted = f(x[i]);
    if (Math.fround(wanted) === y[i]) continue;
    const off = Math.abs(y[i] - wanted) / ulp(wanted);
    if (!(off <= worst[0])) worst = [off, x[i]];
  }
  return worst;
}

function floatsOfBits(first: number, last: number, step: number): Float32Array {
  const bits = new Int32Array(Math.floor((last - first) / step) + 1).map((_, i) => first + i * step);
  return new Float32Array(bits.buffer);
}

for (const fused of modes) {
  const named = fused ? 'fused' : 'not fused';

  test(`exp is within 2 ulp, denormal results included (${named})`, () => {
    const x = new Float32Array(1_000_003).map((_, i) => -104.5 + (i * 193.3) / 1e6);
    const [ulps, at] = largestError(x, compute(exp, x, fused), (v) => {
      const exact = Math.exp(v);
      return exact > 3.4028235677973366e38 ? Number.POSITIVE_INFINITY : exact;
    });
    assert.ok(ulps <= 2, `${ulps} ulp at ${at}`);
    const nearZero = floatsOfBits(0, 0x3f800000, 4099);
    const [small, where] = largestError(nearZero, compute(exp, nearZero, fused), Math.exp);
    assert.ok(small <= 2, `${small} ulp at ${where}`);
  });

  test(`log is within 2 ulp for every size of number (${named})`, () => {
    for (const x of [floatsOfBits(1, 0x7f7fffff, 2003), floatsOfBits(0x3f000000, 0x40000000, 17)]) {
      const [ulps, at] = largestError(x, compute(log, x, fused), Math.log);
      assert.ok(ulps <= 2, `${ulps} ulp at ${at}`);
    }
  });

  test(`sigmoid and rsqrt keep to a few ulp (${named})`, () => {
    const x = new Float32Array(100_003).map((_, i) => -85 + i / 500);
    const [ulps, at] = largestError(x, compute(sigmoid, x, fused), (v) => 1 / (1 + Math.exp(-v)));
    assert.ok(ulps <= 4, `${ulps} ulp at ${at}`);
    const positive = floatsOfBits(1, 0x7f7fffff, 20011);
    const [root, where] = largestError(positive, compute(rsqrt, positive, fused), (v) => 1 / Math.sqrt(v));
    assert.ok(root <= 1.5, `${root} ulp at ${where}`);
  });

  for (const scalar of [true, false]) {
    test(`exp and log at the edges (${named}, ${scalar ? 'scalar' : 'vector'})`, () => {
      const { NaN: nan, POSITIVE_INFINITY: inf } = Number;
      const top = 88.72283; // the largest float whose exp is finite
      const x = Float32Array.of(0, -0, -inf, -104, -105, -1e30, inf, 88.73, 1e30, nan, top, -103.9);
      assert.deepEqual(
        [...compute(exp, x, fused, scalar)].map((v, i) => (i === 10 ? v > 3.4e38 && v < inf : v)),
        [1, 1, 0, 0, 0, 0, inf, inf, inf, nan, true, 2 ** -149],
      );
      const y = Float32Array.of(1, 0, -0, -1, -1e-40, -inf, nan, inf, 2 ** -149);
      assert.deepEqual(
        [...compute(log, y, fused, scalar)],
        [0, -inf, -inf, nan, nan, nan, nan, inf, Math.fround(Math.log(2 ** -149))],
      );
    });
  }
}

test('exp and log are the same for any number of lanes', () => {
  const x = new Float32Array(37).map((_, i) => (i - 18) * 6.1);
  const results = [1, 4, 8, 16].map((lanes) => {
    const target: TargetInfo = { name: 'interpreter', lanes, vectorRegisters: 16, fusedMulAdd: false };
    return [exp, log].map((f) => {
      const y = new Float32Array(x.length);
      interpret(elementwise(target, f), target, [x, y], [0, 1, 0, x.length]);
      return [...y];
    });
  });
  for (const r of results) assert.deepEqual(r, results[0]);
});
