// Machine instructions over virtual registers: what selection makes, allocation reads and emission writes out.
import type { Condition, VexForm } from './encoder.js';

/** A virtual register; MachineCode.classes tells its file. It may be written more than once. */
export type Virtual = number;
export type RegisterClass = 'general' | 'vector';

/** An address: base + index * 4 + displacement bytes, or a constant of the pool. */
export type Address =
  | { readonly base: Virtual; readonly index?: Virtual; readonly displacement: number }
  | { readonly constant: Uint8Array };

/** A virtual register or what an address holds. */
export type Source = Virtual | Address;

export type Machine =
  /** dst = a op b, dst = op b (a left out), with an optional immediate byte. */
  | { readonly op: 'vector'; form: VexForm; dst: Virtual; a?: Virtual; b: Source; immediate?: number }
  /** dst = a shifted by a constant; `extension` is the opcode's extra digit. */
  | {
      readonly op: 'vectorShift';
      form: VexForm;
      extension: number;
      dst: Virtual;
      a: Virtual;
      immediate: number;
    }
  /** dst = -1 in each lane where the comparison holds, else 0. */
  | { readonly op: 'compareLanes'; form: VexForm; dst: Virtual; a: Virtual; b: Source; immediate?: number }
  /** dst = the upper half of a's lower 8 or 16 lanes. */
  | { readonly op: 'upperHalf'; dst: Virtual; a: Virtual; lanes: 8 | 16 }
  /** dst = where the mask's lanes are set a, else b. */
  | { readonly op: 'blend'; dst: Virtual; a: Source; b: Virtual; mask: Virtual }
  /** dst = a * b + c; one of b and c may be in memory. */
  | { readonly op: 'fma'; wide: boolean; dst: Virtual; a: Virtual; b: Source; c: Source }
  | { readonly op: 'zero'; dst: Virtual }
  | { readonly op: 'vectorMove'; dst: Virtual; a: Virtual }
  | { readonly op: 'vectorStore'; form: VexForm; a: Virtual; to: Address }
  | { readonly op: 'maskLoad'; dst: Virtual; mask: Virtual; from: Address }
  | { readonly op: 'maskStore'; a: Virtual; mask: Virtual; to: Address }
  /** Between the register files: 32 bits. */
  | { readonly op: 'toVector'; dst: Virtual; a: Virtual }
  | { readonly op: 'toGeneral'; dst: Virtual; a: Virtual }
  | { readonly op: 'intToFloat'; dst: Virtual; a: Virtual }
  /** Sets the flags from two floats, as unsigned integers would. */
  | { readonly op: 'compareFloats'; a: Virtual; b: Source }
  /** dst = a where the condition holds, else b; of floats. */
  | { readonly op: 'chooseFloat'; dst: Virtual; a: Virtual; b: Virtual; condition: Condition }
  | { readonly op: 'move'; dst: Virtual; a: Virtual }
  | { readonly op: 'number'; dst: Virtual; immediate: number }
  /** 32 bits extended to 64 by their sign. */
  | { readonly op: 'load'; dst: Virtual; from: Address }
  | { readonly op: 'store'; a: Virtual; to: Address }
  | { readonly op: 'prefetch'; from: Address; later: boolean }
  /** dst = the address itself. */
  | { readonly op: 'pointer'; dst: Virtual; from: Address }
  /** dst = a's 32 bits extended to 64 by their sign. */
  | { readonly op: 'extend'; dst: Virtual; a: Virtual }
  | {
      readonly op: 'add' | 'sub' | 'mul' | 'and' | 'or';
      dst: Virtual;
      a: Virtual;
      b: Virtual | { readonly immediate: number };
    }
  | { readonly op: 'shl' | 'shr' | 'sar'; dst: Virtual; a: Virtual; immediate: number }
  | { readonly op: 'div' | 'rem'; dst: Virtual; a: Virtual; b: Virtual }
  | { readonly op: 'compare'; a: Virtual; b: Virtual | { readonly immediate: number } }
  /** dst = 1 where the condition holds, else 0; `and` must hold too. */
  | { readonly op: 'truth'; dst: Virtual; condition: Condition; and?: Condition }
  | { readonly op: 'choose'; dst: Virtual; a: Virtual; b: Virtual; condition: Condition }
  /** 64 bits, so that a counter stays extended by its sign. */
  | { readonly op: 'advance'; dst: Virtual; immediate: number }
  | { readonly op: 'jump'; to: number; condition?: Condition }
  | { readonly op: 'label'; name: number }
  | { readonly op: 'loopBegin' | 'loopEnd' };

/** Selected code: instructions, the file of each virtual register, and which arguments they hold from the start. */
export interface MachineCode {
  readonly lanes: number;
  readonly instructions: readonly Machine[];
  readonly classes: readonly RegisterClass[];
  /** Virtual registers that hold an argument throughout: its place in the argument block, and how to load it. */
  readonly parameters: ReadonlyMap<Virtual, Parameter>;
  readonly labels: number;
}

export interface Parameter {
  /** Bytes from the start of the argument block. */
  readonly offset: number;
  readonly kind: 'address' | 'int' | 'float';
}

/** The virtual registers that an instruction reads. */
export function readsOf(m: Machine): Virtual[] {
  const out: Virtual[] = [];
  const add = (s: Source | { readonly immediate: number } | undefined) => {
    if (s === undefined) return;
    if (typeof s === 'number') out.push(s);
    else if ('base' in s) {
      out.push(s.base);
      if (s.index !== undefined) out.push(s.index);
    }
  };
  if ('a' in m) add(m.a);
  if ('b' in m) add(m.b);
  if ('c' in m) add(m.c);
  if ('mask' in m) add(m.mask);
  if ('from' in m) add(m.from);
  if (m.op === 'store' || m.op === 'vectorStore' || m.op === 'maskStore') add(m.to);
  if (m.op === 'advance') add(m.dst);
  return out;
}

/** Whether an instruction takes this operand from where it lives, be it memory. */
export function readInPlace(m: Machine, v: Virtual): boolean {
  return m.op === 'compare' && v === m.b && v !== m.a;
}

/** The virtual register that an instruction writes. */
export function writeOf(m: Machine): Virtual | undefined {
  return 'dst' in m ? m.dst : undefined;
}

/** The same instruction with other virtual registers to read; what `advance` counts stays. */
export function withReads(m: Machine, other: ReadonlyMap<Virtual, Virtual>): Machine {
  const virtual = (v: Virtual) => other.get(v) ?? v;
  const source = (s: Source | { readonly immediate: number }) => {
    if (typeof s === 'number') return virtual(s);
    if (!('base' in s)) return s;
    return { ...s, base: virtual(s.base), ...(s.index === undefined ? {} : { index: virtual(s.index) }) };
  };
  const changed: Record<string, unknown> = { ...m };
  for (const operand of ['a', 'b', 'c', 'mask', 'from']) {
    const read = changed[operand];
    if (read !== undefined) changed[operand] = source(read as Source);
  }
  if (m.op === 'store' || m.op === 'vectorStore' || m.op === 'maskStore') changed.to = source(m.to);
  return changed as Machine;
}
