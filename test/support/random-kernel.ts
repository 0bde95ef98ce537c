// Random kernels with their arguments, to hold targets and the interpreter to each other.
//
// A kernel may use every operation, nested loops, conditions, variables and masked tails, over floats of every kind.
// Some hold more values at once than a processor has registers. All indices stay inside the buffers, some up to their
// very ends, and no bits of a NaN are read as an integer. Many are sums of terms that change in different loops, that
// may be negative, read from variables, or as far from 0 as an i32 goes.

import assert from 'node:assert/strict';
import type { Value } from '../../src/compute/kernel/builder.js';
import {
  type Buffer,
  type Builder,
  buildKernel,
  type I32,
  type Variable,
} from '../../src/compute/kernel/builder.js';
import { type InterpretedKernel, interpret } from '../../src/compute/kernel/interpreter.js';
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
/** What the scalar `far` may be, which terms of indices bring in and constants take out again. */
const FAR = [0, 1000, 2 ** 30, 2 ** 31 - 1, -(2 ** 31)];

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
    far: 'i32',
  } as const;
  const far = FAR[Math.floor(random() * FAR.length)];
  const kernel = buildKernel(`random-${seed}`, target, parameters, (b, bound) => {
    const g: Generator = {
      b,
      random,
      floats: [bound.x, bound.y],
      ints: [bound.p, bound.q],
      values: { i32: [], f32: [], vec: [], ivec: [], mask: [] },
      variables: [],
      terms: [{ get: () => bound.far, low: far, high: far }],
      places: [],
      depth: 0,
    };
    g.values.i32.push(b.begin, b.end, b.part, bound.n, bound.j);
    g.values.f32.push(bound.a, bound.c);
    for (const type of TYPES) variable(g, type);
    const outside = crowd(g);
    b.items((item) => {
      inScope(g, () => {
        know(g, { get: () => item, low: 0, high: 3 });
        const inside = crowd(g);
        block(g, [2, 8, 20, 20][Math.floor(random() * 4)]);
        for (const v of inside) storeAny(g, v);
      });
      b.vectors(b.and(bound.n, b.int(31)), (i, count) => {
        const doubled = b.add(b.loadVec(bound.x, i, count), b.loadVec(bound.y, i, count));
        b.store(bound.y, i, doubled, count);
      });
    });
    for (const v of g.variables) storeAny(g, v.get());
    for (const v of outside) storeAny(g, v);
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
      far,
    ],
  };
}

/** An i32 whose bounds are known, so that it may be a term of an index. */
interface Term {
  readonly get: () => I32;
  readonly low: number;
  readonly high: number;
}

interface Generator {
  readonly b: Builder;
  readonly random: () => number;
  readonly floats: readonly Buffer<'f32'>[];
  readonly ints: readonly Buffer<'i32'>[];
  /** What can be named at this point. */
  readonly values: { readonly [T in ValueType]: Value<T>[] };
  readonly variables: (Variable<ValueType> & { readonly type: ValueType })[];
  readonly terms: Term[];
  /** Variables that are terms, too. */
  readonly places: { readonly variable: Variable<'i32'>; readonly low: number; readonly high: number }[];
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
  g.variables.push({ type, ...g.b.variable<ValueType>(some(g, type)) });
}

/** What is made inside cannot be named afterwards. */
function inScope(g: Generator, body: () => void): void {
  const lists: unknown[][] = [...TYPES.map((t) => g.values[t]), g.variables, g.terms, g.places];
  const lengths = lists.map((list) => list.length);
  body();
  for (const [i, list] of lists.entries()) list.length = lengths[i];
}

/** A loop's counter. */
function know(g: Generator, counter: Term): void {
  g.values.i32.push(counter.get());
  g.terms.push(counter);
}

/** Statements in a scope of their own, where the counter is known, if there is one. */
function block(g: Generator, length: number, counter?: Term): void {
  inScope(g, () => {
    if (counter) know(g, counter);
    for (let i = 0; i < length; i++) statement(g);
  });
}

/** In some kernels, more values of one type than there are registers, all of which are used once more at the end. */
function crowd(g: Generator): Value[] {
  if (g.random() < 0.8) return [];
  const type = pick(g, ['i32', 'f32', 'vec', 'ivec'] as const);
  const count = Math.floor(g.random() * (type === 'i32' ? 16 : 40));
  const values = Array.from({ length: count }, () => load(g, type));
  for (const v of values) keep(g, v);
  return values;
}

/** An i32 from 0 to a power of two less one, moved by a constant; or less itself. */
function newTerm(g: Generator): Term {
  const { b } = g;
  const high = pick(g, [1, 3, 7, 31]);
  const move = pick(g, [0, 0, 5, -3, -40]);
  const masked = b.and(some(g, 'i32'), b.int(high));
  const value =
    g.random() < 0.3
      ? { get: b.sub(move, masked), low: move - high, high: move }
      : { get: move === 0 ? masked : b.add(masked, move), low: move, high: move + high };
  return { ...value, get: () => value.get };
}

function term(g: Generator): Term {
  if (g.random() < 0.7) return pick(g, g.random() < 0.5 ? g.terms.slice(-4) : g.terms);
  const made = newTerm(g);
  g.terms.push(made);
  return made;
}

/** Makes a variable that is a term, or sets one. */
function changePlace(g: Generator): void {
  const { b } = g;
  if (g.places.length > 0 && g.random() < 0.7) {
    const { variable, low, high } = pick(g, g.places);
    variable.set(b.add(b.and(some(g, 'i32'), b.int(high - low)), low));
    return;
  }
  const { get, low, high } = newTerm(g);
  const place = { variable: b.variable(get()), low, high };
  g.places.push(place);
  g.terms.push({ get: place.variable.get, low, high });
}

/** A term read from a variable now, which may change before the term is used. */
function readPlace(g: Generator): void {
  if (g.places.length === 0) return;
  const { variable, low, high } = pick(g, g.places);
  const value = variable.get();
  g.terms.push({ get: () => value, low, high });
}

/** A value that only becomes a variable's next content, with what its last content is still asked for around it. */
function replace(g: Generator): void {
  const often = () => g.random() < 0.3;
  const read = () => {
    for (const v of g.variables) if (often()) keep(g, v.get());
  };
  read();
  const value = compute(g);
  const v = pick(
    g,
    g.variables.filter(({ type }) => type === value.type),
  );
  if (often()) keep(g, v.get());
  if (often()) v.set(some(g, v.type));
  if (often()) g.b.if(condition(g), () => v.set(some(g, v.type)));
  if (often()) storeAny(g, some(g, v.type));
  v.set(value);
  if (often()) read();
}

function statement(g: Generator): void {
  const { b } = g;
  const r = g.random();
  if (r < 0.08 && g.depth < 3) {
    g.depth++;
    const inner = Math.ceil(g.random() * 8);
    if (g.random() < 0.6) {
      const low = pick(g, [0, 0, 0, -3]);
      const start = g.random() < 0.5 ? low : b.add(b.and(some(g, 'i32'), b.int(3)), low);
      const end = g.random() < 0.5 ? Math.floor(g.random() * 6) : b.and(some(g, 'i32'), b.int(7));
      const counter = { low, high: 6 };
      b.loop(start, end, Math.ceil(g.random() * 3), (i) => block(g, inner, { get: () => i, ...counter }));
    } else {
      const no = g.random() < 0.5 ? () => block(g, inner) : undefined;
      b.if(condition(g), () => block(g, inner), no);
    }
    g.depth--;
  } else if (r < 0.11) variable(g, pick(g, TYPES));
  else if (r < 0.14) changePlace(g);
  else if (r < 0.16) readPlace(g);
  else if (r < 0.2) replace(g);
  else if (r < 0.24) {
    const v = pick(g, g.variables);
    v.set(some(g, v.type));
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

/** Known before, or a comparison that only the statement to come asks for. */
function condition(g: Generator): I32 {
  if (g.random() < 0.4) return some(g, 'i32');
  const x = some(g, pick(g, ['i32', 'f32'] as const));
  const y = g.random() < 0.2 ? x : some(g, x.type);
  return compare(g.b, pick(g, ['lt', 'le', 'eq'] as const), x, y) as I32;
}

/** A sum of terms and constants, where neither a part of it nor the whole wraps, and what is added to the sum. */
function sum(g: Generator, size: number): [index: I32, imm: number] {
  const { b } = g;
  let [low, high] = [0, 0];
  const terms: { readonly value: I32; readonly low: number; readonly high: number }[] = [];
  const count = Math.ceil(g.random() * 4);
  for (let i = 0; i < count; i++) {
    const t = term(g);
    // What is far from 0 comes near it at once, or the sum of two would wrap.
    const near = Math.abs(t.low) > 500 || g.random() < 0.2 ? pick(g, [0, 3, -1]) - t.low : 0;
    if (high - low + t.high - t.low > SIZE - size || Math.abs(near) > 2 ** 31 - 1) continue;
    const value = near === 0 ? t.get() : b.add(t.get(), near);
    terms.push({ value, low: t.low + near, high: t.high + near });
    low += t.low + near;
    high += t.high + near;
  }
  const at = Math.floor(g.random() * (SIZE - size - (high - low) + 1));
  const imm = pick(g, [0, 0, at, -20, 2 ** 28 - 500, 500 - 2 ** 28]);
  // The index itself is not below 0 either.
  const added = Math.min(imm, at);
  terms.push({ value: b.int(at - added - low), low: at - added - low, high: at - added - low });
  while (terms.length > 1) {
    const i = Math.floor(g.random() * (terms.length - 1));
    const [s, t] = terms.splice(i, 2);
    const whole = g.random() < 0.5 ? b.add(s.value, t.value) : b.add(t.value, s.value);
    const both = { value: whole, low: s.low + t.low, high: s.high + t.high };
    terms.splice(i, 0, both);
    if (g.random() < 0.3) g.terms.push({ ...both, get: () => whole });
  }
  return [terms[0].value, added];
}

/** An index, an offset and a lane count which stay inside a buffer; scalars take one element. */
function place(g: Generator, scalar: boolean): [index: I32, imm: number, count?: I32] {
  const { b } = g;
  const size = scalar ? 1 : b.lanes;
  if (g.random() < 0.5) {
    const [index, imm] = sum(g, size);
    return [index, imm, g.random() < 0.3 && !scalar ? some(g, 'i32') : undefined];
  }
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

function load(g: Generator, type: ValueType = pick(g, ['i32', 'f32', 'f32', 'vec', 'vec', 'ivec'])): Value {
  const { b } = g;
  const scalar = type === 'i32' || type === 'f32';
  const [index, imm, count] = place(g, scalar);
  if (type === 'f32' || type === 'vec') {
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
  if (g.random() < 0.2) b.prefetch(g.floats[0], index, imm, { later: g.random() < 0.5 });
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
    () => b.div(some(g, 'i32'), pick(g, [1, 2, 64, 2 ** 30, -3, 7, 1000, -(2 ** 31)])),
    () => b.rem(some(g, 'i32'), pick(g, [1, 2, 64, 2 ** 30, -3, 7, -(2 ** 31)])),
    () => b.rem(some(g, 'i32'), b.or(b.and(some(g, 'i32'), b.int(63)), b.int(1))),
    // Not below 0 each, but their sum may be.
    () => b.div(b.add(b.shr(some(g, 'i32'), 1), b.shr(some(g, 'i32'), 1)), 4),
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
    () => b.select(isScalar(s) ? condition(g) : some(g, 'mask'), s, t),
    () => b.select(condition(g), some(g, 'f32'), some(g, 'f32')),
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

type Arrays = readonly (Float32Array | Int32Array)[];

/** Where two lists of arrays first differ; one NaN is like another, zeros of different sign are not alike. */
function difference(wanted: Arrays, got: Arrays): string | undefined {
  for (const [i, w] of wanted.entries())
    for (const [j, v] of w.entries())
      if (!Object.is(v, got[i][j])) return `buffer ${i} at ${j}: ${v} and ${got[i][j]}`;
  return undefined;
}

/** 1,000 random kernels for the target: what `runner` makes of each must do what the interpreter does, bit for bit. */
export function checkRandomKernels(target: TargetInfo, runner: (kernel: Kernel) => InterpretedKernel): void {
  let changed = 0;
  for (let seed = 1; seed <= 1000; seed++) {
    const { kernel, buffers, scalars } = randomKernel(seed, target);
    const wanted = buffers.map((b) => b.slice());
    const got = buffers.map((b) => b.slice());
    interpret(kernel, target, wanted, scalars);
    runner(kernel)(got, scalars);
    assert.equal(difference(wanted, got), undefined, `seed ${seed}`);
    if (difference(wanted, buffers)) changed++;
  }
  // Kernels that write nothing would agree too.
  assert.ok(changed > 900, `only ${changed} of the kernels wrote anything`);
}
