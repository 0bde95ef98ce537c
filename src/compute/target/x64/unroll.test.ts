// Unrolled kernels against the same kernels as they were, both interpreted.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkRandomKernels } from '../../../../test/support/random-kernel.js';
import { x64Runner } from '../../../../test/support/x64-runner.js';
import { buildKernel } from '../../kernel/builder.js';
import { interpret, prepareInterpreter } from '../../kernel/interpreter.js';
import type { Kernel, Statement } from '../../kernel/ir.js';
import { verifyKernel } from '../../kernel/verify.js';
import { X64_TARGETS } from './compile.js';
import { whyNotX64 } from './detect.js';
import { unroll } from './unroll.js';

const target = X64_TARGETS.avx2;

/** Steps of the loops of a block and of those in it. */
function stepsOf(block: readonly Statement[]): number[] {
  return block.flatMap((s) => {
    if (s.kind === 'if') return [...stepsOf(s.yes), ...stepsOf(s.no)];
    return s.kind === 'loop' ? [s.step, ...stepsOf(s.body)] : [];
  });
}

test('1,000 random kernels do the same unrolled', () => {
  checkRandomKernels(target, (kernel) => {
    const unrolled = unroll(kernel);
    verifyKernel(unrolled);
    return prepareInterpreter(unrolled, target);
  });
});

/** y[place] gets numbers that depend on which turns there were, and in which order. */
function counting(step: number, bounds?: { start: number; end: number }): Kernel {
  const fields = { x: 'f32*', y: 'f32*', q: 'i32*', from: 'i32', to: 'i32' } as const;
  return buildKernel('counting', target, fields, (b, { x, y, q, from, to }) => {
    const sum = b.variable(b.float(1));
    const turns = b.variable(b.int(0));
    b.loop(bounds?.start ?? from, bounds?.end ?? to, step, (i) => {
      const mine = b.variable(b.load(x, b.add(b.mul(i, 3), 2)));
      mine.set(b.add(mine.get(), b.toFloat(i)));
      sum.set(b.mulAdd(sum.get(), b.float(1.5), mine.get()));
      turns.set(b.add(turns.get(), 1));
      b.store(q, b.add(i, 1), b.sub(b.mul(i, 7), turns.get()));
      b.store(y, b.sub(100, i), mine.get());
    });
    b.store(y, 0, sum.get());
    b.store(q, 0, turns.get());
  });
}

test('loops of every length, with steps of 1 to 8, turn as often as before', () => {
  for (const step of [1, 2, 3, 4, 8])
    for (let from = 0; from < 3; from++)
      for (let to = 0; to < 45; to++) {
        for (const kernel of [counting(step), counting(step, { start: from, end: to })]) {
          const fresh = () => [
            Float32Array.from({ length: 200 }, (_, i) => i / 3),
            new Float32Array(120),
            new Int32Array(120),
          ];
          const [wanted, got] = [fresh(), fresh()];
          interpret(kernel, target, wanted, [0, 1, 0, from, to]);
          interpret(unroll(kernel), target, got, [0, 1, 0, from, to]);
          assert.deepEqual(got, wanted, `step ${step} from ${from} to ${to}`);
        }
      }
});

test('a loop takes four turns at a time where they are small, and the rest one by one', () => {
  assert.deepEqual(stepsOf(unroll(counting(2)).body), [8, 2]);
  const whole = unroll(counting(1, { start: 0, end: 32 }));
  assert.deepEqual(stepsOf(whole.body), [4]);
  assert.deepEqual(stepsOf(unroll(counting(3)).body), [3]);
});

test('an index that grows evenly is computed once for all turns', () => {
  const copy = buildKernel('copy', target, { x: 'f32*', y: 'f32*', n: 'i32' }, (b, { x, y, n }) => {
    b.loop(0, n, 1, (i) => b.store(y, b.add(b.mul(i, 16), 5), b.load(x, b.add(i, 3))));
  });
  const [loop] = unroll(copy).body.filter((s) => s.kind === 'loop');
  const kinds = loop.body.map((s) => (s.kind === 'value' ? s.op : s.kind));
  assert.equal(kinds.filter((k) => k === 'load' || k === 'store').length, 8);
  assert.equal(kinds.filter((k) => k === 'add' || k === 'mul').length, 3);
  const imms = loop.body.flatMap((s) => (s.kind === 'store' ? [s.imm] : []));
  assert.deepEqual(imms, [0, 16, 32, 48]);
});

/** What the kernel does as it is and unrolled, interpreted; and as machine code where it runs. */
function assertSame(kernel: Kernel, buffers: () => (Float32Array | Int32Array)[], scalars: number[]): void {
  const [wanted, got, machine] = [buffers(), buffers(), buffers()];
  interpret(kernel, target, wanted, [0, 1, 0, ...scalars]);
  interpret(unroll(kernel), target, got, [0, 1, 0, ...scalars]);
  assert.deepEqual(got, wanted);
  if (whyNotX64('avx2')) return;
  x64Runner(kernel)(machine, [0, 1, 0, ...scalars]);
  assert.deepEqual(machine, wanted);
}

test('turns without lanes may have any index, and say nothing of those after them', () => {
  const kernel = buildKernel('growing', target, { y: 'f32*', n: 'i32' }, (b, { y, n }) => {
    b.loop(0, n, 1, (i) => b.store(y, b.sub(i, 2), b.splat(b.toFloat(i)), b.sub(i, 1)));
  });
  assertSame(kernel, () => [new Float32Array(16)], [8]);
});

test('indices that reach far by their constants stay where they were', () => {
  const kernel = buildKernel('far', target, { y: 'f32*', far: 'i32' }, (b, { y, far }) => {
    b.loop(0, 4, 1, (i) =>
      b.store(y, b.add(b.sub(far, i), -(2 ** 28 - 1)), b.toFloat(i), undefined, -(2 ** 28 - 1)),
    );
  });
  assertSame(kernel, () => [new Float32Array(16)], [2 ** 29 + 2]);
});

test('loops whose bounds or steps are far apart turn as often as before', () => {
  const counted = (step: number, bounds?: { start: number; end: number }) =>
    buildKernel('far', target, { q: 'i32*', from: 'i32', to: 'i32' }, (b, { q, from, to }) => {
      const turns = b.variable(b.int(0));
      b.loop(bounds?.start ?? from, bounds?.end ?? to, step, () => turns.set(b.add(turns.get(), 1)));
      b.store(q, 0, turns.get());
    });
  for (const [start, end, step] of [
    [2_000_000_000, -1_999_999_999, 1],
    [-(2 ** 31), 2 ** 30, 2 ** 26],
    [-(2 ** 31), 2 ** 30, 2 ** 29],
    [0, 2 ** 30, 2 ** 28],
    [5, 5, 1],
  ]) {
    assertSame(counted(step), () => [new Int32Array(4)], [start, end]);
    assertSame(counted(step, { start, end }), () => [new Int32Array(4)], [start, end]);
  }
});

test('a kernel that keeps its vectors is taken as it is where they do not fit unrolled', () => {
  const kernel = buildKernel(
    'masked',
    target,
    { x: 'f32*', n: 'i32' },
    (b, p) => {
      const all = Array.from({ length: 15 }, () => b.variable(b.zero()));
      b.loop(0, p.n, 1, (i) => {
        const x = b.loadVec(p.x, b.mul(i, 8), b.int(5));
        for (const sum of all) sum.set(b.mulAdd(x, x, sum.get()));
      });
      for (const [v, sum] of all.entries()) b.store(p.x, v * 8, sum.get());
    },
    { keepsVectors: true },
  );
  assertSame(kernel, () => [Float32Array.from({ length: 120 }, (_, i) => i / 7)], [9]);
});
