// bfloat16 numbers in pairs, against the rounding of model files: every kind of float32, vectors and scalars, every target.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wasmRunner } from '../../../test/support/wasm-runner.js';
import { x64Runner } from '../../../test/support/x64-runner.js';
import { narrow as narrowed, widen } from '../../checkpoint/half.js';
import { philox } from '../../random.js';
import { wasmTarget } from '../target/wasm-detect.js';
import { X64_TARGETS } from '../target/x64/compile.js';
import { whyNotX64 } from '../target/x64/detect.js';
import { loadNumbers, narrow } from './bfloat16.js';
import { buildKernel } from './builder.js';
import { type InterpretedKernel, prepareInterpreter } from './interpreter.js';
import type { Kernel, TargetInfo } from './ir.js';

/** Every exponent and sign with fractions around what rounds up, down and to even, and bits of no pattern. */
function samples(): Float32Array {
  const bits: number[] = [];
  const fractions = [
    0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x10000, 0x17fff, 0x18000, 0x18001, 0x7f8000, 0x7fffff,
  ];
  for (let top = 0; top < 512; top++) for (const fraction of fractions) bits.push((top << 23) | fraction);
  for (let i = 0; i < 20_000; i++) bits.push(philox(3, i, 0, 0)[0]);
  bits.length -= bits.length % 32;
  return new Float32Array(Int32Array.from(bits).buffer);
}

/** Lower halves from x, upper ones from y, and both back again. */
function pairs(target: TargetInfo): Kernel {
  const fields = { x: 'f32*', y: 'f32*', kept: 'i32*', low: 'f32*', high: 'f32*', n: 'i32' } as const;
  return buildKernel('pairs', target, fields, (b, p) => {
    b.loop(0, p.n, b.lanes, (i) => {
      b.store(p.kept, i, narrow(b, b.loadVec(p.x, i), b.loadVec(p.y, i)));
      const [low, high] = loadNumbers(b, p.kept, i);
      b.store(p.low, i, low);
      b.store(p.high, i, high);
    });
  });
}

function scalars(target: TargetInfo): Kernel {
  const fields = { x: 'f32*', y: 'f32*', kept: 'i32*', n: 'i32' } as const;
  return buildKernel('scalars', target, fields, (b, p) => {
    b.loop(0, p.n, 1, (i) => b.store(p.kept, i, narrow(b, b.load(p.x, i), b.load(p.y, i))));
  });
}

type Runner = (make: (target: TargetInfo) => Kernel) => InterpretedKernel;
const runners: Record<string, Runner> = {
  interpreter: (make) => prepareInterpreter(make(X64_TARGETS.avx2), X64_TARGETS.avx2),
  WebAssembly: (make) => wasmRunner(make(wasmTarget()), wasmTarget()),
};
for (const name of ['avx2', 'avx512'] as const)
  if (!whyNotX64(name)) runners[name] = (make) => x64Runner(make(X64_TARGETS[name]));

/** The 16 bits, of a NaN only that it is one. */
const told = (values: Uint16Array) => [...values].map((h) => ((h & 0x7fff) > 0x7f80 ? 'NaN' : h));

for (const [name, run] of Object.entries(runners))
  test(`rounded and widened as in model files: ${name}`, () => {
    const x = samples();
    const y = x.slice().reverse();
    const n = x.length;
    const kept = new Int32Array(n);
    const [low, high] = [new Float32Array(n), new Float32Array(n)];
    run(pairs)([x, y, kept, low, high], [0, 1, 0, n]);
    const lower = Uint16Array.from(kept, (pair) => pair & 0xffff);
    const upper = Uint16Array.from(kept, (pair) => pair >>> 16);
    for (const [halves, given, back] of [
      [lower, x, low],
      [upper, y, high],
    ] as const) {
      assert.deepEqual(told(halves), told(narrowed('BF16', given)));
      const wide = new Float32Array(n);
      widen('BF16', halves, wide);
      assert.deepEqual(back, wide);
    }
    const one = new Int32Array(n);
    run(scalars)([x, y, one], [0, 1, 0, n]);
    assert.deepEqual(one, kept);
  });
