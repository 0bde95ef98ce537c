// Register allocation: what innermost loops read, and that kernels with more values than registers do what they did.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { x64Runner } from '../../../../test/support/x64-runner.js';
import { dtypes } from '../../kernel/bfloat16.js';
import { buildKernel } from '../../kernel/builder.js';
import { interpret } from '../../kernel/interpreter.js';
import type { Kernel } from '../../kernel/ir.js';
import { matmulColumnsKernel, matmulKernel } from '../../op/linear/kernel.js';
import { allocate } from './allocate.js';
import { X64_TARGETS } from './compile.js';
import { whyNotX64 } from './detect.js';
import { type Machine, readInPlace, readsOf } from './machine.js';
import { select } from './select.js';
import { unroll } from './unroll.js';

const target = X64_TARGETS.avx2;

/** What innermost loops with so many multiply-adds read from memory where a register was to hold it. */
function loadsBeside(kernel: Kernel, multiplyAdds: number): number {
  const { code, allocation } = allocate(select(unroll(kernel)));
  let loop: Machine[] | undefined;
  let loads = 0;
  for (const m of code.instructions) {
    if (m.op === 'loopBegin') loop = [];
    loop?.push(m);
    if (m.op !== 'loopEnd') continue;
    if (loop && loop.filter(({ op }) => op === 'fma').length >= multiplyAdds)
      for (const inside of loop)
        for (const v of readsOf(inside))
          if (!('register' in allocation.locations[v]!) && !readInPlace(inside, v)) loads++;
    loop = undefined;
  }
  return loads;
}

test("the matrix products' loops of several rows find what they read in registers", () => {
  for (const instructions of ['avx2', 'avx512'] as const) {
    // Where panels are asked for ahead, the first tile needs more pointers than there are registers.
    const streaming = { ...X64_TARGETS[instructions], streams: true };
    const kernels = [
      ...dtypes.map((dtype) => matmulKernel(streaming, dtype)),
      matmulColumnsKernel(streaming),
    ];
    // Tiles that ask for the next strip have a pointer more: with AVX-512 and bfloat16 one too many.
    for (const kernel of kernels) {
      const most = instructions === 'avx512' && kernel.name === 'matmul-bfloat16' ? 1 : 0;
      assert.equal(loadsBeside(kernel, 8), most, `${instructions}, ${kernel.name}`);
    }
  }
});

/** Loops one after another, each of which reads four of many integers, floats and vectors that all live to the end. */
function crowded(): Kernel {
  const fields = { x: 'f32*', y: 'f32*', n: 'i32', a: 'i32', scale: 'f32' } as const;
  return buildKernel('crowded', target, fields, (b, { x, y, n, a, scale }) => {
    const starts = Array.from({ length: 20 }, (_, i) => b.mul(b.add(a, i), 3));
    const vectors = starts.map((start) => b.loadVec(x, start));
    const counts = starts.map((start) => b.variable(start));
    for (let first = 0; first < 20; first += 4) {
      b.loop(0, 3, 1, (outer) => {
        b.loop(0, n, 1, (i) => {
          const turn = b.add(i, outer);
          for (let s = first; s < first + 4; s++) {
            const value = b.mulAdd(b.load(x, b.add(starts[s], turn)), scale, b.toFloat(counts[s].get()));
            b.store(y, b.mul(b.add(b.mul(turn, 20), s), b.lanes), b.mul(vectors[s], b.splat(value)));
          }
          counts[first].set(b.add(counts[first].get(), starts[(first + 7) % 20]));
        });
        counts[first + 1].set(b.add(counts[first + 1].get(), outer));
      });
    }
    for (let s = 0; s < 20; s++) {
      const last = b.toFloat(b.add(counts[s].get(), starts[s]));
      b.store(y, s * b.lanes, b.add(vectors[s], b.splat(b.mul(last, scale))));
    }
  });
}

test('more values than registers, read and written in several loops', {
  skip: whyNotX64('avx2') ?? false,
}, () => {
  const kernel = crowded();
  const selected = select(unroll(kernel));
  const own = allocate(selected).code.classes.slice(selected.classes.length);
  assert.ok(own.includes('general') && own.includes('vector'), `split: ${own}`);
  const run = x64Runner(kernel);
  for (const n of [0, 1, 3, 4, 9]) {
    const fresh = () => [Float32Array.from({ length: 200 }, (_, i) => i / 7), new Float32Array(2000)];
    const [wanted, got] = [fresh(), fresh()];
    interpret(kernel, target, wanted, [0, 1, 0, n, 2, 0.3]);
    run(got, [0, 1, 0, n, 2, 0.3]);
    assert.deepEqual(got, wanted, `n ${n}`);
  }
});
