// Machine instructions with their registers to bytes: the function's frame, spilled values, every encoding.
import type { Allocation } from './allocate.js';
import {
  Assembler,
  type Condition,
  int32Bytes,
  type Label,
  type LaneMask,
  type Memory,
  type Operand,
  opposite,
  type Register,
  RSP,
} from './encoder.js';
import * as F from './forms.js';
import {
  type Address,
  type Machine,
  type MachineCode,
  type Parameter,
  readInPlace,
  readsOf,
  type Source,
  type Virtual,
  writeOf,
} from './machine.js';

const RAX = 0;
const RDX = 2;
/** The argument block's address: the first argument of a function in System V's calling convention. */
const ARGUMENTS = 7;
/** rbx, rbp, r12 to r15: a function gives them back as they were. */
const KEPT: readonly Register[] = [3, 5, 12, 13, 14, 15];
/** With AVX-512, the mask register that carries lanes from one instruction to the next. */
const LANES = 1;

const FUSED = { 132: 0x98, 213: 0xa8, 231: 0xb8 } as const;

/** Machine code and, behind it, its constants. */
export interface Emitted {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** How many of the bytes are instructions. */
  readonly codeSize: number;
}

/** The function `void run(arguments)`. */
export function emit(code: MachineCode, allocation: Allocation): Emitted {
  return new Emitter(code, allocation).run();
}

class Emitter {
  readonly #code: MachineCode;
  readonly #allocation: Allocation;
  readonly #asm: Assembler;
  readonly #labels: readonly Label[];
  /** A stack slot holds a whole vector. */
  readonly #slotBytes: number;
  /** Where the instruction at hand finds virtual registers that live in memory. */
  #loaded = new Map<Virtual, Register>();

  constructor(code: MachineCode, allocation: Allocation) {
    this.#code = code;
    this.#asm = new Assembler(code.lanes);
    this.#slotBytes = 4 * code.lanes;
    this.#allocation = allocation;
    this.#labels = Array.from({ length: code.labels }, () => this.#asm.label());
  }

  run(): Emitted {
    const asm = this.#asm;
    const { locations, slots } = this.#allocation;
    const used = new Set<Register>();
    locations.forEach((l, v) => {
      if (l && 'register' in l && this.#code.classes[v] === 'general') used.add(l.register);
    });
    const kept = KEPT.filter((r) => used.has(r));
    for (const r of kept) asm.push(r);
    if (slots > 0) this.#immediate(5, RSP, this.#slotBytes * slots, true);
    for (const [v, parameter] of this.#code.parameters) {
      const at = locations[v];
      if (at && 'register' in at) this.#loadArgument(at.register, parameter);
    }
    for (const m of this.#code.instructions) this.#withSpills(m);
    if (slots > 0) this.#immediate(0, RSP, this.#slotBytes * slots, true);
    for (const r of [...kept].reverse()) asm.pop(r);
    asm.zeroUpper();
    asm.ret();
    return { codeSize: asm.size, bytes: asm.finish() };
  }

  // --- values in memory ---------------------------------------------------------------------------------------

  /** Loads what the instruction reads from memory, runs it, and stores what it wrote there. */
  #withSpills(m: Machine): void {
    this.#loaded = new Map();
    const { locations, scratch } = this.#allocation;
    const next = { general: 0, vector: 0 };
    const written = writeOf(m);
    for (const v of readsOf(m)) {
      if (this.#loaded.has(v)) continue;
      const at = locations[v]!;
      if ('register' in at) continue;
      if (readInPlace(m, v)) continue;
      const file = this.#code.classes[v];
      // What is divided goes into rax anyway; the divisor must not lie in rax or rdx.
      const divided = (m.op === 'div' || m.op === 'rem') && v === m.a;
      const register = divided ? RAX : scratch[file][next[file]++];
      this.#loaded.set(v, register);
      if ('argument' in at) this.#loadArgument(register, this.#code.parameters.get(v)!);
      else if (file === 'general') this.#asm.general([0x8b], register, this.#slot(at.slot), { wide: true });
      else this.#asm.vector(F.packed(F.LOAD), register, undefined, this.#slot(at.slot));
    }
    if (written === undefined) {
      this.#instruction(m);
      return;
    }
    const to = locations[written]!;
    if ('slot' in to && !this.#loaded.has(written)) {
      // An operand's scratch register may be overwritten: every encoding reads before it writes.
      this.#loaded.set(written, scratch[this.#code.classes[written]][0]);
    }
    this.#instruction(m);
    if (!('slot' in to)) return;
    const register = this.#loaded.get(written)!;
    if (this.#code.classes[written] === 'general')
      this.#asm.general([0x89], register, this.#slot(to.slot), { wide: true });
    else this.#asm.vector(F.packed(F.STORE), register, undefined, this.#slot(to.slot));
  }

  #loadArgument(register: Register, { offset, kind }: Parameter): void {
    const from = { base: ARGUMENTS, displacement: offset };
    if (kind === 'float') this.#asm.vector(F.scalar(F.LOAD), register, undefined, from);
    else this.#asm.general([kind === 'address' ? 0x8b : 0x63], register, from, { wide: true });
  }

  #at(v: Virtual): Register {
    const loaded = this.#loaded.get(v);
    if (loaded !== undefined) return loaded;
    return (this.#allocation.locations[v] as { register: Register }).register;
  }

  /** A general register's place: itself, or the memory it lives in. */
  #where(v: Virtual): Operand {
    const loaded = this.#loaded.get(v);
    if (loaded !== undefined) return loaded;
    const at = this.#allocation.locations[v]!;
    if ('register' in at) return at.register;
    if ('slot' in at) return this.#slot(at.slot);
    return { base: ARGUMENTS, displacement: this.#code.parameters.get(v)!.offset };
  }

  #memory(address: Address): Memory {
    if ('constant' in address) return { constant: this.#asm.constant(address.constant) };
    const { base, index, displacement } = address;
    if (index === undefined) return { base: this.#at(base), displacement };
    return { base: this.#at(base), index: this.#at(index), scale: 4, displacement };
  }

  #source(s: Source): Operand {
    return typeof s === 'number' ? this.#at(s) : this.#memory(s);
  }

  // --- instructions -------------------------------------------------------------------------------------------

  #instruction(m: Machine): void {
    const asm = this.#asm;
    const at = (v: Virtual) => this.#at(v);
    switch (m.op) {
      case 'vector':
        asm.vector(
          m.form,
          at(m.dst),
          m.a === undefined ? undefined : at(m.a),
          this.#source(m.b),
          m.immediate,
        );
        return;
      case 'vectorShift':
        asm.vector(m.form, m.extension, at(m.dst), at(m.a), m.immediate);
        return;
      case 'compareLanes':
        this.#compareLanes(m);
        return;
      case 'upperHalf': {
        const form = F.form(0x66, 3, m.lanes === 16 ? 0x1b : 0x19, m.lanes === 16 ? 'full' : 256);
        asm.vector(form, at(m.a), undefined, at(m.dst), 1);
        return;
      }
      case 'blend':
        if (asm.lanes === 8)
          asm.vector(F.integer(3, 0x4a), at(m.dst), at(m.b), this.#source(m.a), at(m.mask) << 4);
        else
          asm.vector(
            F.integer(2, 0x65),
            at(m.dst),
            at(m.b),
            this.#source(m.a),
            undefined,
            this.#lanesOf(m.mask),
          );
        return;
      case 'fma':
        this.#fma(m);
        return;
      case 'zero':
        asm.vector(F.four(F.XOR), at(m.dst), at(m.dst), at(m.dst));
        return;
      case 'vectorMove':
        this.#vectorMove(at(m.dst), at(m.a));
        return;
      case 'vectorStore':
        asm.vector(m.form, at(m.a), undefined, this.#memory(m.to));
        return;
      case 'maskLoad': {
        const from = this.#memory(m.from);
        if (asm.lanes === 8) asm.vector(F.integer(2, 0x2c), at(m.dst), at(m.mask), from);
        else {
          const mask = { ...this.#lanesOf(m.mask), zero: true };
          asm.vector(F.packed(F.LOAD), at(m.dst), undefined, from, undefined, mask);
        }
        return;
      }
      case 'maskStore': {
        const to = this.#memory(m.to);
        if (asm.lanes === 8) asm.vector(F.integer(2, 0x2e), at(m.a), at(m.mask), to);
        else asm.vector(F.packed(F.STORE), at(m.a), undefined, to, undefined, this.#lanesOf(m.mask));
        return;
      }
      case 'toVector':
        asm.vector(F.form(0x66, 1, 0x6e, 128), at(m.dst), undefined, at(m.a));
        return;
      case 'toGeneral':
        asm.vector(F.form(0x66, 1, 0x7e, 128), at(m.a), undefined, at(m.dst));
        return;
      case 'intToFloat':
        // The upper lanes come from the second operand: without a fresh one it would wait for the register's past.
        asm.vector(F.four(F.XOR), at(m.dst), at(m.dst), at(m.dst));
        asm.vector(F.scalar(0x2a), at(m.dst), at(m.dst), at(m.a));
        return;
      case 'compareFloats':
        asm.vector(F.four(0x2e), at(m.a), undefined, this.#source(m.b));
        return;
      case 'chooseFloat':
        this.#chooseFloat(at(m.dst), at(m.a), at(m.b), m.condition);
        return;
      case 'move':
        this.#move(at(m.dst), at(m.a));
        return;
      case 'number':
        if (m.immediate >= 0) asm.loadImmediate(at(m.dst), m.immediate);
        else asm.general([0xc7], 0, at(m.dst), { wide: true, immediate: int32Bytes(m.immediate) });
        return;
      case 'load':
        asm.general([0x63], at(m.dst), this.#memory(m.from), { wide: true });
        return;
      case 'store':
        asm.general([0x89], at(m.a), this.#memory(m.to));
        return;
      case 'prefetch':
        asm.general([0x0f, 0x18], m.later ? 2 : 1, this.#memory(m.from)); // prefetcht1, prefetcht0
        return;
      case 'pointer':
        asm.general([0x8d], at(m.dst), this.#memory(m.from), { wide: true });
        return;
      case 'extend':
        asm.general([0x63], at(m.dst), at(m.a), { wide: true });
        return;
      case 'add':
      case 'sub':
      case 'mul':
      case 'and':
      case 'or':
        this.#arithmetic(m);
        return;
      case 'shl':
      case 'shr':
      case 'sar':
        this.#move(at(m.dst), at(m.a));
        asm.general([0xc1], { shl: 4, shr: 5, sar: 7 }[m.op], at(m.dst), { immediate: [m.immediate] });
        return;
      case 'div':
      case 'rem':
        this.#move(RAX, at(m.a));
        asm.bytes(0x99); // cdq
        asm.general([0xf7], 7, at(m.b));
        asm.general([0x8b], at(m.dst), m.op === 'div' ? RAX : RDX);
        return;
      case 'compare':
        asm.comparison(() => {
          if (typeof m.b === 'number') asm.general([0x3b], at(m.a), this.#where(m.b));
          else this.#immediate(7, at(m.a), m.b.immediate, false);
        });
        return;
      case 'truth':
        asm.general([0x0f, 0x90 | m.condition], 0, RAX);
        if (m.and !== undefined) {
          asm.general([0x0f, 0x90 | m.and], 0, RDX);
          asm.general([0x20], RDX, RAX);
        }
        asm.general([0x0f, 0xb6], at(m.dst), RAX);
        return;
      case 'choose': {
        const [dst, a, b] = [at(m.dst), at(m.a), at(m.b)];
        if (dst === a && dst !== b) asm.general([0x0f, 0x40 | opposite(m.condition)], dst, b, { wide: true });
        else {
          this.#move(dst, b);
          asm.general([0x0f, 0x40 | m.condition], dst, a, { wide: true });
        }
        return;
      }
      case 'advance':
        this.#immediate(0, at(m.dst), m.immediate, true);
        return;
      case 'jump':
        asm.jump(this.#labels[m.to], m.condition);
        return;
      case 'label':
        asm.place(this.#labels[m.name]);
        return;
      case 'loopBegin':
        asm.align();
        return;
      case 'loopEnd':
        return;
    }
  }

  /** AVX-512 compares into a mask register, from where the lanes are spread again. */
  #compareLanes({ form, dst, a, b, immediate }: Extract<Machine, { op: 'compareLanes' }>): void {
    const asm = this.#asm;
    const into = asm.lanes === 8 ? this.#at(dst) : LANES;
    asm.vector(form, into, this.#at(a), this.#source(b), immediate);
    if (asm.lanes === 16) asm.vector(F.form(0xf3, 2, 0x38, form.width), this.#at(dst), undefined, LANES);
  }

  /** Moves the lanes of a mask into the mask register. */
  #lanesOf(mask: Virtual): LaneMask {
    this.#asm.vector(F.form(0xf3, 2, 0x39, 'full'), LANES, undefined, this.#at(mask));
    return { register: LANES, zero: false };
  }

  /** dst = a * b + c by the form whose overwritten operand already lies in dst. */
  #fma(m: Extract<Machine, { op: 'fma' }>): void {
    const dst = this.#at(m.dst);
    const a = this.#at(m.a);
    const [b, c] = [this.#source(m.b), this.#source(m.c)];
    const put = (order: keyof typeof FUSED, second: Register, third: Operand) =>
      this.#asm.vector(
        F.form(0x66, 2, FUSED[order] + (m.wide ? 0 : 1), m.wide ? 'full' : 128),
        dst,
        second,
        third,
      );
    if (typeof c !== 'number') {
      // In memory: 213 adds it to the product of dst and another register.
      if (dst === b) put(213, a, c);
      else {
        this.#vectorMove(dst, a);
        put(213, b as Register, c);
      }
    } else if (dst === c) put(231, a, b);
    else if (dst === a) typeof b === 'number' ? put(213, b, c) : put(132, c, b);
    else if (dst === b) put(213, a, c);
    else {
      this.#vectorMove(dst, c);
      put(231, a, b);
    }
  }

  #chooseFloat(dst: Register, a: Register, b: Register, condition: Condition): void {
    const done = this.#asm.label();
    if (dst === b) {
      this.#asm.jump(done, opposite(condition));
      this.#vectorMove(dst, a);
    } else {
      this.#vectorMove(dst, a);
      this.#asm.jump(done, condition);
      this.#vectorMove(dst, b);
    }
    this.#asm.place(done);
  }

  #arithmetic(m: Extract<Machine, { op: 'add' | 'sub' | 'mul' | 'and' | 'or' }>): void {
    const asm = this.#asm;
    const [dst, a] = [this.#at(m.dst), this.#at(m.a)];
    if (typeof m.b !== 'number') {
      const { immediate } = m.b;
      if (m.op === 'mul') {
        asm.general([0x69], dst, a, { immediate: int32Bytes(immediate) });
      } else if (m.op === 'add' && dst !== a) {
        asm.general([0x8d], dst, { base: a, displacement: immediate });
      } else {
        this.#move(dst, a);
        this.#immediate({ add: 0, or: 1, and: 4, sub: 5 }[m.op], dst, immediate, false);
      }
      return;
    }
    const b = this.#at(m.b);
    if (m.op === 'sub') {
      if (dst === b && dst !== a) {
        asm.general([0xf7], 3, dst); // neg
        asm.general([0x01], a, dst);
      } else {
        this.#move(dst, a);
        asm.general([0x29], b, dst);
      }
      return;
    }
    if (m.op === 'add' && dst !== a && dst !== b) {
      asm.general([0x8d], dst, { base: a, index: b, displacement: 0 });
      return;
    }
    const other = dst === b ? a : b;
    if (dst !== b) this.#move(dst, a);
    if (m.op === 'mul') asm.general([0x0f, 0xaf], dst, other);
    else asm.general([{ add: 0x01, or: 0x09, and: 0x21 }[m.op]], other, dst);
  }

  /** An operation of the group 81 (/extension) with a constant. */
  #immediate(extension: number, register: Register, value: number, wide: boolean): void {
    if (value >= -128 && value < 128)
      this.#asm.general([0x83], extension, register, { wide, immediate: [value & 255] });
    else this.#asm.general([0x81], extension, register, { wide, immediate: int32Bytes(value) });
  }

  #move(dst: Register, a: Register): void {
    if (dst !== a) this.#asm.general([0x8b], dst, a, { wide: true });
  }

  #vectorMove(dst: Register, a: Register): void {
    if (dst !== a) this.#asm.vector(F.packed(0x28), dst, undefined, a);
  }

  #slot(slot: number): Memory {
    return { base: RSP, displacement: this.#slotBytes * slot };
  }
}
