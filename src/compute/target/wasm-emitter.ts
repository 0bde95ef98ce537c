// The state of one WebAssembly compilation, and how values get onto the stack or into locals.
import type { Instruction, Kernel, ValueId, ValueType } from '../kernel/ir.js';
import { termsOf, type Usage } from './usage.js';
import { plain, signed, unsigned, type WasmType } from './wasm-encoder.js';

/** The state of one compilation. */
export interface Emitter {
  readonly kernel: Kernel;
  readonly fused: boolean;
  readonly usage: Usage;
  readonly code: number[];
  /** Leaves the value of an instruction on the stack. */
  readonly emitValue: (e: Emitter, s: Instruction) => void;
  readonly parameterCount: number;
  /** Types of the locals behind the parameters. */
  readonly locals: WasmType[];
  readonly localOf: Map<ValueId, number>;
  /** Values that are computed where they are used, with the depth of stack they need. */
  readonly pending: Map<ValueId, { instruction: Instruction; depth: number }>;
}

export const wasmTypeOf = (type: ValueType): WasmType => (type === 'i32' || type === 'f32' ? type : 'v128');

/** Appends a SIMD instruction. */
export function emitSimd(e: Emitter, opcode: number, ...immediates: readonly number[]): void {
  e.code.push(0xfd, ...unsigned(opcode), ...immediates);
}

export function newLocal(e: Emitter, type: WasmType): number {
  e.locals.push(type);
  return e.parameterCount + e.locals.length - 1;
}

export function getLocal(e: Emitter, local: number): void {
  e.code.push(plain.localGet, ...unsigned(local));
}

export function setLocal(e: Emitter, local: number): void {
  e.code.push(plain.localSet, ...unsigned(local));
}

/** Puts a value on the stack. */
export function push(e: Emitter, id: ValueId): void {
  const local = e.localOf.get(id);
  if (local !== undefined) getLocal(e, local);
  else e.emitValue(e, e.pending.get(id)!.instruction);
}

/** A local that holds the value, for operations that need it more than once. */
export function inLocal(e: Emitter, id: ValueId): number {
  const local = e.localOf.get(id);
  if (local !== undefined) return local;
  push(e, id);
  const fresh = newLocal(e, wasmTypeOf(e.kernel.types[id]));
  setLocal(e, fresh);
  return fresh;
}

/**
 * Puts the byte address of an element on the stack; what is left to add is the immediate, which is returned. A sum is
 * added from the part that changes least to the part that changes most, so that the runtime can move all but the last
 * addition out of the loop.
 */
export function pushAddress(e: Emitter, buffer: number, index: ValueId, imm: number): number {
  getLocal(e, buffer);
  const constant = e.usage.constants.get(index);
  if (constant !== undefined) {
    const bytes = (constant + imm) * 4;
    if (bytes >= 0 && bytes < 2 ** 31) return bytes;
  }
  let rest = 0;
  for (const id of termsOf(e.usage, index)) {
    const known = e.usage.constants.get(id);
    if (known !== undefined) {
      rest = (rest + known) | 0;
      continue;
    }
    push(e, id);
    e.code.push(plain.i32Const, 2, plain.i32Shl, plain.i32Add);
  }
  // Constants inside the index are added with the index: only the sum of both is known not to be negative.
  if (imm < 0) rest = (rest + imm) | 0;
  if (rest !== 0) e.code.push(plain.i32Const, ...signed(rest * 4), plain.i32Add);
  return imm >= 0 ? imm * 4 : 0;
}

/** Alignment (log2 of bytes) and offset of a load or store. */
export function memoryArgument(offset: number): number[] {
  return [2, ...unsigned(offset)];
}

/** Runs the code of 4 for counts from 4 on; of 2 and then 3 for 3; nothing below 1. */
export function byCount(e: Emitter, count: number, cases: Readonly<Record<1 | 2 | 3 | 4, () => void>>): void {
  const when = (atLeast: number, yes: () => void, no?: () => void) => {
    getLocal(e, count);
    e.code.push(plain.i32Const, atLeast, plain.i32GeS, plain.if, 0x40);
    yes();
    if (no) e.code.push(plain.else);
    no?.();
    e.code.push(plain.end);
  };
  when(4, cases[4], () =>
    when(
      2,
      () => {
        cases[2]();
        when(3, cases[3]);
      },
      () => when(1, cases[1]),
    ),
  );
}

export function intBytes(value: number): number[] {
  return [value & 255, (value >> 8) & 255, (value >> 16) & 255, (value >> 24) & 255];
}
