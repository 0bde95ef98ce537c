// The kernel language as TypeScript sees it: functions that append to a kernel's body.
import { RetortError } from '../../errors.js';
import type {
  ElementType,
  Instruction,
  Kernel,
  Op,
  Statement,
  TargetInfo,
  ValueId,
  ValueType,
} from './ir.js';

/** A value of a kernel under construction. */
export interface Value<T extends ValueType = ValueType> {
  readonly id: ValueId;
  readonly type: T;
}
export type I32 = Value<'i32'>;
export type F32 = Value<'f32'>;
export type Vec = Value<'vec'>;
export type IVec = Value<'ivec'>;
export type Mask = Value<'mask'>;
/** An i32 argument: a value or a constant. */
export type Int = I32 | number;
/** An f32 argument: a value or a constant. */
export type Float = F32 | number;

/** A buffer parameter. */
export interface Buffer<E extends ElementType = ElementType> {
  readonly buffer: number;
  readonly element: E;
}

/** A variable: what changes in loops. */
export interface Variable<T extends ValueType> {
  get(): Value<T>;
  set(value: Value<T>): void;
}

type Numeric = 'f32' | 'vec' | 'i32' | 'ivec';
type Floating = 'f32' | 'vec';

/** Parameter names to kinds: `f32*` and `i32*` are buffers, `f32` and `i32` scalars. */
export type Parameters = Readonly<Record<string, 'f32*' | 'i32*' | 'f32' | 'i32'>>;
type BoundTo<Kind> = Kind extends 'f32*'
  ? Buffer<'f32'>
  : Kind extends 'i32*'
    ? Buffer<'i32'>
    : Kind extends 'f32'
      ? F32
      : I32;
export type Bound<P extends Parameters> = { readonly [K in keyof P]: BoundTo<P[K]> };

/**
 * Builds a kernel. `define` is called once, at build time: TypeScript loops unroll, builder loops run on the chip.
 *
 * @example
 * const scale = buildKernel('scale', target, { x: 'f32*', y: 'f32*', n: 'i32', a: 'f32' }, (b, { x, y, n, a }) => {
 *   b.items((row) => {
 *     const start = b.mul(row, n);
 *     b.vectors(n, (i, count) => {
 *       const at = b.add(start, i);
 *       b.store(y, at, b.mul(b.splat(a), b.loadVec(x, at, count)), count);
 *     });
 *   });
 * });
 */
export function buildKernel<P extends Parameters>(
  name: string,
  target: TargetInfo,
  parameters: P,
  define: (b: Builder, p: Bound<P>) => void,
  { keepsVectors = false }: { readonly keepsVectors?: boolean } = {},
): Kernel {
  const buffers: { name: string; element: ElementType }[] = [];
  const scalars: { name: string; type: 'i32' | 'f32' }[] = [
    { name: 'begin', type: 'i32' },
    { name: 'end', type: 'i32' },
    { name: 'part', type: 'i32' },
  ];
  const b = new Builder(target);
  const bound: Record<string, unknown> = {};
  for (const [key, kind] of Object.entries(parameters)) {
    if (kind === 'f32*' || kind === 'i32*') {
      const element = kind === 'f32*' ? 'f32' : 'i32';
      bound[key] = { buffer: buffers.length, element };
      buffers.push({ name: key, element });
    } else {
      bound[key] = b.param(scalars.length, kind);
      scalars.push({ name: key, type: kind });
    }
  }
  define(b, bound as Bound<P>);
  return { name, buffers, scalars, body: b.finish(), types: b.types, lanes: target.lanes, keepsVectors };
}

/** Appends instructions; every method returns the new value. Mixed operand types are refused at build time. */
export class Builder {
  readonly lanes: number;
  readonly vectorRegisters: number;
  readonly types: ValueType[] = [];
  /** First item of this call. */
  readonly begin: I32;
  /** One past the last item of this call. */
  readonly end: I32;
  /** Which part of the launch this call is, for scratch memory. */
  readonly part: I32;
  #block: Statement[] = [];

  constructor(target: TargetInfo) {
    this.lanes = target.lanes;
    this.vectorRegisters = target.vectorRegisters;
    this.begin = this.param(0, 'i32');
    this.end = this.param(1, 'i32');
    this.part = this.param(2, 'i32');
  }

  finish(): readonly Statement[] {
    return this.#block;
  }

  // --- values -------------------------------------------------------------------------------------------------

  param<T extends 'i32' | 'f32'>(index: number, type: T): Value<T> {
    return this.#emit('param', type, [], { imm: index });
  }
  int(value: number): I32 {
    return this.#emit('const', 'i32', [], { imm: value | 0 });
  }
  float(value: number): F32 {
    return this.#emit('const', 'f32', [], { imm: Math.fround(value) });
  }
  /** A vector with the same value in every lane. */
  splat(value: Float): Vec {
    return this.#emit('splat', 'vec', [this.#float(value)]);
  }
  splatInt(value: Int): IVec {
    return this.#emit('splat', 'ivec', [this.#int(value)]);
  }
  zero(): Vec {
    return this.splat(0);
  }
  iota(): IVec {
    return this.#emit('iota', 'ivec', []);
  }
  firstLanes(count: Int): Mask {
    return this.#emit('firstLanes', 'mask', [this.#int(count)]);
  }

  // --- memory -------------------------------------------------------------------------------------------------

  load(buffer: Buffer<'f32'>, index: Int, imm = 0): F32 {
    return this.#emit('load', 'f32', [this.#int(index)], { imm, buffer: buffer.buffer });
  }
  loadInt(buffer: Buffer<'i32'>, index: Int, imm = 0): I32 {
    return this.#emit('load', 'i32', [this.#int(index)], { imm, buffer: buffer.buffer });
  }
  /** `lanes` consecutive elements at index + imm; only the first `count` where count is given, the rest 0. */
  loadVec(buffer: Buffer<'f32'>, index: Int, count?: I32, imm = 0): Vec {
    const args = count ? [this.#int(index), count.id] : [this.#int(index)];
    return this.#emit('load', 'vec', args, { imm, buffer: buffer.buffer });
  }
  loadIVec(buffer: Buffer<'i32'>, index: Int, count?: I32, imm = 0): IVec {
    const args = count ? [this.#int(index), count.id] : [this.#int(index)];
    return this.#emit('load', 'ivec', args, { imm, buffer: buffer.buffer });
  }
  store(buffer: Buffer<'f32'>, index: Int, value: F32 | Vec, count?: I32, imm?: number): void;
  store(buffer: Buffer<'i32'>, index: Int, value: I32 | IVec, count?: I32, imm?: number): void;
  store(buffer: Buffer, index: Int, value: Value, count?: I32, imm = 0): void {
    this.#block.push({
      kind: 'store',
      buffer: buffer.buffer,
      index: this.#int(index),
      imm,
      value: value.id,
      ...(count ? { count: count.id } : {}),
    });
  }

  /**
   * Says that this element will be wanted soon, or later than much else; has no effect but on speed, and none at all on some
   * targets.
   */
  prefetch(buffer: Buffer, index: Int, imm = 0, { later = false } = {}): void {
    this.#block.push({ kind: 'prefetch', buffer: buffer.buffer, index: this.#int(index), imm, later });
  }

  // --- arithmetic ---------------------------------------------------------------------------------------------

  add<T extends Numeric>(a: Value<T> | number, c: Value<T> | number): Value<T> {
    return this.#binary('add', a, c);
  }
  sub<T extends Numeric>(a: Value<T> | number, c: Value<T> | number): Value<T> {
    return this.#binary('sub', a, c);
  }
  mul<T extends Numeric>(a: Value<T> | number, c: Value<T> | number): Value<T> {
    return this.#binary('mul', a, c);
  }
  /** Floats and i32 (truncating); not ivec. */
  div<T extends 'f32' | 'vec' | 'i32'>(a: Value<T> | number, c: Value<T> | number): Value<T> {
    return this.#binary('div', a, c);
  }
  rem(a: Int, c: Int): I32 {
    return this.#emit('rem', 'i32', [this.#int(a), this.#int(c)]);
  }
  min<T extends Numeric>(a: Value<T> | number, c: Value<T> | number): Value<T> {
    return this.#binary('min', a, c);
  }
  max<T extends Numeric>(a: Value<T> | number, c: Value<T> | number): Value<T> {
    return this.#binary('max', a, c);
  }
  neg<T extends Floating>(a: Value<T>): Value<T> {
    return this.#emit('neg', a.type, [a.id]);
  }
  abs<T extends Floating>(a: Value<T>): Value<T> {
    return this.#emit('abs', a.type, [a.id]);
  }
  sqrt<T extends Floating>(a: Value<T>): Value<T> {
    return this.#emit('sqrt', a.type, [a.id]);
  }
  floor<T extends Floating>(a: Value<T>): Value<T> {
    return this.#emit('floor', a.type, [a.id]);
  }
  nearest<T extends Floating>(a: Value<T>): Value<T> {
    return this.#emit('nearest', a.type, [a.id]);
  }
  /** a*c+d rounded once, everywhere the same. */
  fma<T extends Floating>(a: Value<T>, c: Value<T>, d: Value<T>): Value<T> {
    return this.#emit('fma', this.#same('fma', a, c, d), [a.id, c.id, d.id]);
  }
  /** a*c+d, fused where the target has it. */
  mulAdd<T extends Floating>(a: Value<T>, c: Value<T>, d: Value<T>): Value<T> {
    return this.#emit('mulAdd', this.#same('mulAdd', a, c, d), [a.id, c.id, d.id]);
  }

  // --- comparison and bits ------------------------------------------------------------------------------------

  lt(a: Int, c: Int): I32;
  lt(a: Float, c: Float): I32;
  lt(a: Vec | number, c: Vec | number): Mask;
  lt(a: IVec | number, c: IVec | number): Mask;
  lt(a: Value<Numeric> | number, c: Value<Numeric> | number): Value {
    return this.#compare('lt', a, c);
  }
  le(a: Int, c: Int): I32;
  le(a: Float, c: Float): I32;
  le(a: Vec | number, c: Vec | number): Mask;
  le(a: IVec | number, c: IVec | number): Mask;
  le(a: Value<Numeric> | number, c: Value<Numeric> | number): Value {
    return this.#compare('le', a, c);
  }
  eq(a: Int, c: Int): I32;
  eq(a: Float, c: Float): I32;
  eq(a: Vec | number, c: Vec | number): Mask;
  eq(a: IVec | number, c: IVec | number): Mask;
  eq(a: Value<Numeric> | number, c: Value<Numeric> | number): Value {
    return this.#compare('eq', a, c);
  }
  /** a where the condition holds (i32 for scalars, mask for vectors), else c. */
  select<T extends Numeric>(condition: I32 | Mask, a: Value<T> | number, c: Value<T> | number): Value<T> {
    const [x, y, type] = this.#pair('select', a, c);
    const wanted = type === 'vec' || type === 'ivec' ? 'mask' : 'i32';
    if (condition.type !== wanted) throw mixed('select', [condition.type, type]);
    return this.#emit('select', type, [condition.id, x, y]) as Value<T>;
  }
  and<T extends 'i32' | 'ivec' | 'mask'>(a: Value<T>, c: Value<T>): Value<T> {
    return this.#emit('and', this.#same('and', a, c), [a.id, c.id]);
  }
  or<T extends 'i32' | 'ivec' | 'mask'>(a: Value<T>, c: Value<T>): Value<T> {
    return this.#emit('or', this.#same('or', a, c), [a.id, c.id]);
  }
  /** Complement of a mask; of an i32 truth value 0/1. */
  not<T extends 'i32' | 'mask'>(a: Value<T>): Value<T> {
    return this.#emit('not', a.type, [a.id]);
  }
  shl<T extends 'i32' | 'ivec'>(a: Value<T>, distance: number): Value<T> {
    return this.#emit('shl', a.type, [a.id], { imm: distance });
  }
  shr<T extends 'i32' | 'ivec'>(a: Value<T>, distance: number): Value<T> {
    return this.#emit('shr', a.type, [a.id], { imm: distance });
  }
  toFloat<T extends 'i32' | 'ivec'>(a: Value<T>): Value<T extends 'i32' ? 'f32' : 'vec'> {
    return this.#emit('toFloat', a.type === 'i32' ? 'f32' : 'vec', [a.id]) as never;
  }
  toInt<T extends Floating>(a: Value<T>): Value<T extends 'f32' ? 'i32' : 'ivec'> {
    return this.#emit('toInt', a.type === 'f32' ? 'i32' : 'ivec', [a.id]) as never;
  }
  bitsToFloat<T extends 'i32' | 'ivec'>(a: Value<T>): Value<T extends 'i32' ? 'f32' : 'vec'> {
    return this.#emit('bitsToFloat', a.type === 'i32' ? 'f32' : 'vec', [a.id]) as never;
  }
  bitsToInt<T extends Floating>(a: Value<T>): Value<T extends 'f32' ? 'i32' : 'ivec'> {
    return this.#emit('bitsToInt', a.type === 'f32' ? 'i32' : 'ivec', [a.id]) as never;
  }
  hsum(a: Vec): F32 {
    return this.#emit('hsum', 'f32', [a.id]);
  }
  hmax(a: Vec): F32 {
    return this.#emit('hmax', 'f32', [a.id]);
  }
  hmin(a: Vec): F32 {
    return this.#emit('hmin', 'f32', [a.id]);
  }

  // --- control ------------------------------------------------------------------------------------------------

  variable<T extends ValueType>(init: Value<T>): Variable<T> {
    const id = this.#define(init.type);
    this.#block.push({ kind: 'var', id, type: init.type, init: init.id });
    return {
      get: () => this.#emit('get', init.type, [id]),
      set: (value) => {
        if (value.type !== init.type) throw mixed('set', [init.type, value.type]);
        this.#block.push({ kind: 'set', variable: id, value: value.id });
      },
    };
  }
  /** for (i = start; i < end; i += step). */
  loop(start: Int, end: Int, step: number, body: (i: I32) => void): void {
    const from = this.#int(start);
    const to = this.#int(end);
    const counter = this.#define('i32');
    const statements = this.#nested(() => body({ id: counter, type: 'i32' }));
    this.#block.push({ kind: 'loop', counter, start: from, end: to, step, body: statements });
  }
  if(condition: I32, whenTrue: () => void, whenFalse: () => void = () => {}): void {
    const yes = this.#nested(whenTrue);
    const no = this.#nested(whenFalse);
    this.#block.push({ kind: 'if', condition: condition.id, yes, no });
  }
  /** Calls body for each item of this part of the launch. */
  items(body: (item: I32) => void): void {
    this.loop(this.begin, this.end, 1, body);
  }
  /**
   * Covers n elements by vectors: whole ones in a loop (count undefined), then the tail with its count. The body
   * is built twice; in the tail, lanes at or past count hold 0 after loadVec and must not be stored.
   */
  vectors(n: Int, body: (index: I32, count: I32 | undefined) => void): void {
    const total = typeof n === 'number' ? this.int(n) : n;
    if (typeof n === 'number' && n % this.lanes === 0) {
      this.loop(0, total, this.lanes, (i) => body(i, undefined));
      return;
    }
    const rest = this.rem(total, this.lanes);
    const whole = this.sub(total, rest);
    this.loop(0, whole, this.lanes, (i) => body(i, undefined));
    this.if(this.lt(0, rest), () => body(whole, rest));
  }

  // --- inside -------------------------------------------------------------------------------------------------

  #define(type: ValueType): ValueId {
    this.types.push(type);
    return this.types.length - 1;
  }
  #emit<T extends ValueType>(
    op: Op,
    type: T,
    args: readonly ValueId[],
    extra: Pick<Instruction, 'imm' | 'buffer'> = {},
  ): Value<T> {
    const id = this.#define(type);
    this.#block.push({ kind: 'value', id, op, type, args, ...extra });
    return { id, type };
  }
  #nested(build: () => void): Statement[] {
    const outer = this.#block;
    this.#block = [];
    build();
    const inner = this.#block;
    this.#block = outer;
    return inner;
  }
  #int(value: Int): ValueId {
    return typeof value === 'number' ? this.int(value).id : value.id;
  }
  #float(value: Float): ValueId {
    return typeof value === 'number' ? this.float(value).id : value.id;
  }
  #literal(value: number, type: ValueType): ValueId {
    switch (type) {
      case 'i32':
        return this.int(value).id;
      case 'f32':
        return this.float(value).id;
      case 'vec':
        return this.splat(value).id;
      case 'ivec':
        return this.splatInt(value).id;
      default:
        throw mixed('constant', [type]);
    }
  }
  #pair(op: string, a: Value | number, c: Value | number): [ValueId, ValueId, Numeric] {
    if (typeof a === 'number' && typeof c === 'number') throw mixed(op, ['number', 'number']);
    const type = (typeof a === 'number' ? (c as Value).type : a.type) as Numeric;
    const x = typeof a === 'number' ? this.#literal(a, type) : a.id;
    const y = typeof c === 'number' ? this.#literal(c, type) : c.id;
    if (typeof a !== 'number' && typeof c !== 'number' && a.type !== c.type)
      throw mixed(op, [a.type, c.type]);
    return [x, y, type];
  }
  #binary<T extends Numeric>(op: Op, a: Value<T> | number, c: Value<T> | number): Value<T> {
    const [x, y, type] = this.#pair(op, a, c);
    return this.#emit(op, type as T, [x, y]);
  }
  #compare(op: Op, a: Value<Numeric> | number, c: Value<Numeric> | number): Value {
    const [x, y, type] = this.#pair(op, a, c);
    return this.#emit(op, type === 'vec' || type === 'ivec' ? 'mask' : 'i32', [x, y]);
  }
  #same<T extends ValueType>(op: string, ...values: Value<T>[]): T {
    if (values.some((v) => v.type !== values[0].type))
      throw mixed(
        op,
        values.map((v) => v.type),
      );
    return values[0].type;
  }
}

function mixed(op: string, types: readonly string[]): RetortError {
  return new RetortError('bad-kernel', `kernel operation ${op} cannot take (${types.join(', ')})`);
}
