// Random kernels with their arguments, to hold targets and the interpreter to each other.
//
// A kernel may use every operation, nested loops, conditions, variables and masked tails, over floats of every kind.
// All indices stay inside the buffers, some up to their very ends, and no bits of a NaN are read as an integer.

import type { Value } from '../../src/compute/kernel/builder.js';
import {
  type Buffer,
  type Builder,
  buildKernel,
  type I32,
  type Variable,
} from '../../src/compute/kernel/builder.js';
import type { Kernel, TargetInfo, ValueType } from '../../src/compute/kernel/ir.js';

export interface RandomCase {
  readonly kernel: Kernel;
  readonly buffers: readonly (Float32Array | Int32Array)[];
  readonly scalars: readonly number[];
}

/** A generator of numbers from 0 to 1 (mulberry32), so that a failure can be repeated from its seed. */
export function randomFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const SIZE = 101;
const TYPES = ['i32', 'f32', 'vec', 'ivec', 'mask'] as const;
const FLOATS = [
  0,
  -0,
  1,
  -1,
  0.5,
  -2.75,
  3e38,
  -1e-38,
  1e-41,
  2 ** -149,
  16777215.5,
  2.5,
  Number.NaN,
  Infinity,
  -Infinity,
];
const INTS = [0, 1, -1, 2, 7, 100, -50, 0x7fffffff, -0x80000000, 0x3f800000];

/** The kernel of this seed, built for the target's lanes. */
export function randomKernel(seed: number, target: TargetInfo): RandomCase {
  const random = randomFrom(seed);
  const parameters = {
    x: 'f32*',
    p: 'i32*',
    y: 'f32*',
    q: 'i32*',
    n: 'i32',
    a: 'f32',
    c: 'f32',
    j: 'i32',
  } as const;
  const kernel = buildKernel(`random-${seed}`, target, parameters, (b, bound) => {
    const g: Generator = {
      b,
      random,
      floats: [bound.x, bound.y],
      ints: [bound.p, bound.q],
      values: { i32: [], f32: [], vec: [], ivec: [], mask: [] },
      variables: [],
      depth: 0,
    };
    g.values.i32.push(b.begin, b.end, b.part, bound.n, bound.j);
    g.values.f32.push(bound.a, bound.c);
    for (const type of TYPES) variable(g, type);
    b.items((item) => {
      block(g, 20, item);
      b.vectors(b.and(bound.n, b.int(31)), (i, count) => {
        const doubled = b.add(b.loadVec(bound.x, i, count), b.loadVec(bound.y, i, count));
        b.store(bound.y, i, doubled, count);
      });
    });
    for (const v of g.variables) storeAny(g, v.get());
  });
  const pick = <T>(from: readonly T[]) => from[Math.floor(random() * from.length)];
  const float = () =>
    random() < 0.3 ? pick(FLOATS) : (random() - 0.5) * 2 ** (random() < 0.8 ? 4 : 250 * random() - 125);
  const int = () => (random() < 0.3 ? pick(INTS) : Math.floor((random() - 0.5) * 2 ** 8));
  const floats = () => Float32Array.from({ length: SIZE }, float);
  const ints = () => Int32Array.from({ length: SIZE }, int);
  const begin = Math.floor(random() * 3);
  return {
    kernel,
    buffers: [floats(), ints(), floats(), ints()],
    scalars: [
      begin,
      begin + Math.floor(random() * 3),
      1,
      int(),
      Math.fround(float()),
      Math.fround(float()),
      int(),
    ],
  };
}

interface Generator {
  readonly b: Builder;
  readonly random: () => number;
  readonly floats: readonly Buffer<'f32'>[];
  readonly ints: readonly Buffer<'i32'>[];
  /** What can be named at this point. */
  readonly values: { readonly [T in ValueType]: Value<T>[] };
  readonly variables: Variable<ValueType>[];
  depth: number;
}

function pick<T>(g: Generator, from: readonly T[]): T {
  return from[Math.floor(g.random() * from.length)];
}

/** An earlier value of the type (rather a recent one), or a constant. */
function some<T extends ValueType>(g: Generator, type: T): Value<T> {
  const { b } = g;
  const known = g.values[type];
  if (known.length > 0 && g.random() < 0.85) {
    const recent = g.random() < 0.6 ? known.slice(-4) : known;
    return pick(g, recent) as unknown as Value<T>;
  }
  const float = pick(g, FLOATS);
  const int = pick(g, INTS);
  const fresh: { [K in ValueType]: () => Value<K> } = {
    i32: () => b.int(int),
    f32: () => b.float(float),
    vec: () => b.splat(float),
    ivec: () => (g.random() < 0.5 ? b.iota() : b.splatInt(int)),
    mask: () => b.firstLanes(some(g, 'i32')),
  };
  return fresh[type]();
}

function keep(g: Generator, value: Value): void {
  (g.values[value.type] as Value[]).push(value);
}

function variable(g: Generator, type: ValueType): void {
  g.variables.push(g.b.variable<ValueType>(some(g, type)));
}

/** Statements in a scope of their own, where the counter is known, if there is one. */
function block(g: Generator, length: number, counter?: I32): void {
  const outer = TYPES.map((t) => g.values[t].length);
  const variables = g.variables.length;
  if (counter) g.values.i32.push(counter);
  for (let i = 0; i < length; i++) statement(g);
  for (const [i, t] of TYPES.entries()) g.values[t].length = outer[i];
  g.variables.length = variables;
}

function statement(g: Generator): void {
  const { b } = g;
  const r = g.random();
  if (r < 0.08 && g.depth < 3) {
    g.depth++;
    const inner = Math.ceil(g.random() * 8);
    if (g.random() < 0.5) {
      const start = g.random() < 0.5 ? 0 : b.and(some(g, 'i32'), b.int(3));
      const end = g.random() < 0.5 ? Math.floor(g.random() * 6) : b.and(some(g, 'i32'), b.int(7));
      b.loop(start, end, Math.ceil(g.random() * 3), (i) => block(g, inner, i));
    } else {
      const no = g.random() < 0.5 ? () => block(g, inner) : undefined;
      b.if(some(g, 'i32'), () => block(g, inner), no);
    }
    g.depth--;
  } else if (r < 0.12) variable(g, pick(g, TYPES));
  else if (r < 0.22) {
    const v = pick(g, g.variables);
    v.set(some(g, v.get().type));
  } else if (r < 0.3) keep(g, pick(g, g.variables).get());
  else if (r < 0.4) storeAny(g, some(g, pick(g, TYPES)));
  else if (r < 0.55) keep(g, load(g));
  else {
    const value = compute(g);
    keep(g, value);
    // What nobody stores, nobody sees.
    if (g.random() < 0.5) storeAny(g, value);
  }
}

/** An index, an offset and a lane count which stay inside a buffer; scalars take one element. */
function place(g: Generator, scalar: boolean): [index: I32, imm: number, count?: I32] {
  const { b } = g;
  const size = scalar ? 1 : b.lanes;
  const any = some(g, 'i32');
  const kind = g.random();
  if (kind < 0.5 || scalar) {
    const back = g.random() < 0.3 ? 16 : 0;
    const index = b.add(b.and(any, b.int(31)), back);
    const imm = Math.floor(g.random() * (SIZE - 31 - size - back + 1)) - back;
    const count = g.random() < 0.3 && !scalar ? some(g, 'i32') : undefined;
    return [index, imm, count];
  }
  // Up to the end of the buffer and not past it.
  const room = Math.floor(g.random() * (size + 1));
  if (kind < 0.9) return [b.int(SIZE - room - 3), 3, b.min(any, room)];
  // No lane at all, wherever it points.
  return [some(g, 'i32'), 0, b.min(any, 0)];
}

function load(g: Generator): Value {
  const { b } = g;
  const scalar = g.random() < 0.4;
  const [index, imm, count] = place(g, scalar);
  if (g.random() < 0.6) {
    const buffer = pick(g, g.floats);
    return scalar ? b.load(buffer, index, imm) : b.loadVec(buffer, index, count, imm);
  }
  const buffer = pick(g, g.ints);
  return scalar ? b.loadInt(buffer, index, imm) : b.loadIVec(buffer, index, count, imm);
}

function storeAny(g: Generator, value: Value): void {
  const { b } = g;
  const stored =
    value.type === 'mask' ? b.select(value as Value<'mask'>, some(g, 'vec'), some(g, 'vec')) : value;
  const [index, imm, count] = place(g, stored.type === 'i32' || stored.type === 'f32');
  if (stored.type === 'f32' || stored.type === 'vec')
    b.store(g.floats[1], index, stored as Value<'f32' | 'vec'> as Value<'vec'>, count, imm);
  else b.store(g.ints[1], index, stored as Value<'i32' | 'ivec'> as Value<'ivec'>, count, imm);
}

function compute(g: Generator): Value {
  const { b } = g;
  const float = pick(g, ['f32', 'vec'] as const);
  const int = pick(g, ['i32', 'ivec'] as const);
  const numeric = pick(g, ['i32', 'f32', 'vec', 'ivec'] as const);
  const x = some(g, float);
  const y = some(g, float);
  const z = some(g, float);
  const i = some(g, int);
  const k = some(g, int);
  const s = some(g, numeric);
  const t = some(g, numeric);
  const isScalar = (v: Value) => v.type === 'i32' || v.type === 'f32';
  const choices: (() => Value)[] = [
    () => b.add(s, t),
    () => b.sub(s, t),
    () => b.mul(s, t),
    () => b.min(s, t),
    () => b.max(s, t),
    () => b.div(x, y),
    () => b.div(some(g, 'i32'), pick(g, [1, -3, 7, 1000])),
    () => b.rem(some(g, 'i32'), b.or(b.and(some(g, 'i32'), b.int(63)), b.int(1))),
    () => b.neg(x),
    () => b.abs(x),
    () => b.sqrt(x),
    () => b.floor(x),
    () => b.nearest(x),
    () => b.fma(x, y, z),
    () => b.fma(x, y, z),
    () => b.mulAdd(x, y, z),
    () => b.mulAdd(x, y, b.mulAdd(y, z, x)),
    () => compare(b, pick(g, ['lt', 'le', 'eq'] as const), s, t),
    () => b.select(some(g, isScalar(s) ? 'i32' : 'mask'), s, t),
    () => b.and(i, k),
    () => b.or(i, k),
    () => b.and(some(g, 'mask'), some(g, 'mask')),
    () => b.or(some(g, 'mask'), some(g, 'mask')),
    () => b.not(some(g, pick(g, ['i32', 'mask'] as const))),
    () => b.shl(i, Math.floor(g.random() * 32)),
    () => b.shr(i, Math.floor(g.random() * 32)),
    () => b.toFloat(i),
    () => b.toInt(x),
    () => b.bitsToFloat(i),
    () => {
      const same = compare(b, 'eq', x, x) as Value<'i32'>;
      return b.bitsToInt(b.select(same, x, 0.25));
    },
    () => b.splat(some(g, 'f32')),
    () => b.splatInt(some(g, 'i32')),
    () => b.firstLanes(some(g, 'i32')),
    () => b.iota(),
    () => b.hsum(some(g, 'vec')),
    () => b.hmax(some(g, 'vec')),
    () => b.hmin(some(g, 'vec')),
    () => b.splat(b.load(pick(g, g.floats), b.and(some(g, 'i32'), b.int(63)), 5)),
  ];
  return pick(g, choices)();
}

/** The builder's comparisons are typed by overloads, which a random type cannot choose among. */
function compare(b: Builder, op: 'lt' | 'le' | 'eq', s: Value, t: Value): Value {
  return b[op](s as Value<'f32'>, t as Value<'f32'>);
}
