// What a launch of a kernel costs: floating-point operations and bytes, counted from its intermediate form.
//
// Only the integers that decide loops and conditions are computed. A loop whose turns all cost the same is counted once
// and multiplied, so that a matrix product of a billion operations is counted in no time.
import { laneOperation } from './arithmetic.js';
import type { Instruction, Kernel, Op, Statement, ValueId } from './ir.js';

export interface Cost {
  /** Additions, multiplications, divisions and the like; a multiply-add counts as two. Lanes of a tail count as whole. */
  readonly flops: number;
  /** Bytes that instructions load and store, from whatever cache or memory. */
  readonly loaded: number;
  readonly stored: number;
  /** False where a condition on floats was met: the dearer side was counted each time. */
  readonly exact: boolean;
}

export const NOTHING: Cost = { flops: 0, loaded: 0, stored: 0, exact: true };

const FLOPS: Partial<Record<Op, number>> = {
  ...{ add: 1, sub: 1, mul: 1, div: 1, min: 1, max: 1, sqrt: 1, floor: 1, nearest: 1 },
  ...{ fma: 2, mulAdd: 2, hsum: 1, hmax: 1, hmin: 1 },
};

/**
 * Counts one call.
 * @param scalars begin, end, part and the kernel's other scalars
 * @param read an element of an i32 buffer, for loops and conditions that depend on it
 */
export function costOf(
  kernel: Kernel,
  scalars: readonly number[],
  read: (buffer: number, index: number) => number,
): Cost {
  const known = analyses.get(kernel) ?? new Analysis(kernel);
  analyses.set(kernel, known);
  return new Counter(known, scalars, read).count();
}

const analyses = new WeakMap<Kernel, Analysis>();

type Block = readonly Statement[];
type Loop = Extract<Statement, { kind: 'loop' }>;

/** What a block costs each time that it is run, and the statements of it that decide what else is run. */
interface BlockPlan {
  readonly flops: number;
  readonly loaded: number;
  readonly stored: number;
  readonly deciding: readonly Statement[];
}

/** What holds for every call of a kernel. */
class Analysis {
  readonly kernel: Kernel;
  readonly #definitions = new Map<ValueId, Instruction>();
  /** What each variable is ever set to. */
  readonly #sets = new Map<ValueId, ValueId[]>();
  readonly #decisive: ReadonlySet<ValueId>;
  readonly #even = new Map<Loop, boolean>();
  readonly #plans = new Map<Block, BlockPlan>();

  constructor(kernel: Kernel) {
    this.kernel = kernel;
    walk(kernel.body, (s) => {
      if (s.kind === 'value') this.#definitions.set(s.id, s);
      if (s.kind === 'var') this.#sets.set(s.id, [s.init]);
      if (s.kind === 'set') this.#sets.get(s.variable)?.push(s.value);
    });
    this.#decisive = this.#decidersOf(kernel.body);
  }

  planOf(block: Block): BlockPlan {
    let plan = this.#plans.get(block);
    if (!plan) {
      plan = this.#plan(block);
      this.#plans.set(block, plan);
    }
    return plan;
  }

  #plan(block: Block): BlockPlan {
    const { types, lanes } = this.kernel;
    const bytes = (id: ValueId) => (types[id] === 'f32' || types[id] === 'i32' ? 4 : 4 * lanes);
    let [flops, loaded, stored] = [0, 0, 0];
    const deciding: Statement[] = [];
    for (const s of block) {
      if (s.kind === 'store') stored += bytes(s.value);
      if (s.kind === 'value') {
        const from = types[s.args[0]];
        const width = from === 'vec' ? lanes : from === 'f32' ? 1 : 0;
        if (s.op === 'load') loaded += bytes(s.id);
        else flops += (FLOPS[s.op] ?? 0) * width;
      }
      if (this.#decides(s)) deciding.push(s);
    }
    return { flops, loaded, stored, deciding };
  }

  #decides(s: Statement): boolean {
    if (s.kind === 'value' || s.kind === 'var') return this.#decisive.has(s.id);
    if (s.kind === 'set') return this.#decisive.has(s.variable);
    return s.kind === 'loop' || s.kind === 'if';
  }

  /** Whether nothing that decides inside the loop's body changes from turn to turn. */
  isEven(s: Loop): boolean {
    let even = this.#even.get(s);
    if (even === undefined) {
      const deciders = this.#decidersOf(s.body);
      const set = new Set<ValueId>();
      walk(s.body, (t) => {
        if (t.kind === 'set') set.add(t.variable);
      });
      even = !deciders.has(s.counter) && ![...deciders].some((id) => set.has(id));
      this.#even.set(s, even);
    }
    return even;
  }

  /** Values and variables on which loops and conditions of a block depend. */
  #decidersOf(block: Block): ReadonlySet<ValueId> {
    const found = new Set<ValueId>();
    const open: ValueId[] = [];
    walk(block, (s) => {
      if (s.kind === 'loop') open.push(s.start, s.end);
      if (s.kind === 'if') open.push(s.condition);
    });
    for (let id = open.pop(); id !== undefined; id = open.pop()) {
      if (found.has(id)) continue;
      found.add(id);
      open.push(...(this.#definitions.get(id)?.args ?? []), ...(this.#sets.get(id) ?? []));
    }
    return found;
  }
}

class Counter {
  readonly #analysis: Analysis;
  readonly #scalars: readonly number[];
  readonly #read: (buffer: number, index: number) => number;
  readonly #values = new Map<ValueId, number>();
  #flops = 0;
  #loaded = 0;
  #stored = 0;
  #exact = true;

  constructor(
    analysis: Analysis,
    scalars: readonly number[],
    read: (buffer: number, index: number) => number,
  ) {
    this.#analysis = analysis;
    this.#scalars = scalars;
    this.#read = read;
  }

  count(): Cost {
    this.#block(this.#analysis.kernel.body);
    return { flops: this.#flops, loaded: this.#loaded, stored: this.#stored, exact: this.#exact };
  }

  #block(block: Block): void {
    const { flops, loaded, stored, deciding } = this.#analysis.planOf(block);
    this.#flops += flops;
    this.#loaded += loaded;
    this.#stored += stored;
    for (const s of deciding) this.#decide(s);
  }

  #decide(s: Statement): void {
    if (s.kind === 'value') this.#values.set(s.id, this.#evaluate(s));
    else if (s.kind === 'var') this.#copy(s.id, s.init);
    else if (s.kind === 'set') this.#copy(s.variable, s.value);
    else if (s.kind === 'loop') this.#loop(s);
    else if (s.kind === 'if') this.#if(s);
  }

  #if(s: Extract<Statement, { kind: 'if' }>): void {
    const holds = this.#values.get(s.condition);
    if (holds !== undefined && !Number.isNaN(holds)) {
      this.#block(holds !== 0 ? s.yes : s.no);
      return;
    }
    this.#exact = false;
    const start = this.#counted();
    this.#block(s.yes);
    const yes = this.#counted();
    this.#count(start);
    this.#block(s.no);
    const no = this.#counted();
    if (yes[0] + yes[1] >= no[0] + no[1]) this.#count(yes);
  }

  #loop(s: Loop): void {
    const start = this.#values.get(s.start)!;
    const end = this.#values.get(s.end)!;
    const turns = Math.max(0, Math.ceil((end - start) / s.step));
    if (turns === 0) return;
    if (this.#analysis.isEven(s)) {
      const before = this.#counted();
      this.#values.set(s.counter, start);
      this.#block(s.body);
      const after = this.#counted();
      this.#count(after.map((value, i) => before[i] + turns * (value - before[i])));
      return;
    }
    for (let i = start; i < end; i += s.step) {
      this.#values.set(s.counter, i);
      this.#block(s.body);
    }
  }

  #counted(): number[] {
    return [this.#flops, this.#loaded, this.#stored];
  }
  #count([flops, loaded, stored]: readonly number[]): void {
    this.#flops = flops;
    this.#loaded = loaded;
    this.#stored = stored;
  }

  #copy(variable: ValueId, value: ValueId): void {
    const known = this.#values.get(value);
    if (known === undefined) this.#values.delete(variable);
    else this.#values.set(variable, known);
  }

  /** An i32, or NaN for what depends on floats. */
  #evaluate(s: Instruction): number {
    const at = (i: number) => this.#values.get(s.args[i]) ?? Number.NaN;
    switch (s.op) {
      case 'const':
        return s.imm!;
      case 'param':
        return this.#scalars[s.imm!];
      case 'get':
        return at(0);
      case 'load':
        return s.type === 'i32' ? this.#read(s.buffer!, at(0) + s.imm!) : Number.NaN;
      case 'div':
        return Math.trunc(at(0) / at(1));
      case 'rem':
        return at(0) % at(1);
      case 'shl':
        return at(0) << s.imm!;
      case 'shr':
        return at(0) >>> s.imm!;
      case 'select':
        return at(0) !== 0 ? at(1) : at(2);
      default: {
        if (s.type !== 'i32' || s.args.some((_, i) => Number.isNaN(at(i)))) return Number.NaN;
        return laneOperation(s.op, 'i32', true)?.(at(0), at(1), at(2)) ?? Number.NaN;
      }
    }
  }
}

function walk(block: readonly Statement[], visit: (s: Statement) => void): void {
  for (const s of block) {
    visit(s);
    if (s.kind === 'loop') walk(s.body, visit);
    if (s.kind === 'if') {
      walk(s.yes, visit);
      walk(s.no, visit);
    }
  }
}

export const plus = (a: Cost, b: Cost): Cost => ({
  flops: a.flops + b.flops,
  loaded: a.loaded + b.loaded,
  stored: a.stored + b.stored,
  exact: a.exact && b.exact,
});
