// The vector instructions that selection uses, as prefix, opcode map and opcode.
import type { OpcodeMap, Prefix, VexForm } from './encoder.js';

export function form(prefix: Prefix, map: OpcodeMap, opcode: number, width: VexForm['width']): VexForm {
  return { prefix, map, opcode, width };
}

/** addps and its kind exist packed (no prefix) and scalar (f3). */
export const ARITHMETIC = { add: 0x58, mul: 0x59, sub: 0x5c, min: 0x5d, div: 0x5e, max: 0x5f } as const;
export const INTEGER: Readonly<Record<string, readonly [OpcodeMap, number]>> = {
  add: [1, 0xfe],
  sub: [1, 0xfa],
  mul: [2, 0x40],
  min: [2, 0x39],
  max: [2, 0x3d],
  and: [1, 0xdb],
  or: [1, 0xeb],
};

export const packed = (opcode: number) => form(0, 1, opcode, 'full');
export const scalar = (opcode: number) => form(0xf3, 1, opcode, 128);
/** A packed operation on the lower four lanes, or eight. */
export const four = (opcode: number) => form(0, 1, opcode, 128);
export const eight = (opcode: number) => form(0, 1, opcode, 256);

export const SQRT = 0x51;
export const AND = 0x54;
export const XOR = 0x57;
export const COMPARE = 0xc2;
export const LOAD = 0x10;
export const STORE = 0x11;
export const CONVERT = 0x5b;
export const HIGH_TO_LOW = 0x12;

export const integer = (map: OpcodeMap, opcode: number) => form(0x66, map, opcode, 'full');
export const GREATER = integer(1, 0x66);
export const EQUAL = integer(1, 0x76);
export const SHIFT = integer(1, 0x72);
export const SHIFT_LEFT = 6;
export const SHIFT_RIGHT = 2;
export const BROADCAST = integer(2, 0x18);
export const BROADCAST_INT = integer(2, 0x58);
export const ROUND = integer(3, 0x08);
export const ROUND_SCALAR = form(0x66, 3, 0x0a, 128);
export const ODD_LANES = form(0xf3, 1, 0x16, 128);

/** Immediates of cmpps: ordered, quiet. */
export const PREDICATE = { eq: 0x00, lt: 0x11, le: 0x12, ordered: 0x07, greaterOrEqual: 0x1d } as const;
/** Immediates of roundps, without the inexact exception. */
export const ROUNDING = { nearest: 8, floor: 9 } as const;
