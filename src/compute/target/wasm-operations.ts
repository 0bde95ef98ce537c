// WebAssembly code of each arithmetic operation: operands onto the stack, then the instruction.
import type { Instruction, Op, ValueId } from '../kernel/ir.js';
import {
  type Emitter,
  emitSimd,
  getLocal,
  inLocal,
  intBytes,
  newLocal,
  push,
  setLocal,
} from './wasm-emitter.js';
import { i32TruncSatF32S, plain, simd } from './wasm-encoder.js';

type Table = Partial<Record<Op, number>>;

/** One instruction after the operands, by the type of the operands. */
const direct: Readonly<Record<'i32' | 'f32', Table>> = {
  i32: {
    add: plain.i32Add,
    sub: plain.i32Sub,
    mul: plain.i32Mul,
    div: plain.i32DivS,
    rem: plain.i32RemS,
    lt: plain.i32LtS,
    le: plain.i32LeS,
    eq: plain.i32Eq,
    and: plain.i32And,
    or: plain.i32Or,
    not: plain.i32Eqz,
    toFloat: plain.f32ConvertI32S,
    bitsToFloat: plain.f32ReinterpretI32,
  },
  f32: {
    add: plain.f32Add,
    sub: plain.f32Sub,
    mul: plain.f32Mul,
    div: plain.f32Div,
    neg: plain.f32Neg,
    abs: plain.f32Abs,
    sqrt: plain.f32Sqrt,
    floor: plain.f32Floor,
    nearest: plain.f32Nearest,
    lt: plain.f32Lt,
    le: plain.f32Le,
    eq: plain.f32Eq,
    bitsToInt: plain.i32ReinterpretF32,
  },
};

const directSimd: Readonly<Record<'vec' | 'ivec' | 'mask', Table>> = {
  vec: {
    add: simd.f32x4Add,
    sub: simd.f32x4Sub,
    mul: simd.f32x4Mul,
    div: simd.f32x4Div,
    neg: simd.f32x4Neg,
    abs: simd.f32x4Abs,
    sqrt: simd.f32x4Sqrt,
    floor: simd.f32x4Floor,
    nearest: simd.f32x4Nearest,
    lt: simd.f32x4Lt,
    le: simd.f32x4Le,
    eq: simd.f32x4Eq,
    toInt: simd.i32x4TruncSatF32x4S,
  },
  ivec: {
    add: simd.i32x4Add,
    sub: simd.i32x4Sub,
    mul: simd.i32x4Mul,
    min: simd.i32x4MinS,
    max: simd.i32x4MaxS,
    lt: simd.i32x4LtS,
    le: simd.i32x4LeS,
    eq: simd.i32x4Eq,
    or: simd.or,
    toFloat: simd.f32x4ConvertI32x4S,
  },
  mask: { and: simd.and, or: simd.or, not: simd.not },
};

/** Byte numbers that bring lanes 2 and 3 down to 0 and 1, and lane 1 down to 0. */
const upperHalf = [8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15];
const lane1 = [4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7];
const joinLows = [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23];

/** Leaves the value of an operation on the stack. */
export function emitOperation(e: Emitter, s: Instruction): void {
  const { code } = e;
  const [a, b, c] = s.args;
  const from = s.args.length > 0 ? e.kernel.types[a] : s.type;
  const opcode =
    s.op === 'splat' || s.op === 'firstLanes'
      ? undefined
      : from === 'i32' || from === 'f32'
        ? direct[from][s.op]
        : directSimd[from][s.op];
  if (opcode !== undefined) {
    for (const id of s.args) push(e, id);
    if (from === 'i32' || from === 'f32') code.push(opcode);
    else emitSimd(e, opcode);
    return;
  }
  switch (s.op) {
    case 'splat':
      push(e, a);
      emitSimd(e, s.type === 'vec' ? simd.f32x4Splat : simd.i32x4Splat);
      return;
    case 'iota':
      emitIota(e);
      return;
    case 'firstLanes':
      emitIota(e);
      push(e, a);
      emitSimd(e, simd.i32x4Splat);
      emitSimd(e, simd.i32x4LtS);
      return;
    case 'min':
    case 'max':
      emitMinMax(e, s, a, b);
      return;
    case 'select':
      push(e, b);
      push(e, c);
      push(e, a);
      if (from === 'mask') emitSimd(e, simd.bitselect);
      else code.push(plain.select);
      return;
    case 'and':
      emitAnd(e, a, b);
      return;
    case 'shl':
    case 'shr':
      push(e, a);
      if (s.type === 'ivec') emitShift(e, s.op, s.imm!);
      else code.push(plain.i32Const, s.imm!, s.op === 'shl' ? plain.i32Shl : plain.i32ShrU);
      return;
    case 'toInt':
      push(e, a);
      code.push(...i32TruncSatF32S);
      return;
    case 'bitsToFloat':
    case 'bitsToInt':
      push(e, a);
      return;
    case 'hsum':
    case 'hmax':
    case 'hmin':
      emitFold(e, s.op, a);
      return;
    case 'mulAdd':
      if (e.fused) {
        emitFused(e, s);
        return;
      }
      push(e, a);
      push(e, b);
      if (s.type === 'vec') emitSimd(e, simd.f32x4Mul);
      else code.push(plain.f32Mul);
      push(e, c);
      if (s.type === 'vec') emitSimd(e, simd.f32x4Add);
      else code.push(plain.f32Add);
      return;
    case 'fma':
      if (e.fused) emitFused(e, s);
      else emitExactFma(e, s);
      return;
    default:
      throw new Error(`operation ${s.op} has no code for ${from}`);
  }
}

function emitShift(e: Emitter, op: 'shl' | 'shr', distance: number): void {
  e.code.push(plain.i32Const, distance);
  emitSimd(e, op === 'shl' ? simd.i32x4Shl : simd.i32x4ShrU);
}

/** The bits that two vectors of integers have in common. */
function emitAnd(e: Emitter, a: ValueId, b: ValueId): void {
  push(e, a);
  const splat = e.pending.get(b)?.instruction;
  const mask = splat?.op === 'splat' ? e.usage.constants.get(splat.args[0]) : undefined;
  const cleared = mask === undefined ? -1 : Math.log2(-mask);
  if (cleared > 0 && Number.isInteger(cleared)) {
    // V8 keeps a mask in a register, of which a matrix product has none left: two shifts clear the lowest bits as well.
    emitShift(e, 'shr', cleared);
    emitShift(e, 'shl', cleared);
    return;
  }
  push(e, b);
  emitSimd(e, simd.and);
}

function emitIota(e: Emitter): void {
  emitSimd(e, simd.const, ...[0, 1, 2, 3].flatMap(intBytes));
}

/** pmin(x,y) is y < x ? y : x, so the operands change places. */
function emitMinMax(e: Emitter, s: Instruction, a: ValueId, b: ValueId): void {
  if (s.type === 'vec') {
    push(e, b);
    push(e, a);
    emitSimd(e, s.op === 'min' ? simd.f32x4Pmin : simd.f32x4Pmax);
    return;
  }
  const x = inLocal(e, a);
  const y = inLocal(e, b);
  for (const local of [x, y, x, y]) getLocal(e, local);
  if (s.type === 'f32') e.code.push(s.op === 'min' ? plain.f32Lt : plain.f32Gt);
  else e.code.push(s.op === 'min' ? plain.i32LtS : plain.i32GtS);
  e.code.push(plain.select);
}

function emitFold(e: Emitter, op: 'hsum' | 'hmax' | 'hmin', a: ValueId): void {
  const opcode = { hsum: simd.f32x4Add, hmax: simd.f32x4Pmax, hmin: simd.f32x4Pmin }[op];
  let low = inLocal(e, a);
  for (const lanes of [upperHalf, lane1]) {
    const whole = low;
    const upper = () => {
      getLocal(e, whole);
      getLocal(e, whole);
      emitSimd(e, simd.shuffle, ...lanes);
    };
    if (op === 'hsum') getLocal(e, whole);
    upper();
    if (op !== 'hsum') getLocal(e, whole);
    emitSimd(e, opcode);
    low = newLocal(e, 'v128');
    setLocal(e, low);
  }
  getLocal(e, low);
  emitSimd(e, simd.f32x4ExtractLane, 0);
}

/** A scalar goes through a lane: WebAssembly has no scalar fused multiply-add. */
function emitFused(e: Emitter, s: Instruction): void {
  for (const id of s.args) {
    push(e, id);
    if (s.type === 'f32') emitSimd(e, simd.f32x4Splat);
  }
  emitSimd(e, simd.f32x4RelaxedMadd);
  if (s.type === 'f32') emitSimd(e, simd.f32x4ExtractLane, 0);
}

/**
 * a*b+c rounded once, in f64: the product is exact there; the sum is rounded to odd (when it is inexact its last bit
 * is made 1), after which the rounding to f32 is that of the exact sum (Boldo and Melquiond 2008).
 */
function emitExactFma(e: Emitter, s: Instruction): void {
  const operands = s.args.map((id) => {
    push(e, id);
    if (s.type === 'f32') emitSimd(e, simd.f32x4Splat);
    const local = newLocal(e, 'v128');
    setLocal(e, local);
    return local;
  });
  exactFmaHalf(e, operands, false);
  if (s.type === 'f32') {
    emitSimd(e, simd.f32x4ExtractLane, 0);
    return;
  }
  exactFmaHalf(e, operands, true);
  emitSimd(e, simd.shuffle, ...joinLows);
}

/** Leaves the f32 results of two lanes in lanes 0 and 1. */
function exactFmaHalf(e: Emitter, operands: readonly number[], upper: boolean): void {
  const keep = () => {
    const local = newLocal(e, 'v128');
    setLocal(e, local);
    return local;
  };
  const both = (opcode: number, x: number, y: number) => {
    getLocal(e, x);
    getLocal(e, y);
    emitSimd(e, opcode);
  };
  const long = (value: number) => {
    const bytes = [...intBytes(value), 0, 0, 0, 0];
    emitSimd(e, simd.const, ...bytes, ...bytes);
  };
  const [a, b, c] = operands.map((local) => {
    getLocal(e, local);
    if (upper) {
      getLocal(e, local);
      emitSimd(e, simd.shuffle, ...upperHalf);
    }
    emitSimd(e, simd.f64x2PromoteLowF32x4);
    return keep();
  });
  both(simd.f64x2Mul, a, b);
  const product = keep();
  both(simd.f64x2Add, product, c);
  const sum = keep();
  // The rounding error of the sum, exactly (Knuth's two-sum).
  both(simd.f64x2Sub, sum, product);
  const second = keep();
  both(simd.f64x2Sub, sum, second);
  const first = keep();
  both(simd.f64x2Sub, product, first);
  both(simd.f64x2Sub, c, second);
  emitSimd(e, simd.f64x2Add);
  const error = keep();
  // One step towards the exact sum: up in the bits when sum and error have the same sign, else down.
  both(simd.xor, sum, error);
  e.code.push(plain.i32Const, ...[0xbf, 0x00]); // 63
  emitSimd(e, simd.i64x2ShrS);
  long(1);
  emitSimd(e, simd.or);
  // Only where the sum is inexact (NaN compares false, so infinities stay) and its last bit is 0.
  getLocal(e, error);
  emitSimd(e, simd.f64x2Abs);
  long(0);
  emitSimd(e, simd.f64x2Gt);
  emitSimd(e, simd.and);
  getLocal(e, sum);
  long(1);
  emitSimd(e, simd.and);
  long(0);
  emitSimd(e, simd.i64x2Eq);
  emitSimd(e, simd.and);
  getLocal(e, sum);
  emitSimd(e, simd.i64x2Add);
  emitSimd(e, simd.f32x4DemoteF64x2Zero);
}
