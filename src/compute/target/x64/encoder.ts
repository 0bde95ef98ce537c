// Bytes of x86-64 instructions: REX, VEX and EVEX prefixes, memory operands, labels and a pool of constants.
// Source of the formats: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, chapter 2.

/** A register's number, 0 to 15, of vectors with AVX-512 to 31. Which file it is in (general or vector) follows from the instruction. */
export type Register = number;

/** base + index * scale + displacement, or a constant of the pool. */
export type Memory =
  | {
      readonly base: Register;
      readonly index?: Register;
      readonly scale?: 1 | 2 | 4 | 8;
      readonly displacement: number;
    }
  | { readonly constant: number };

/** A register's number, or a place in memory. */
export type Operand = Register | Memory;

/** A place in the code that jumps name before or after it is known. */
export interface Label {
  at: number;
  readonly from: number[];
}

/** Mandatory prefix and opcode map of an instruction, as VEX.pp and VEX.mmmmm count them. */
export type Prefix = 0 | 0x66 | 0xf3 | 0xf2;
export type OpcodeMap = 1 | 2 | 3;

const PREFIXES: readonly Prefix[] = [0, 0x66, 0xf3, 0xf2];
/**
 * Bytes of code that a processor keeps decoded together. Loops begin with a new line; and no jump, with the comparison that
 * is one with it, crosses or ends one: Intel's processors of the Skylake family decode such a line anew each time (erratum
 * SKX102, "Jump Conditional Code").
 */
const LINE = 32;
export const RSP = 4;
export const RBP = 5;

/** Condition codes, the low four bits of jcc, setcc and cmovcc. */
export const CONDITION = {
  below: 2,
  aboveOrEqual: 3,
  equal: 4,
  notEqual: 5,
  belowOrEqual: 6,
  above: 7,
  parity: 10,
  noParity: 11,
  less: 12,
  greaterOrEqual: 13,
  lessOrEqual: 14,
  greater: 15,
} as const;
export type Condition = (typeof CONDITION)[keyof typeof CONDITION];

export function opposite(condition: Condition): Condition {
  return (condition ^ 1) as Condition;
}

export interface VexForm {
  readonly prefix: Prefix;
  readonly map: OpcodeMap;
  readonly opcode: number;
  /** Bits; `full` is a whole vector of the target. */
  readonly width: 128 | 256 | 'full';
}

/** With AVX-512, the mask register that an instruction obeys, and whether lanes outside it become 0. */
export interface LaneMask {
  readonly register: Register;
  readonly zero: boolean;
}

/** Appends instructions to a buffer of bytes: vectors of 8 lanes by VEX (AVX2), of 16 by EVEX (AVX-512). */
export class Assembler {
  readonly lanes: number;
  readonly #bytes: number[] = [];
  /** Where a 32-bit distance to a constant stands, and from where it counts. */
  readonly #constantUses: { at: number; next: number; constant: number }[] = [];
  readonly #constants: Uint8Array[] = [];
  readonly #constantNumbers = new Map<string, number>();
  /** Where the comparison that was written last starts and ends. */
  #comparison = { start: -1, end: -1 };

  constructor(lanes: number) {
    this.lanes = lanes;
  }

  get size(): number {
    return this.#bytes.length;
  }

  /** The number of a constant of one vector in the pool. */
  constant(bytes: Uint8Array): number {
    const key = bytes.join();
    const known = this.#constantNumbers.get(key);
    if (known !== undefined) return known;
    this.#constantNumbers.set(key, this.#constants.length);
    this.#constants.push(bytes);
    return this.#constants.length - 1;
  }

  bytes(...values: readonly number[]): void {
    this.#bytes.push(...values);
  }

  int32(value: number): void {
    this.bytes(...int32Bytes(value));
  }

  // --- labels -------------------------------------------------------------------------------------------------

  label(): Label {
    return { at: -1, from: [] };
  }

  place(label: Label): void {
    label.at = this.size;
    // What is before a label must not move any more.
    this.#comparison = { start: -1, end: -1 };
    for (const from of label.from) this.#patch(from, label.at - (from + 4));
  }

  /** Writes a comparison of general registers, which a jump right behind it belongs to. */
  comparison(write: () => void): void {
    const start = this.size;
    write();
    this.#comparison = { start, end: this.size };
  }

  jump(label: Label, condition?: Condition): void {
    const { start, end } = this.#comparison;
    this.#keepInLine(end === this.size ? start : this.size, condition === undefined ? 5 : 6);
    if (condition === undefined) this.bytes(0xe9);
    else this.bytes(0x0f, 0x80 | condition);
    if (label.at < 0) {
      label.from.push(this.size);
      this.int32(0);
    } else this.int32(label.at - (this.size + 4));
  }

  /** Moves what was written from `start` on to the next line, where it and `more` bytes would cross or end this one. */
  #keepInLine(start: number, more: number): void {
    if ((start % LINE) + (this.size - start) + more < LINE) return;
    const moved = this.#bytes.splice(start);
    this.align();
    this.bytes(...moved);
  }

  /** Fills with no-operations up to the next line. */
  align(): void {
    const nops = [
      [0x90],
      [0x66, 0x90],
      [0x0f, 0x1f, 0x00],
      [0x0f, 0x1f, 0x40, 0x00],
      [0x0f, 0x1f, 0x44, 0x00, 0x00],
      [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
      [0x0f, 0x1f, 0x80, 0, 0, 0, 0],
      [0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0],
    ];
    let missing = (LINE - (this.size % LINE)) % LINE;
    while (missing > 0) {
      const n = Math.min(missing, nops.length);
      this.bytes(...nops[n - 1]);
      missing -= n;
    }
  }

  push(register: Register): void {
    if (register > 7) this.bytes(0x41);
    this.bytes(0x50 | (register & 7));
  }

  pop(register: Register): void {
    if (register > 7) this.bytes(0x41);
    this.bytes(0x58 | (register & 7));
  }

  /** mov r32, imm32: the upper half becomes 0. */
  loadImmediate(register: Register, value: number): void {
    if (register > 7) this.bytes(0x41);
    this.bytes(0xb8 | (register & 7));
    this.int32(value);
  }

  /** vzeroupper: code without AVX that follows would otherwise be slow. */
  zeroUpper(): void {
    this.bytes(0xc5, 0xf8, 0x77);
  }

  ret(): void {
    this.bytes(0xc3);
  }

  // --- instructions -------------------------------------------------------------------------------------------

  /** An instruction of the general registers: REX prefix where needed, opcode bytes, operands, immediate bytes. */
  general(
    opcode: readonly number[],
    reg: Register,
    rm: Operand,
    { wide = false, immediate = [] }: GeneralOptions = {},
  ): void {
    const [r, x, b] = highBits(reg, rm);
    const rex = 0x40 | (wide ? 8 : 0) | (r << 2) | (x << 1) | b;
    if (rex !== 0x40) this.bytes(rex);
    this.bytes(...opcode);
    this.#operands(reg, rm, immediate.length);
    this.bytes(...immediate);
  }

  /**
   * An instruction of the vector registers. `second` is the operand in the prefix (vvvv); leave it out where the
   * instruction has none.
   */
  vector(
    form: VexForm,
    reg: Register,
    second: Register | undefined,
    rm: Operand,
    immediate?: number,
    mask?: LaneMask,
  ): void {
    const scale =
      this.lanes === 16
        ? this.#evex(form, reg, second ?? 0, rm, mask)
        : this.#vex(form, reg, second ?? 0, rm);
    this.bytes(form.opcode);
    this.#operands(reg, rm, immediate === undefined ? 0 : 1, scale);
    if (immediate !== undefined) this.bytes(immediate & 255);
  }

  /** The prefix; gives what a displacement of one byte counts in. */
  #vex(form: VexForm, reg: Register, second: Register, rm: Operand): number {
    const [r, x, b] = highBits(reg, rm);
    const wide = form.width === 128 ? 0 : 4;
    const tail = ((~second & 15) << 3) | wide | PREFIXES.indexOf(form.prefix);
    if (x === 0 && b === 0 && form.map === 1) this.bytes(0xc5, ((1 - r) << 7) | tail);
    else this.bytes(0xc4, ((1 - r) << 7) | ((1 - x) << 6) | ((1 - b) << 5) | form.map, tail);
    return 1;
  }

  /** As `#vex`. Register numbers have a fifth bit; that of rm stands where an index would have its fourth. */
  #evex(form: VexForm, reg: Register, second: Register, rm: Operand, mask?: LaneMask): number {
    const [r, x, b] = highBits(reg, rm);
    const fifth = typeof rm === 'number' ? (rm >> 4) & 1 : x;
    const length = { 128: 0, 256: 1, full: 2 }[form.width];
    this.bytes(
      0x62,
      ((1 - (r & 1)) << 7) |
        ((1 - fifth) << 6) |
        ((1 - (b & 1)) << 5) |
        ((1 - ((reg >> 4) & 1)) << 4) |
        form.map,
      ((~second & 15) << 3) | 4 | PREFIXES.indexOf(form.prefix),
      ((mask?.zero ? 1 : 0) << 7) | (length << 5) | ((1 - ((second >> 4) & 1)) << 3) | (mask?.register ?? 0),
    );
    // Scalars and broadcasts read one element.
    const broadcast = form.map === 2 && (form.opcode === 0x18 || form.opcode === 0x58);
    return form.width === 'full' && !broadcast ? 4 * this.lanes : 4;
  }

  /** The code, then the constants, each on a boundary of its size. */
  finish(): Uint8Array<ArrayBuffer> {
    const bytes = 4 * this.lanes;
    const start = Math.ceil(this.size / bytes) * bytes;
    for (const { at, next, constant } of this.#constantUses) this.#patch(at, start + bytes * constant - next);
    const out = new Uint8Array(start + bytes * this.#constants.length);
    // Between code and constants: int3, which no run reaches.
    out.fill(0xcc);
    out.set(this.#bytes);
    this.#constants.forEach((constant, i) => {
      out.set(constant, start + bytes * i);
    });
    return out;
  }

  #patch(at: number, value: number): void {
    for (let i = 0; i < 4; i++) this.#bytes[at + i] = (value >> (8 * i)) & 255;
  }

  /**
   * ModRM, SIB and displacement. `after`: bytes of the instruction that follow them; `unit`: what a displacement of one
   * byte counts in.
   */
  #operands(reg: Register, rm: Operand, after: number, unit = 1): void {
    const field = (reg & 7) << 3;
    if (typeof rm === 'number') {
      this.bytes(0xc0 | field | (rm & 7));
      return;
    }
    if ('constant' in rm) {
      this.bytes(field | 5);
      const at = this.size;
      this.int32(0);
      this.#constantUses.push({ at, next: at + 4 + after, constant: rm.constant });
      return;
    }
    const { base, index, scale = 1, displacement } = rm;
    // A base of rbp or r13 without displacement would mean another thing.
    const units = displacement / unit;
    const short = Number.isInteger(units) && units >= -128 && units < 128;
    const mode = displacement === 0 && (base & 7) !== RBP ? 0 : short ? 1 : 2;
    if (index === undefined && (base & 7) !== RSP) this.bytes((mode << 6) | field | (base & 7));
    else {
      if (index === RSP) throw new Error('rsp cannot be an index');
      const factor = { 1: 0, 2: 1, 4: 2, 8: 3 }[scale];
      this.bytes((mode << 6) | field | 4, (factor << 6) | (((index ?? RSP) & 7) << 3) | (base & 7));
    }
    if (mode === 1) this.bytes(units & 255);
    if (mode === 2) this.int32(displacement);
  }
}

interface GeneralOptions {
  /** 64 bits instead of 32. */
  readonly wide?: boolean;
  readonly immediate?: readonly number[];
}

function highBits(reg: Register, rm: Operand): [number, number, number] {
  const fourth = (register: Register) => (register >> 3) & 1;
  if (typeof rm === 'number') return [fourth(reg), 0, fourth(rm)];
  if ('constant' in rm) return [fourth(reg), 0, 0];
  return [fourth(reg), fourth(rm.index ?? 0), fourth(rm.base)];
}

export function int32Bytes(value: number): number[] {
  return [value & 255, (value >> 8) & 255, (value >> 16) & 255, (value >> 24) & 255];
}
