// The meaning of every operation, by hand-written cases, on the interpreter and on WebAssembly.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomFrom } from '../../../test/support/random-kernel.js';
import { wasmRunner } from '../../../test/support/wasm-runner.js';
import { wasmTarget } from '../target/wasm-detect.js';
import {
  type Buffer,
  type Builder,
  buildKernel,
  type F32,
  type I32,
  type IVec,
  type Vec,
} from './builder.js';
import { type InterpretedKernel, interpret, prepareInterpreter } from './interpreter.js';
import type { Kernel, TargetInfo } from './ir.js';

const { NaN: nan, POSITIVE_INFINITY: inf } = Number;
const tiny = 2 ** -149;
const max = 3.4028234663852886e38;
const modes = [true, false];

interface Runner {
  readonly name: string;
  readonly target: TargetInfo;
  readonly prepare: (kernel: Kernel, target: TargetInfo) => InterpretedKernel;
}

const runners: Runner[] = modes.flatMap((fusedMulAdd) => [
  ...[1, 2, 4, 8, 16].map((lanes) => ({
    name: `interpreter, ${lanes} lanes${fusedMulAdd ? ', fused' : ''}`,
    target: { name: 'interpreter', lanes, vectorRegisters: 16, fusedMulAdd } as const,
    prepare: prepareInterpreter,
  })),
  ...(fusedMulAdd && !wasmTarget().fusedMulAdd
    ? []
    : [
        {
          name: `WebAssembly${fusedMulAdd ? ', fused' : ''}`,
          target: { ...wasmTarget(), fusedMulAdd },
          prepare: wasmRunner,
        },
      ]),
]);

type Row = readonly number[];
/** Rows are operands, then the result. */
interface Case {
  readonly rows: readonly Row[];
  readonly scalar?: (b: Builder, x: F32, y: F32, z: F32) => F32 | I32;
  readonly vector?: (b: Builder, x: Vec, y: Vec, z: Vec) => Vec | IVec;
}
interface IntCase {
  readonly rows: readonly Row[];
  readonly scalar?: (b: Builder, x: I32, y: I32) => F32 | I32;
  readonly vector?: (b: Builder, x: IVec, y: IVec) => Vec | IVec;
}

/** A mask as 1 and 0. */
const seen = (b: Builder, mask: ReturnType<Builder['firstLanes']>): Vec =>
  b.select(mask, b.splat(1), b.splat(0));
const f = Math.fround;
const odd = 1 + 2 ** -23;

const floatCases: Record<string, Case> = {
  add: {
    rows: [
      [1, 2 ** -24, 0, 1],
      [odd, 2 ** -24, 0, 1 + 2 ** -22],
      [max, max, 0, inf],
      [inf, -inf, 0, nan],
      [tiny, tiny, 0, 2 * tiny],
    ],
    scalar: (b, x, y) => b.add(x, y),
    vector: (b, x, y) => b.add(x, y),
  },
  sub: {
    rows: [
      [1, 3, 0, -2],
      [0, 0, 0, 0],
      [-0, 0, 0, -0],
      [2 ** -126, tiny, 0, 2 ** -126 - tiny],
    ],
    scalar: (b, x, y) => b.sub(x, y),
    vector: (b, x, y) => b.sub(x, y),
  },
  mul: {
    rows: [
      [3, -2, 0, -6],
      [0, inf, 0, nan],
      [2 ** -100, 2 ** -49, 0, tiny],
      [2 ** -100, 2 ** -50, 0, 0],
      [f(0.1), f(0.1), 0, f(f(0.1) * f(0.1))],
    ],
    scalar: (b, x, y) => b.mul(x, y),
    vector: (b, x, y) => b.mul(x, y),
  },
  div: {
    rows: [
      [1, 3, 0, f(1 / 3)],
      [1, 0, 0, inf],
      [1, -0, 0, -inf],
      [0, 0, 0, nan],
      [tiny, 2, 0, 0],
    ],
    scalar: (b, x, y) => b.div(x, y),
    vector: (b, x, y) => b.div(x, y),
  },
  min: {
    rows: [
      [1, 2, 0, 1],
      [2, 1, 0, 1],
      [nan, 1, 0, 1],
      [1, nan, 0, nan],
      [0, -0, 0, -0],
      [-0, 0, 0, 0],
    ],
    scalar: (b, x, y) => b.min(x, y),
    vector: (b, x, y) => b.min(x, y),
  },
  max: {
    rows: [
      [1, 2, 0, 2],
      [2, 1, 0, 2],
      [nan, 1, 0, 1],
      [1, nan, 0, nan],
      [0, -0, 0, -0],
      [-0, 0, 0, 0],
    ],
    scalar: (b, x, y) => b.max(x, y),
    vector: (b, x, y) => b.max(x, y),
  },
  neg: {
    rows: [
      [1, 0, 0, -1],
      [0, 0, 0, -0],
      [-inf, 0, 0, inf],
    ],
    scalar: (b, x) => b.neg(x),
    vector: (b, x) => b.neg(x),
  },
  abs: {
    rows: [
      [-1, 0, 0, 1],
      [-0, 0, 0, 0],
      [-inf, 0, 0, inf],
    ],
    scalar: (b, x) => b.abs(x),
    vector: (b, x) => b.abs(x),
  },
  sqrt: {
    rows: [
      [2, 0, 0, f(Math.SQRT2)],
      [-0, 0, 0, -0],
      [-1, 0, 0, nan],
      [2 ** -148, 0, 0, 2 ** -74],
      [inf, 0, 0, inf],
    ],
    scalar: (b, x) => b.sqrt(x),
    vector: (b, x) => b.sqrt(x),
  },
  floor: {
    rows: [
      [1.5, 0, 0, 1],
      [-1.5, 0, 0, -2],
      [-0, 0, 0, -0],
      [-tiny, 0, 0, -1],
      [2 ** 30, 0, 0, 2 ** 30],
      [nan, 0, 0, nan],
    ],
    scalar: (b, x) => b.floor(x),
    vector: (b, x) => b.floor(x),
  },
  nearest: {
    rows: [
      [0.5, 0, 0, 0],
      [1.5, 0, 0, 2],
      [2.5, 0, 0, 2],
      [-0.5, 0, 0, -0],
      [-2.5, 0, 0, -2],
      [8388607.5, 0, 0, 8388608],
      [2.75, 0, 0, 3],
      [-inf, 0, 0, -inf],
      [nan, 0, 0, nan],
    ],
    scalar: (b, x) => b.nearest(x),
    vector: (b, x) => b.nearest(x),
  },
  fma: {
    rows: [
      [2, 3, 5, 11],
      [1 + 2 ** -12, 1 + 2 ** -12, -1, 2 ** -11 + 2 ** -24],
      // Just below and just above the middle of two floats, by less than f64 can tell.
      [odd, (1 - 2 ** -23) * 2 ** -24, odd, odd],
      [odd, odd * 2 ** -24, 1, odd],
      [inf, 0, 1, nan],
      [max, 2, -inf, -inf],
      [max, 2, -max, max],
      [0, -1, 0, 0],
    ],
    scalar: (b, x, y, z) => b.fma(x, y, z),
    vector: (b, x, y, z) => b.fma(x, y, z),
  },
  lt: {
    rows: [
      [1, 2, 0, 1],
      [2, 2, 0, 0],
      [nan, 1, 0, 0],
      [-0, 0, 0, 0],
    ],
    scalar: (b, x, y) => b.lt(x, y),
    vector: (b, x, y) => seen(b, b.lt(x, y)),
  },
  le: {
    rows: [
      [1, 2, 0, 1],
      [2, 2, 0, 1],
      [3, 2, 0, 0],
      [nan, nan, 0, 0],
      [0, -0, 0, 1],
    ],
    scalar: (b, x, y) => b.le(x, y),
    vector: (b, x, y) => seen(b, b.le(x, y)),
  },
  eq: {
    rows: [
      [2, 2, 0, 1],
      [1, 2, 0, 0],
      [nan, nan, 0, 0],
      [0, -0, 0, 1],
    ],
    scalar: (b, x, y) => b.eq(x, y),
    vector: (b, x, y) => seen(b, b.eq(x, y)),
  },
  'select, and, or, not': {
    rows: [
      [1, 2, 9, 9],
      [2, 1, 9, 2],
      [3, 3, 9, 9],
      [-5, -4, 9, -5],
    ],
    // z where 0 < x <= y, else x.
    scalar: (b, x, y, z) => b.select(b.and(b.lt(0, x), b.or(b.not(b.lt(y, x)), b.eq(x, y))), z, x),
    vector: (b, x, y, z) => b.select(b.and(b.lt(b.zero(), x), b.or(b.not(b.lt(y, x)), b.eq(x, y))), z, x),
  },
  toInt: {
    rows: [
      [1.9, 0, 0, 1],
      [-1.9, 0, 0, -1],
      [nan, 0, 0, 0],
      [3e9, 0, 0, 2 ** 31 - 1],
      [-inf, 0, 0, -(2 ** 31)],
      [-tiny, 0, 0, 0],
    ],
    scalar: (b, x) => b.toInt(x),
    vector: (b, x) => b.toInt(x),
  },
  bitsToInt: {
    rows: [
      [1, 0, 0, 0x3f800000],
      [-0, 0, 0, -(2 ** 31)],
      [tiny, 0, 0, 1],
    ],
    scalar: (b, x) => b.bitsToInt(x),
    vector: (b, x) => b.bitsToInt(x),
  },
};

const intCases: Record<string, IntCase> = {
  'add wraps': {
    rows: [
      [2 ** 31 - 1, 1, -(2 ** 31)],
      [-5, 3, -2],
    ],
    scalar: (b, x, y) => b.add(x, y),
    vector: (b, x, y) => b.add(x, y),
  },
  'sub wraps': {
    rows: [
      [-(2 ** 31), 1, 2 ** 31 - 1],
      [-5, 3, -8],
    ],
    scalar: (b, x, y) => b.sub(x, y),
    vector: (b, x, y) => b.sub(x, y),
  },
  'mul wraps': {
    rows: [
      [0x12345678, 0x7654321, Math.imul(0x12345678, 0x7654321)],
      [-5, 3, -15],
    ],
    scalar: (b, x, y) => b.mul(x, y),
    vector: (b, x, y) => b.mul(x, y),
  },
  'div truncates': {
    rows: [
      [-7, 2, -3],
      [7, -2, -3],
      [1, 3, 0],
      [-1, 3, 0],
    ],
    scalar: (b, x, y) => b.div(x, y),
  },
  'rem truncates': {
    rows: [
      [-7, 2, -1],
      [7, -2, 1],
      [-4, 2, 0],
    ],
    scalar: (b, x, y) => b.rem(x, y),
  },
  min: {
    rows: [
      [-1, 1, -1],
      [1, -1, -1],
    ],
    scalar: (b, x, y) => b.min(x, y),
    vector: (b, x, y) => b.min(x, y),
  },
  max: {
    rows: [
      [-1, 1, 1],
      [1, -1, 1],
    ],
    scalar: (b, x, y) => b.max(x, y),
    vector: (b, x, y) => b.max(x, y),
  },
  lt: {
    rows: [
      [-1, 1, 1],
      [1, 1, 0],
      [2, 1, 0],
    ],
    scalar: (b, x, y) => b.toFloat(b.lt(x, y)),
    vector: (b, x, y) => seen(b, b.lt(x, y)),
  },
  le: {
    rows: [
      [-1, 1, 1],
      [1, 1, 1],
      [2, 1, 0],
    ],
    scalar: (b, x, y) => b.toFloat(b.le(x, y)),
    vector: (b, x, y) => seen(b, b.le(x, y)),
  },
  eq: {
    rows: [
      [-1, 1, 0],
      [1, 1, 1],
      [0, -(2 ** 31), 0],
    ],
    scalar: (b, x, y) => b.toFloat(b.eq(x, y)),
    vector: (b, x, y) => seen(b, b.eq(x, y)),
  },
  and: {
    rows: [
      [12, 10, 8],
      [-1, 7, 7],
    ],
    scalar: (b, x, y) => b.and(x, y),
    vector: (b, x, y) => b.and(x, y),
  },
  or: {
    rows: [
      [12, 10, 14],
      [-2, 1, -1],
    ],
    scalar: (b, x, y) => b.or(x, y),
    vector: (b, x, y) => b.or(x, y),
  },
  'not of a truth value': {
    rows: [
      [0, 0, 1],
      [1, 0, 0],
      [5, 0, 0],
    ],
    scalar: (b, x) => b.not(x),
  },
  shl: {
    rows: [
      [3, 0, 24],
      [0x20000001, 0, 8],
    ],
    scalar: (b, x) => b.shl(x, 3),
    vector: (b, x) => b.shl(x, 3),
  },
  'shr is logical': {
    rows: [
      [-1, 0, 0x1fffffff],
      [17, 0, 2],
    ],
    scalar: (b, x) => b.shr(x, 3),
    vector: (b, x) => b.shr(x, 3),
  },
  'shr by 0': { rows: [[-1, 0, -1]], scalar: (b, x) => b.shr(x, 0), vector: (b, x) => b.shr(x, 0) },
  toFloat: {
    rows: [
      [16777217, 0, 16777216],
      [-(2 ** 31), 0, -(2 ** 31)],
    ],
    scalar: (b, x) => b.toFloat(x),
    vector: (b, x) => b.toFloat(x),
  },
  bitsToFloat: {
    rows: [
      [0x3f800000, 0, 1],
      [-(2 ** 31), 0, -0],
      [1, 0, tiny],
    ],
    scalar: (b, x) => b.bitsToFloat(x),
    vector: (b, x) => b.bitsToFloat(x),
  },
};

/** What the operation gives for each row; vectors take the rows as lanes. */
function results(
  r: Runner,
  name: string,
  rows: readonly Row[],
  ints: boolean,
  c: Case | IntCase,
  scalar: boolean,
) {
  const element = ints ? 'i32*' : 'f32*';
  const parameters = { x: element, y: element, z: element, fs: 'f32*', is: 'i32*', n: 'i32' } as const;
  const kernel = buildKernel(name, r.target, parameters, (b, p) => {
    const one = (i: I32, count?: I32) => {
      const operand = (buffer: unknown) => {
        const [x, q] = [buffer as Buffer<'f32'>, buffer as Buffer<'i32'>];
        if (scalar) return ints ? b.loadInt(q, i) : b.load(x, i);
        return ints ? b.loadIVec(q, i, count) : b.loadVec(x, i, count);
      };
      const make = (scalar ? c.scalar : c.vector) as unknown as (
        b: Builder,
        ...v: unknown[]
      ) => F32 | I32 | Vec | IVec;
      const v = make(b, operand(p.x), operand(p.y), operand(p.z));
      if (v.type === 'f32' || v.type === 'vec') b.store(p.fs, i, v as Vec, count);
      else b.store(p.is, i, v as IVec, count);
    };
    if (scalar) b.loop(0, p.n, 1, (i) => one(i));
    else b.vectors(p.n, one);
  });
  const column = (i: number) => {
    const values = rows.map((row) => row[i]);
    return ints ? Int32Array.from(values) : Float32Array.from(values);
  };
  const fs = new Float32Array(rows.length);
  const is = new Int32Array(rows.length);
  r.prepare(kernel, r.target)([column(0), column(1), column(2), fs, is], [0, 1, 0, rows.length]);
  const isInt = kernel.body.some((s) => JSON.stringify(s).includes('"kind":"store","buffer":4'));
  return isInt ? [...is] : [...fs];
}

for (const r of runners) {
  test(`each operation (${r.name})`, () => {
    const sets: [boolean, Record<string, Case | IntCase>][] = [
      [false, floatCases],
      [true, intCases],
    ];
    for (const [ints, cases] of sets)
      for (const [name, c] of Object.entries(cases))
        for (const scalar of [true, false]) {
          if (!(scalar ? c.scalar : c.vector)) continue;
          const wanted = c.rows.map((row) => row[row.length - 1]);
          assert.deepEqual(
            results(r, name, c.rows, ints, c, scalar),
            wanted,
            `${name} ${scalar ? 'scalar' : 'vector'}`,
          );
        }
  });

  test(`mulAdd rounds as the target says (${r.name})`, () => {
    const x = 1 + 2 ** -12;
    const rows = [[x, x, -1, r.target.fusedMulAdd ? 2 ** -11 + 2 ** -24 : 2 ** -11]];
    const c: Case = {
      rows,
      scalar: (b, p, q, s) => b.mulAdd(p, q, s),
      vector: (b, p, q, s) => b.mulAdd(p, q, s),
    };
    for (const scalar of [true, false])
      assert.deepEqual(results(r, 'mulAdd', rows, false, c, scalar), [rows[0][3]]);
  });

  test(`fma is exact where f64 alone would round twice (${r.name})`, () => {
    const random = randomFrom(7);
    const rows = Array.from({ length: 2000 }, (_, i): Row => {
      if (i % 5 === 0) {
        // The product is in the middle of two floats, and the addend far below decides.
        const [a, b] = [4095 - 2 * Math.floor(random() * 99), 8191 - 2 * Math.floor(random() * 999)];
        const c = (random() - 0.5) * 2 ** (-20 - Math.floor(random() * 20));
        return [a, b, f(c), exactFma(a, b, f(c))];
      }
      const scale = 2 ** Math.floor(random() * 200 - (i % 4 === 0 ? 148 : 100));
      const small = 1 + Math.floor(random() * 3) * 2 ** -23;
      const sign = random() < 0.5 ? -1 : 1;
      const near = random() < 0.5 ? 2 - small : small;
      const a = f(small);
      const b = f(near * scale * 2 ** -24 * sign);
      const c = f((1 + Math.floor(random() * 2 ** 23) * 2 ** -23) * scale);
      return [a, b, c, exactFma(a, b, c)];
    });
    const c: Case = { rows, scalar: (b, p, q, s) => b.fma(p, q, s), vector: (b, p, q, s) => b.fma(p, q, s) };
    const wanted = rows.map((row) => row[3]);
    for (const scalar of [true, false]) assert.deepEqual(results(r, 'fma', rows, false, c, scalar), wanted);
  });

  test(`lanes: iota, firstLanes, masked access, splat, folds (${r.name})`, () => {
    const { lanes } = r.target;
    const kernel = buildKernel('lanes', r.target, { x: 'f32*', y: 'f32*', q: 'i32*', n: 'i32' }, (b, p) => {
      b.store(p.q, 0, b.iota());
      b.store(p.y, 0, seen(b, b.firstLanes(p.n)));
      b.store(p.y, lanes, b.loadVec(p.x, 1, p.n, 1));
      b.store(p.y, 2 * lanes, b.splat(7), p.n);
      const v = b.loadVec(p.x, 0);
      for (const [i, fold] of [b.hsum(v), b.hmax(v), b.hmin(v)].entries()) b.store(p.y, 3 * lanes + i, fold);
      b.store(p.y, 3 * lanes + 3, b.splat(b.load(p.x, 1)), b.int(1));
    });
    // A sum whose value depends on the order; lane i is folded with lane i + half.
    const values = Array.from({ length: lanes }, (_, i) => f((i % 3 === 0 ? 1e7 : -3e6) + i / 7));
    const fold = (v: readonly number[], op: (a: number, b: number) => number): number =>
      v.length === 1
        ? v[0]
        : fold(
            v.slice(v.length / 2).map((upper, i) => f(op(v[i], upper))),
            op,
          );
    for (const n of [-(2 ** 31), -1, 0, 1, 2, 3, 4, 7, 16, 17, 2 ** 31 - 1]) {
      const reach = Math.max(0, Math.min(lanes, n));
      const x = Float32Array.from([...values, 11, 12]);
      const y = new Float32Array(3 * lanes + 4).fill(-1);
      const q = new Int32Array(lanes).fill(-1);
      r.prepare(kernel, r.target)([x, y, q], [0, 1, 0, n]);
      const each = (make: (i: number) => number) => Array.from({ length: lanes }, (_, i) => make(i));
      assert.deepEqual(
        [...q],
        each((i) => i),
      );
      assert.deepEqual(
        [...y],
        [
          ...each((i) => (i < reach ? 1 : 0)),
          ...each((i) => (i < reach ? x[i + 2] : 0)),
          ...each((i) => (i < reach ? 7 : -1)),
          fold(values, (a, b) => a + b),
          fold(values, Math.max),
          fold(values, Math.min),
          x[1],
        ],
        `n = ${n}`,
      );
    }
  });

  test(`control: loops, conditions, variables, parameters (${r.name})`, () => {
    const kernel = buildKernel('control', r.target, { y: 'i32*', n: 'i32', s: 'f32', k: 'i32' }, (b, p) => {
      const total = b.variable(b.int(0));
      b.items((item) => {
        const before = total.get();
        b.loop(p.k, p.n, 3, (i) => {
          total.set(b.add(total.get(), i));
          b.if(
            b.lt(i, 5),
            () => b.loop(0, 2, 1, () => total.set(b.add(total.get(), 100))),
            () => total.set(b.add(total.get(), 1000)),
          );
        });
        // What was read before the loop must not have changed with the variable.
        b.store(p.y, item, b.sub(total.get(), before));
      });
      b.store(p.y, 5, b.toInt(b.mul(p.s, 10)));
      b.store(p.y, 6, b.part);
    });
    const y = new Int32Array(7);
    r.prepare(kernel, r.target)([y], [1, 3, 9, 10, 2.5, 1]);
    // i = 1, 4 (below 5: 200 each), 7 (1000).
    assert.deepEqual([...y], [0, 1412, 1412, 0, 0, 25, 9]);
    r.prepare(kernel, r.target)([y], [0, 1, 9, 1, 2.5, 1]);
    assert.equal(y[0], 0);
  });
}

test('the interpreter names what lies outside a buffer', () => {
  const target: TargetInfo = { name: 'interpreter', lanes: 4, vectorRegisters: 16, fusedMulAdd: false };
  const run = (define: (b: Builder, x: { buffer: number; element: 'f32' }) => void, size = 8) =>
    interpret(
      buildKernel('stray', target, { x: 'f32*' }, (b, { x }) => define(b, x)),
      target,
      [new Float32Array(size)],
      [0, 1, 0],
    );
  run((b, x) => b.store(x, 4, b.loadVec(x, 0)));
  run((b, x) => b.store(x, 6, b.loadVec(x, 6, b.int(2)), b.int(2)));
  run((b, x) => b.store(x, -9, b.loadVec(x, 100, b.int(0)), b.int(-1)));
  const stray = {
    code: 'bad-kernel',
    message: /kernel stray: . elements at index .* of buffer x, which has 8/,
  };
  assert.throws(() => run((b, x) => b.load(x, 8)), stray);
  assert.throws(() => run((b, x) => b.load(x, -1)), stray);
  assert.throws(() => run((b, x) => b.load(x, -1, 1)), stray);
  assert.throws(() => run((b, x) => b.load(x, 1, -2)), stray);
  assert.throws(() => run((b, x) => b.loadVec(x, 5)), stray);
  assert.throws(() => run((b, x) => b.loadVec(x, 6, b.int(3))), stray);
  assert.throws(() => run((b, x) => b.store(x, 5, b.zero())), stray);
  assert.throws(() => run((b, x) => b.store(x, 0, b.float(1), undefined, 8)), stray);
});

test('the interpreter refuses wrong arguments and division by 0', () => {
  const target: TargetInfo = { name: 'interpreter', lanes: 4, vectorRegisters: 16, fusedMulAdd: false };
  const kernel = buildKernel('quotient', target, { y: 'i32*', n: 'i32', k: 'i32' }, (b, p) => {
    b.store(p.y, 0, b.div(p.n, p.k));
    b.store(p.y, 1, b.rem(p.n, p.k));
  });
  const y = new Int32Array(2);
  interpret(kernel, target, [y], [0, 1, 0, -7, 2]);
  assert.deepEqual([...y], [-3, -1]);
  assert.throws(() => interpret(kernel, target, [y], [0, 1, 0, 5, 0]), /kernel quotient: div of 5 by 0/);
  assert.throws(() => interpret(kernel, target, [y], [0, 1, 0, -(2 ** 31), -1]), /div of -2147483648 by -1/);
  assert.throws(() => interpret(kernel, target, [], [0, 1, 0, 5, 1]), /takes 1 buffers, not 0/);
  assert.throws(() => interpret(kernel, target, [y], [0, 1, 0, 5]), /takes 5 scalars, not 4/);
  assert.throws(
    () => interpret(kernel, target, [new Float32Array(2)], [0, 1, 0, 5, 1]),
    /buffer y must be of i32/,
  );
  assert.throws(
    () => interpret(kernel, { ...target, lanes: 8 }, [y], [0, 1, 0, 5, 1]),
    /lanes of kernel quotient/,
  );
});

/** a*b+c of finite f32 in whole numbers of 2^-298, rounded to f32 by the rule, ties to even. */
function exactFma(a: number, b: number, c: number): number {
  const whole = (x: number) => {
    const bits = new Uint32Array(Float32Array.of(x).buffer)[0];
    const exponent = (bits >>> 23) & 255;
    const mantissa = (bits & 0x7fffff) + (exponent ? 0x800000 : 0);
    return (BigInt(mantissa) << BigInt(Math.max(exponent, 1) - 1)) * (bits >>> 31 ? -1n : 1n);
  };
  const sum = whole(a) * whole(b) + (whole(c) << 149n);
  const size = sum < 0n ? -sum : sum;
  const last = BigInt(Math.max(149, size.toString(2).length - 24));
  const [quotient, rest, half] = [size >> last, size & ((1n << last) - 1n), 1n << (last - 1n)];
  const up = rest > half || (rest === half && quotient & 1n) ? 1n : 0n;
  return f(Number(quotient + up) * 2 ** (Number(last) - 298) * (sum < 0n ? -1 : 1));
}
