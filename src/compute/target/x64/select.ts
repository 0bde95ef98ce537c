// Instruction selection: a kernel's intermediate form to machine instructions over virtual registers.
//
// A variable is a virtual register that is written more than once; a value is written once, straight into its
// variable where that is what becomes of it. Addresses keep what does not change in a loop in a pointer before it.
import type { Instruction, Kernel, Statement, ValueId, ValueType } from '../../kernel/ir.js';
import { termsOf, type Usage, usageOf } from '../usage.js';
import { CONDITION, type Condition, opposite, type VexForm } from './encoder.js';
import * as F from './forms.js';
import type { Address, Machine, MachineCode, Parameter, RegisterClass, Source, Virtual } from './machine.js';
import { type BlockPlan, indexSums, planBlock } from './plan.js';

/** What is known of a value: its register, or that it is a constant. */
type Held = { readonly register: Virtual } | { readonly int: number } | { readonly vector: Uint8Array };

type Comparison = 'lt' | 'le' | 'eq';

export function select(kernel: Kernel): MachineCode {
  return new Selector(kernel).run();
}

class Selector {
  readonly #kernel: Kernel;
  readonly #lanes: number;
  readonly #usage: Usage;
  readonly #lazy: ReadonlySet<ValueId>;
  readonly #instructions: Machine[] = [];
  readonly #classes: RegisterClass[] = [];
  readonly #parameters = new Map<Virtual, Parameter>();
  readonly #byOffset = new Map<number, Virtual>();
  readonly #variables = new Map<ValueId, Virtual>();
  /** i32 that are not below 0: whatever happens, or as long as what leads to an index does not wrap. */
  readonly #notNegative = { surely: new Set<ValueId>(), inIndex: new Set<ValueId>() };
  /** Values whose register holds them extended to 64 bits by their sign. */
  readonly #extended = new Set<ValueId>();
  /** Values that are read from a variable's own register, which only holds them until the variable is set. */
  readonly #aliased = new Set<ValueId>();
  /** The comparison that the next statement will turn into flags. */
  #pending: Instruction | undefined;
  #labels = 0;
  #held = new Map<ValueId, Held>();
  /** What was computed on the way, for use further on in the block: pointers, masks, extended values. */
  #made = new Map<string, Virtual>();
  #plan: BlockPlan = { aliases: new Set(), targets: new Map() };

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#lanes = kernel.lanes;
    this.#usage = usageOf(kernel);
    this.#lazy = indexSums(kernel, this.#usage);
  }

  run(): MachineCode {
    this.#block(this.#kernel.body);
    return {
      lanes: this.#lanes,
      instructions: this.#instructions,
      classes: this.#classes,
      parameters: this.#parameters,
      labels: this.#labels,
    };
  }

  // --- statements ---------------------------------------------------------------------------------------------

  #block(block: readonly Statement[]): void {
    const outer = { held: this.#held, made: this.#made, plan: this.#plan };
    this.#held = new Map(outer.held);
    this.#made = new Map(outer.made);
    this.#plan = planBlock(block, this.#usage);
    block.forEach((s, i) => {
      this.#statement(s, block[i + 1]);
    });
    this.#held = outer.held;
    this.#made = outer.made;
    this.#plan = outer.plan;
  }

  #statement(s: Statement, next: Statement | undefined): void {
    switch (s.kind) {
      case 'value':
        this.#define(s, next);
        return;
      case 'var':
      case 'set': {
        const [id, value] = s.kind === 'var' ? [s.id, s.init] : [s.variable, s.value];
        if (this.#plan.targets.get(value) === id) return;
        this.#copyInto(this.#variable(id), value);
        return;
      }
      case 'store':
        this.#store(s);
        return;
      case 'prefetch':
        this.#emit({ op: 'prefetch', from: this.#address(s.buffer, s.index, s.imm), later: s.later });
        return;
      case 'if':
        this.#if(s);
        return;
      case 'loop':
        this.#loop(s);
        return;
    }
  }

  #if(s: Extract<Statement, { kind: 'if' }>): void {
    const otherwise = this.#labels++;
    const condition = this.#flags(s.condition);
    if (condition.and !== undefined)
      this.#emit({ op: 'jump', to: otherwise, condition: opposite(condition.and) });
    this.#emit({ op: 'jump', to: otherwise, condition: opposite(condition.condition) });
    this.#block(s.yes);
    if (s.no.length === 0) {
      this.#emit({ op: 'label', name: otherwise });
      return;
    }
    const done = this.#labels++;
    this.#emit({ op: 'jump', to: done });
    this.#emit({ op: 'label', name: otherwise });
    this.#block(s.no);
    this.#emit({ op: 'label', name: done });
  }

  #loop(s: Extract<Statement, { kind: 'loop' }>): void {
    const counter = this.#fresh('general');
    const start = this.#constantInt(s.start);
    if (start === undefined) this.#emit({ op: 'move', dst: counter, a: this.#wide(s.start) });
    else this.#emit({ op: 'number', dst: counter, immediate: start });
    const outer = { held: this.#held, made: this.#made };
    this.#held = new Map(outer.held);
    this.#made = new Map(outer.made);
    this.#hoist(s.body);
    const last = this.#constantInt(s.end);
    const end = last === undefined ? this.#register(s.end) : { immediate: last };
    const head = this.#labels++;
    const exit = this.#labels++;
    if (start === undefined || last === undefined || start >= last) {
      this.#emit({ op: 'compare', a: counter, b: end });
      this.#emit({ op: 'jump', to: exit, condition: CONDITION.greaterOrEqual });
    }
    this.#emit({ op: 'loopBegin' });
    this.#emit({ op: 'label', name: head });
    this.#held.set(s.counter, { register: counter });
    this.#extended.add(s.counter);
    for (const how of ['surely', 'inIndex'] as const)
      if (this.#notNegative[how].has(s.start)) this.#notNegative[how].add(s.counter);
    this.#block(s.body);
    this.#emit({ op: 'advance', dst: counter, immediate: s.step });
    this.#emit({ op: 'compare', a: counter, b: end });
    this.#emit({ op: 'jump', to: head, condition: CONDITION.less });
    this.#emit({ op: 'loopEnd' });
    this.#emit({ op: 'label', name: exit });
    this.#held = outer.held;
    this.#made = outer.made;
  }

  /** Makes pointers and masks that the loop's body needs and that do not change in it. */
  #hoist(body: readonly Statement[]): void {
    const access = (buffer: number, index: ValueId, count: ValueId | undefined) => {
      const { terms } = this.#terms(index);
      const known = terms.findIndex((t) => !this.#isThere(t));
      const prefix = known < 0 ? terms : terms.slice(0, known);
      if (prefix.length > 0) this.#pointer(buffer, prefix);
      if (count !== undefined && this.#held.has(count)) this.#mask(count);
    };
    const visit = (block: readonly Statement[]) => {
      for (const s of block) {
        if (s.kind === 'store') access(s.buffer, s.index, s.count);
        else if (s.kind === 'prefetch') access(s.buffer, s.index, undefined);
        else if (s.kind === 'value' && s.op === 'load' && this.#usage.uses.get(s.id))
          access(s.buffer!, s.args[0], s.args[1]);
        else if (s.kind === 'loop') visit(s.body);
        else if (s.kind === 'if') {
          visit(s.yes);
          visit(s.no);
        }
      }
    };
    visit(body);
  }

  /** Whether a value is in a register, or a sum of such that so far was only part of addresses. */
  #isThere(id: ValueId): boolean {
    if (this.#held.has(id)) return true;
    return this.#lazy.has(id) && this.#usage.sums.get(id)!.args.every((a) => this.#isThere(a));
  }

  #store(s: Extract<Statement, { kind: 'store' }>): void {
    const type = this.#kernel.types[s.value];
    const value = this.#register(s.value);
    const to = this.#address(s.buffer, s.index, s.imm);
    if (s.count !== undefined) this.#emit({ op: 'maskStore', a: value, mask: this.#mask(s.count), to });
    else if (type === 'i32') this.#emit({ op: 'store', a: value, to });
    else {
      const form = type === 'f32' ? F.scalar(F.STORE) : F.packed(F.STORE);
      this.#emit({ op: 'vectorStore', form, a: value, to });
    }
  }

  // --- values -------------------------------------------------------------------------------------------------

  #define(s: Instruction, next: Statement | undefined): void {
    if (!this.#usage.uses.get(s.id)) return;
    for (const how of ['surely', 'inIndex'] as const)
      if (this.#provesNotNegative(s, how)) this.#notNegative[how].add(s.id);
    if (this.#lazy.has(s.id)) return;
    const target = this.#plan.targets.get(s.id);
    const known = this.#constantOf(s) ?? this.#registerAlready(s);
    if (known) {
      this.#held.set(s.id, known);
      if (target !== undefined) this.#copyInto(this.#variable(target), s.id);
      return;
    }
    // A comparison that only the next statement asks for sets the flags there.
    if (isComparison(s) && s.type === 'i32' && this.#usage.uses.get(s.id) === 1 && asksFor(next, s.id)) {
      this.#pending = s;
      return;
    }
    const file = this.#usage.splatLoads.has(s.id) ? 'vector' : classOf(s.type);
    const dst = target === undefined ? this.#fresh(file) : this.#variable(target);
    this.#value(s, dst);
    this.#held.set(s.id, { register: dst });
  }

  #constantOf(s: Instruction): Held | undefined {
    switch (s.op) {
      case 'const':
        return s.type === 'i32' ? { int: s.imm! } : { vector: this.#repeat(floatBits(s.imm!)) };
      case 'iota':
        return { vector: this.#iota() };
      case 'splat': {
        const value = this.#usage.constants.get(s.args[0]);
        if (value === undefined) return undefined;
        return { vector: this.#repeat(s.type === 'vec' ? floatBits(value) : value) };
      }
      default:
        return undefined;
    }
  }

  /** A value that is in a register without an instruction. */
  #registerAlready(s: Instruction): Held | undefined {
    if (s.op === 'param') {
      if (s.type === 'i32') this.#extended.add(s.id);
      return { register: this.#parameter(s.imm!, s.type) };
    }
    if (s.op === 'get' && this.#plan.aliases.has(s.id)) {
      this.#aliased.add(s.id);
      return { register: this.#variable(s.args[0]) };
    }
    // The load has already put it into all lanes.
    if (s.op === 'splat' && this.#usage.splatLoads.has(s.args[0])) return this.#held.get(s.args[0]);
    return undefined;
  }

  #value(s: Instruction, dst: Virtual): void {
    switch (s.op) {
      case 'get':
        this.#copyRegister(dst, this.#variable(s.args[0]));
        return;
      case 'load':
        this.#load(s, dst);
        return;
      case 'splat':
        if (s.type === 'vec') {
          this.#emit({ op: 'vector', form: F.BROADCAST, dst, b: this.#register(s.args[0]) });
        } else {
          const low = this.#fresh('vector');
          this.#emit({ op: 'toVector', dst: low, a: this.#register(s.args[0]) });
          this.#emit({ op: 'vector', form: F.BROADCAST_INT, dst, b: low });
        }
        return;
      case 'firstLanes':
        this.#copyRegister(dst, this.#mask(s.args[0]));
        return;
      case 'hsum':
      case 'hmax':
      case 'hmin':
        this.#fold(s, dst);
        return;
      case 'fma':
      case 'mulAdd':
        this.#multiplyAdd(s, dst);
        return;
      case 'select':
        this.#choose(s, dst);
        return;
      case 'toInt':
        this.#toInt(s, dst);
        return;
      default:
        if (s.args.length > 0 && this.#kernel.types[s.args[0]] === 'i32') this.#scalarInt(s, dst);
        else this.#vector(s, dst);
    }
  }

  #load(s: Instruction, dst: Virtual): void {
    const from = this.#address(s.buffer!, s.args[0], s.imm!);
    if (s.args.length === 2) this.#emit({ op: 'maskLoad', dst, mask: this.#mask(s.args[1]), from });
    else if (this.#usage.splatLoads.has(s.id)) {
      const form = s.type === 'f32' ? F.BROADCAST : F.BROADCAST_INT;
      this.#emit({ op: 'vector', form, dst, b: from });
    } else if (s.type === 'i32') {
      this.#emit({ op: 'load', dst, from });
      this.#extended.add(s.id);
    } else {
      const form = s.type === 'f32' ? F.scalar(F.LOAD) : F.packed(F.LOAD);
      this.#emit({ op: 'vector', form, dst, b: from });
    }
  }

  #fold(s: Instruction, dst: Virtual): void {
    const opcode = F.ARITHMETIC[s.op === 'hsum' ? 'add' : s.op === 'hmax' ? 'max' : 'min'];
    let a = this.#register(s.args[0]);
    if (this.#lanes === 16) {
      const [upper, eight] = [this.#fresh('vector'), this.#fresh('vector')];
      this.#emit({ op: 'upperHalf', dst: upper, a, lanes: 16 });
      this.#emit({ op: 'vector', form: F.eight(opcode), dst: eight, a, b: upper });
      a = eight;
    }
    const [upper, four, high, two, odd] = Array.from({ length: 5 }, () => this.#fresh('vector'));
    this.#emit({ op: 'upperHalf', dst: upper, a, lanes: 8 });
    this.#emit({ op: 'vector', form: F.four(opcode), dst: four, a, b: upper });
    this.#emit({ op: 'vector', form: F.four(F.HIGH_TO_LOW), dst: high, a: four, b: four });
    this.#emit({ op: 'vector', form: F.four(opcode), dst: two, a: four, b: high });
    this.#emit({ op: 'vector', form: F.ODD_LANES, dst: odd, b: two });
    this.#emit({ op: 'vector', form: F.scalar(opcode), dst, a: two, b: odd });
  }

  #multiplyAdd(s: Instruction, dst: Virtual): void {
    let [x, y] = s.args;
    if (this.#isConstant(x)) [x, y] = [y, x];
    const c = this.#source(s.args[2]);
    // Only one operand may be in memory.
    const b = typeof c === 'number' ? this.#source(y) : this.#register(y);
    this.#emit({ op: 'fma', wide: s.type === 'vec', dst, a: this.#register(x), b, c });
  }

  #choose(s: Instruction, dst: Virtual): void {
    const [condition, yes, no] = s.args;
    if (this.#kernel.types[condition] === 'mask') {
      const mask = this.#register(condition);
      this.#emit({ op: 'blend', dst, a: this.#source(yes), b: this.#register(no), mask });
      return;
    }
    // Operands first: making them may change the flags.
    const a = this.#register(yes);
    const b = this.#register(no);
    const flags = this.#flags(condition);
    const op = s.type === 'f32' ? 'chooseFloat' : 'choose';
    if (flags.and === undefined) {
      this.#emit({ op, dst, a, b, condition: flags.condition });
      return;
    }
    const both = this.#fresh(classOf(s.type));
    this.#emit({ op, dst: both, a, b, condition: flags.condition });
    this.#emit({ op, dst, a: both, b, condition: flags.and });
  }

  /** cvttps2dq gives 2^31 for all it cannot do: NaN becomes 0 before, and what is too large is inverted after. */
  #toInt(s: Instruction, dst: Virtual): void {
    const wide = s.type === 'ivec';
    const kind = wide ? F.packed : F.four;
    const a = this.#register(s.args[0]);
    const [ordered, number, cut, over, result] = Array.from({ length: 5 }, () => this.#fresh('vector'));
    this.#emit({
      op: 'compareLanes',
      form: kind(F.COMPARE),
      dst: ordered,
      a,
      b: a,
      immediate: F.PREDICATE.ordered,
    });
    this.#emit({ op: 'vector', form: kind(F.AND), dst: number, a, b: ordered });
    this.#emit({ op: 'vector', form: F.form(0xf3, 1, F.CONVERT, wide ? 'full' : 128), dst: cut, b: number });
    const limit = { constant: this.#repeat(floatBits(2 ** 31)) };
    const immediate = F.PREDICATE.greaterOrEqual;
    this.#emit({ op: 'compareLanes', form: kind(F.COMPARE), dst: over, a: number, b: limit, immediate });
    this.#emit({ op: 'vector', form: kind(F.XOR), dst: wide ? dst : result, a: cut, b: over });
    if (!wide) this.#emit({ op: 'toGeneral', dst, a: result });
  }

  /** Operations whose operands are floats, vectors or masks. */
  #vector(s: Instruction, dst: Virtual): void {
    const from = this.#kernel.types[s.args[0]];
    const wide = from !== 'f32';
    const kind = wide ? F.packed : F.four;
    const binary = (
      form: VexForm,
      x: ValueId,
      y: ValueId,
      immediate?: number,
      op: 'vector' | 'compareLanes' = 'vector',
    ) =>
      this.#emit({
        op,
        form,
        dst,
        a: this.#register(x),
        b: this.#source(y),
        ...(immediate === undefined ? {} : { immediate }),
      });
    let [x, y] = s.args;
    if ((s.op === 'add' || s.op === 'mul') && this.#isConstant(x)) [x, y] = [y, x];
    const mask = (word: number) => ({ constant: this.#repeat(word) });
    if (from === 'ivec' && s.op in F.INTEGER) {
      binary(F.integer(...F.INTEGER[s.op]), x, y);
      return;
    }
    switch (s.op) {
      case 'add':
      case 'sub':
      case 'mul':
      case 'div':
      case 'min':
      case 'max':
        binary(wide ? F.packed(F.ARITHMETIC[s.op]) : F.scalar(F.ARITHMETIC[s.op]), x, y);
        return;
      case 'and':
      case 'or':
        binary(F.integer(...F.INTEGER[s.op]), x, y);
        return;
      case 'not':
        this.#emit({ op: 'vector', form: F.packed(F.XOR), dst, a: this.#register(x), b: mask(-1) });
        return;
      case 'neg':
        this.#emit({ op: 'vector', form: kind(F.XOR), dst, a: this.#register(x), b: mask(1 << 31) });
        return;
      case 'abs':
        this.#emit({ op: 'vector', form: kind(F.AND), dst, a: this.#register(x), b: mask(0x7fffffff) });
        return;
      case 'sqrt':
      case 'floor':
      case 'nearest': {
        const b = this.#register(x);
        const immediate = s.op === 'sqrt' ? {} : { immediate: F.ROUNDING[s.op] };
        const packed = s.op === 'sqrt' ? F.packed(F.SQRT) : F.ROUND;
        const single = s.op === 'sqrt' ? F.scalar(F.SQRT) : F.ROUND_SCALAR;
        if (wide) this.#emit({ op: 'vector', form: packed, dst, b, ...immediate });
        else this.#emit({ op: 'vector', form: single, dst, a: b, b, ...immediate });
        return;
      }
      case 'lt':
      case 'le':
      case 'eq':
        if (from === 'vec') binary(F.packed(F.COMPARE), x, y, F.PREDICATE[s.op], 'compareLanes');
        else if (from === 'f32') this.#truth(s, dst);
        else if (s.op === 'eq') binary(F.EQUAL, x, y, undefined, 'compareLanes');
        else if (s.op === 'lt') binary(F.GREATER, y, x, undefined, 'compareLanes');
        else {
          const greater = this.#fresh('vector');
          this.#emit({
            op: 'compareLanes',
            form: F.GREATER,
            dst: greater,
            a: this.#register(x),
            b: this.#source(y),
          });
          this.#emit({ op: 'vector', form: F.packed(F.XOR), dst, a: greater, b: mask(-1) });
        }
        return;
      case 'shl':
      case 'shr': {
        const extension = s.op === 'shl' ? F.SHIFT_LEFT : F.SHIFT_RIGHT;
        this.#emit({
          op: 'vectorShift',
          form: F.SHIFT,
          extension,
          dst,
          a: this.#register(x),
          immediate: s.imm!,
        });
        return;
      }
      case 'toFloat':
        this.#emit({ op: 'vector', form: F.packed(F.CONVERT), dst, b: this.#register(x) });
        return;
      case 'bitsToFloat':
      case 'bitsToInt':
        if (s.type === 'i32') this.#emit({ op: 'toGeneral', dst, a: this.#register(x) });
        else this.#copyRegister(dst, this.#register(x));
        return;
      default:
        throw new Error(`operation ${s.op} has no code for ${from}`);
    }
  }

  /** Operations whose operands are i32. */
  #scalarInt(s: Instruction, dst: Virtual): void {
    let [x, y] = s.args;
    switch (s.op) {
      case 'add':
      case 'mul':
      case 'and':
      case 'or':
        if (this.#constantInt(x) !== undefined) [x, y] = [y, x];
        this.#arithmetic(s.op, dst, x, y);
        return;
      case 'sub':
        this.#arithmetic('sub', dst, x, y);
        return;
      case 'div':
      case 'rem':
        this.#divide(s.op, dst, x, y);
        return;
      case 'min':
      case 'max': {
        const a = this.#register(x);
        const b = this.#register(y);
        this.#emit({ op: 'compare', a, b });
        const condition = s.op === 'min' ? CONDITION.less : CONDITION.greater;
        this.#emit({ op: 'choose', dst, a, b, condition });
        return;
      }
      case 'not':
        this.#emit({ op: 'compare', a: this.#register(x), b: { immediate: 0 } });
        this.#emit({ op: 'truth', dst, condition: CONDITION.equal });
        return;
      case 'lt':
      case 'le':
      case 'eq':
        this.#truth(s, dst);
        return;
      case 'shl':
      case 'shr':
        this.#emit({ op: s.op, dst, a: this.#register(x), immediate: s.imm! });
        return;
      case 'toFloat':
        this.#emit({ op: 'intToFloat', dst, a: this.#register(x) });
        return;
      case 'bitsToFloat':
        this.#emit({ op: 'toVector', dst, a: this.#register(x) });
        return;
      default:
        throw new Error(`operation ${s.op} has no code for i32`);
    }
  }

  #arithmetic(op: 'add' | 'sub' | 'mul' | 'and' | 'or', dst: Virtual, x: ValueId, y: ValueId): void {
    const constant = this.#constantInt(y);
    const power = constant === undefined ? -1 : powerOf(constant);
    const sum = op === 'mul' && constant !== undefined ? sumOfPowers(constant) : undefined;
    if (op === 'mul' && power >= 0) this.#emit({ op: 'shl', dst, a: this.#register(x), immediate: power });
    else if (sum) {
      const [shifted, both] = [this.#fresh('general'), this.#fresh('general')];
      const a = this.#register(x);
      this.#emit({ op: 'shl', dst: shifted, a, immediate: sum.high - sum.low });
      this.#emit({ op: 'add', dst: sum.low > 0 ? both : dst, a: shifted, b: a });
      if (sum.low > 0) this.#emit({ op: 'shl', dst, a: both, immediate: sum.low });
    } else {
      const b = constant === undefined ? this.#register(y) : { immediate: constant };
      this.#emit({ op, dst, a: this.#register(x), b });
    }
  }

  /** Truncating division; by a power of two with shifts, where a negative dividend is rounded up first. */
  #divide(op: 'div' | 'rem', dst: Virtual, x: ValueId, y: ValueId): void {
    const divisor = this.#constantInt(y);
    const power = divisor === undefined ? -1 : powerOf(divisor);
    const a = this.#register(x);
    if (power < 0) {
      this.#emit({ op, dst, a, b: this.#register(y) });
      return;
    }
    const low = { immediate: (divisor as number) - 1 };
    if (this.#notNegative.surely.has(x)) {
      if (op === 'div') this.#emit({ op: 'shr', dst, a, immediate: power });
      else this.#emit({ op: 'and', dst, a, b: low });
      return;
    }
    const [sign, bias, sum] = Array.from({ length: 3 }, () => this.#fresh('general'));
    this.#emit({ op: 'sar', dst: sign, a, immediate: 31 });
    this.#emit({ op: 'and', dst: bias, a: sign, b: low });
    this.#emit({ op: 'add', dst: sum, a, b: bias });
    if (op === 'div') {
      this.#emit({ op: 'sar', dst, a: sum, immediate: power });
      return;
    }
    const rest = this.#fresh('general');
    this.#emit({ op: 'and', dst: rest, a: sum, b: low });
    this.#emit({ op: 'sub', dst, a: rest, b: bias });
  }

  #truth(s: Instruction, dst: Virtual): void {
    this.#emit({ op: 'truth', dst, ...this.#compare(s) });
  }

  /** Sets the flags from a comparison; gives the conditions that must hold. */
  #compare(s: Instruction): { condition: Condition; and?: Condition } {
    const [x, y] = s.args;
    const op = s.op as Comparison;
    if (this.#kernel.types[x] === 'i32') {
      const constant = this.#constantInt(y);
      const b = constant === undefined ? this.#register(y) : { immediate: constant };
      this.#emit({ op: 'compare', a: this.#register(x), b });
      return { condition: { lt: CONDITION.less, le: CONDITION.lessOrEqual, eq: CONDITION.equal }[op] };
    }
    // comiss tells "above" apart from "unordered", but not "below": so b is compared to a.
    if (op === 'eq') {
      this.#emit({ op: 'compareFloats', a: this.#register(x), b: this.#source(y) });
      return { condition: CONDITION.equal, and: CONDITION.noParity };
    }
    this.#emit({ op: 'compareFloats', a: this.#register(y), b: this.#source(x) });
    return { condition: op === 'lt' ? CONDITION.above : CONDITION.aboveOrEqual };
  }

  /** Sets the flags so that the condition holds where the value is not 0. */
  #flags(id: ValueId): { condition: Condition; and?: Condition } {
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending?.id === id) return this.#compare(pending);
    this.#emit({ op: 'compare', a: this.#register(id), b: { immediate: 0 } });
    return { condition: CONDITION.notEqual };
  }

  // --- addresses ----------------------------------------------------------------------------------------------

  /** The address of an element: a pointer that holds all terms of the index but the last, then that one. */
  #address(buffer: number, index: ValueId, imm: number): Address {
    const { terms, constant } = this.#terms(index);
    const displacement = 4 * (constant + imm);
    const all = this.#made.get(pointerKey(buffer, terms));
    if (terms.length === 0 || all !== undefined) return { base: all ?? this.#buffer(buffer), displacement };
    const base = this.#pointer(buffer, terms.slice(0, -1));
    const last = terms[terms.length - 1];
    // A whole index is never negative; a term may be.
    const alone = terms.length === 1 && constant === 0;
    return { base, index: alone ? this.#register(last) : this.#wide(last), displacement };
  }

  /** The buffer's address plus these terms. */
  #pointer(buffer: number, terms: readonly ValueId[]): Virtual {
    if (terms.length === 0) return this.#buffer(buffer);
    const key = pointerKey(buffer, terms);
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const base = this.#pointer(buffer, terms.slice(0, -1));
    const index = this.#wide(terms[terms.length - 1]);
    const dst = this.#fresh('general');
    this.#emit({ op: 'pointer', dst, from: { base, index, displacement: 0 } });
    this.#made.set(key, dst);
    return dst;
  }

  /**
   * The terms of an index, those first that change in the fewest loops, and the sum of its constants. A constant with
   * which the sum would not fit a displacement is a term.
   */
  #terms(index: ValueId): { terms: ValueId[]; constant: number } {
    let constant = 0;
    // The access adds its offset, which is below 2^28 too, and each element is 4 bytes.
    const folds = (id: ValueId) => {
      const known = this.#usage.constants.get(id);
      if (known === undefined || Math.abs(constant + known) >= 2 ** 28) return false;
      constant += known;
      return true;
    };
    const changes = (sum: Instruction) => sum.args.some((a) => this.#aliased.has(a));
    const terms = termsOf(this.#usage, index, changes).filter((id) => !folds(id));
    return { terms, constant };
  }

  /** A register whose 64 bits are the value extended by its sign. */
  #wide(id: ValueId): Virtual {
    const register = this.#register(id);
    if (this.#extended.has(id) || this.#notNegative.inIndex.has(id)) return register;
    const key = `wide ${id}`;
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const dst = this.#fresh('general');
    this.#emit({ op: 'extend', dst, a: register });
    this.#made.set(key, dst);
    return dst;
  }

  #mask(count: ValueId): Virtual {
    const key = `mask ${count}`;
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const dst = this.#fresh('vector');
    const constant = this.#constantInt(count);
    if (constant !== undefined) {
      const lanes = Array.from({ length: this.#lanes }, (_, i) => (i < constant ? -1 : 0));
      this.#emit({ op: 'vector', form: F.packed(F.LOAD), dst, b: { constant: words(lanes) } });
    } else {
      const [low, all] = [this.#fresh('vector'), this.#fresh('vector')];
      this.#emit({ op: 'toVector', dst: low, a: this.#register(count) });
      this.#emit({ op: 'vector', form: F.BROADCAST_INT, dst: all, b: low });
      const numbers = { constant: this.#iota() };
      this.#emit({ op: 'compareLanes', form: F.GREATER, dst, a: all, b: numbers });
    }
    this.#made.set(key, dst);
    return dst;
  }

  // --- registers ----------------------------------------------------------------------------------------------

  #emit(m: Machine): void {
    this.#instructions.push(m);
  }

  #fresh(file: RegisterClass): Virtual {
    this.#classes.push(file);
    return this.#classes.length - 1;
  }

  #variable(id: ValueId): Virtual {
    let register = this.#variables.get(id);
    if (register === undefined) {
      register = this.#fresh(classOf(this.#kernel.types[id]));
      this.#variables.set(id, register);
    }
    return register;
  }

  #argument(offset: number, kind: Parameter['kind']): Virtual {
    const known = this.#byOffset.get(offset);
    if (known !== undefined) return known;
    const register = this.#fresh(kind === 'float' ? 'vector' : 'general');
    this.#byOffset.set(offset, register);
    this.#parameters.set(register, { offset, kind });
    return register;
  }

  #buffer(number: number): Virtual {
    return this.#argument(8 * number, 'address');
  }

  #parameter(number: number, type: ValueType): Virtual {
    return this.#argument(8 * (this.#kernel.buffers.length + number), type === 'f32' ? 'float' : 'int');
  }

  /** The register of a value; a constant gets one here. */
  #register(id: ValueId): Virtual {
    const held = this.#held.get(id);
    if (held && 'register' in held) return held.register;
    if (!held) {
      // A sum that so far was only part of addresses.
      const sum = this.#usage.sums.get(id);
      if (!sum) throw new Error(`value %${id} of kernel ${this.#kernel.name} is not there`);
      const dst = this.#fresh('general');
      this.#scalarInt(sum, dst);
      this.#held.set(id, { register: dst });
      return dst;
    }
    const dst = this.#fresh(classOf(this.#kernel.types[id]));
    this.#copyInto(dst, id);
    return dst;
  }

  /** The register of a value, or where its constant lies. */
  #source(id: ValueId): Source {
    const held = this.#held.get(id);
    return held && 'vector' in held ? { constant: held.vector } : this.#register(id);
  }

  #copyInto(dst: Virtual, id: ValueId): void {
    const held = this.#held.get(id);
    if (held && 'int' in held) this.#emit({ op: 'number', dst, immediate: held.int });
    else if (held && 'vector' in held) {
      if (held.vector.every((byte) => byte === 0)) this.#emit({ op: 'zero', dst });
      else {
        const form = this.#kernel.types[id] === 'f32' ? F.scalar(F.LOAD) : F.packed(F.LOAD);
        this.#emit({ op: 'vector', form, dst, b: { constant: held.vector } });
      }
    } else this.#copyRegister(dst, this.#register(id));
  }

  #copyRegister(dst: Virtual, a: Virtual): void {
    this.#emit({ op: this.#classes[dst] === 'general' ? 'move' : 'vectorMove', dst, a });
  }

  #iota(): Uint8Array {
    return words(Array.from({ length: this.#lanes }, (_, i) => i));
  }

  #repeat(word: number): Uint8Array {
    return words(new Array<number>(this.#lanes).fill(word));
  }

  #constantInt(id: ValueId): number | undefined {
    const held = this.#held.get(id);
    return held && 'int' in held ? held.int : undefined;
  }

  #isConstant(id: ValueId): boolean {
    const held = this.#held.get(id);
    return held !== undefined && 'vector' in held;
  }

  #provesNotNegative(s: Instruction, how: 'surely' | 'inIndex'): boolean {
    if (s.type !== 'i32') return false;
    const has = (id: ValueId) => this.#notNegative[how].has(id);
    switch (s.op) {
      case 'const':
        return s.imm! >= 0;
      case 'param':
        return s.imm! < 3;
      case 'add':
      case 'mul':
      case 'shl':
        return how === 'inIndex' && s.args.every(has);
      case 'div':
      case 'rem':
      case 'min':
        return s.args.every(has);
      case 'max':
      case 'and':
        return s.args.some(has);
      case 'shr':
        return s.imm! > 0 || has(s.args[0]);
      case 'select':
        return s.args.slice(1).every(has);
      case 'lt':
      case 'le':
      case 'eq':
      case 'not':
        return true;
      default:
        return false;
    }
  }
}

/**
 * The powers of two whose sum a positive constant is, where two are enough. Shifts and a sum take the place of its product:
 * on Intel's processors with AVX2 a multiplication waits in line with the multiply-adds, and what is loaded by its result
 * waits with it.
 */
function sumOfPowers(constant: number): { high: number; low: number } | undefined {
  const low = constant & -constant;
  const high = powerOf(constant - low);
  return constant > 0 && high >= 0 ? { high, low: powerOf(low) } : undefined;
}

function classOf(type: ValueType): RegisterClass {
  return type === 'i32' ? 'general' : 'vector';
}

function isComparison(s: Instruction): boolean {
  return s.op === 'lt' || s.op === 'le' || s.op === 'eq';
}

/** Whether a statement takes this value as its condition. */
function asksFor(s: Statement | undefined, id: ValueId): boolean {
  if (s?.kind === 'if') return s.condition === id;
  return s?.kind === 'value' && s.op === 'select' && s.args[0] === id && s.args[1] !== id && s.args[2] !== id;
}

function pointerKey(buffer: number, terms: readonly ValueId[]): string {
  return `pointer ${buffer} ${terms.join(' ')}`;
}

/** n where the number is 2^n, else -1. */
function powerOf(value: number): number {
  return value > 0 && (value & (value - 1)) === 0 ? 31 - Math.clz32(value) : -1;
}

function floatBits(value: number): number {
  return new Int32Array(new Float32Array([value]).buffer)[0];
}

function words(values: readonly number[]): Uint8Array {
  return new Uint8Array(new Int32Array(values).buffer);
}
