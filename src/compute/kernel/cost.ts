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

/**
 * How the turns of a loop differ: not at all; at a few bounds, such as the last one's tail, between which all turns are the
 * same; or in any way, a table's for instance.
 */
type LoopKind = 'even' | 'stepped' | 'uneven';

/**
 * Operations whose result, where it is the same at both ends and in the middle of a range of a counter, is the same all
 * over it. Of others that must hold of what they are applied to.
 */
const PLAIN: ReadonlySet<Op> = new Set([
  'add',
  'sub',
  'mul',
  'min',
  'max',
  'lt',
  'le',
  'and',
  'or',
  'not',
  'shl',
]);

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
  readonly #kinds = new Map<Loop, LoopKind>();
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

  kindOf(s: Loop): LoopKind {
    let kind = this.#kinds.get(s);
    if (kind === undefined) {
      kind = this.#kind(s);
      this.#kinds.set(s, kind);
    }
    return kind;
  }

  #kind(s: Loop): LoopKind {
    const deciders = this.#decidersOf(s.body);
    const set = new Set<ValueId>();
    walk(s.body, (t) => {
      if (t.kind === 'set') set.add(t.variable);
    });
    if ([...deciders].some((id) => set.has(id))) return 'uneven';
    if (!deciders.has(s.counter)) return 'even';
    const changes = (id: ValueId): boolean =>
      id === s.counter || (this.#definitions.get(id)?.args.some(changes) ?? false);
    const changing = [...deciders].filter((id) => id !== s.counter && changes(id));
    return changing.some((id) => this.#definitions.get(id)!.op === 'load') ? 'uneven' : 'stepped';
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
  /** Of what operations that are not `PLAIN` were applied to. */
  #hash = 0;

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
    const kind = this.#analysis.kindOf(s);
    const turn = (i: number): void => {
      this.#values.set(s.counter, start + i * s.step);
      this.#block(s.body);
    };
    if (kind === 'uneven' || turns < 4) {
      for (let i = 0; i < turns; i++) turn(i);
      return;
    }
    const before = this.#counted();
    const hash = this.#hash;
    const costOfTurn = (i: number): Turn => {
      this.#hash = 0;
      turn(i);
      const cost = this.#counted().map((value, j) => value - before[j]);
      this.#count(before);
      return { cost, hash: this.#hash };
    };
    const first = costOfTurn(0);
    const sum = kind === 'even' ? first.cost.map((x) => turns * x) : sumOfSteps(costOfTurn, first, turns);
    this.#count(before.map((value, j) => value + sum[j]));
    this.#hash = Math.imul(hash, 31) + this.#hash;
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
    if (!PLAIN.has(s.op))
      for (let i = 0; i < s.args.length; i++) this.#hash = Math.imul(this.#hash, 31) + at(i);
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

interface Turn {
  readonly cost: readonly number[];
  readonly hash: number;
}

/** The sum over all turns, of which neighbours are the same but at bounds: between equal turns all are taken for equal. */
function sumOfSteps(turn: (i: number) => Turn, first: Turn, turns: number): number[] {
  const same = (a: Turn, b: Turn) => a.hash === b.hash && a.cost.every((x, j) => x === b.cost[j]);
  /** Of the turns from `low` up to, and without, `high`. */
  const between = (low: number, high: number, atLow: Turn, atHigh: Turn): readonly number[] => {
    if (high - low === 1) return atLow.cost;
    const middle = (low + high) >> 1;
    const atMiddle = turn(middle);
    if (same(atLow, atMiddle) && same(atMiddle, atHigh)) return atLow.cost.map((x) => x * (high - low));
    const right = between(middle, high, atMiddle, atHigh);
    return between(low, middle, atLow, atMiddle).map((x, j) => x + right[j]);
  };
  const last = turn(turns - 1);
  return between(0, turns - 1, first, last).map((x, j) => x + last.cost[j]);
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

export const times = (a: Cost, n: number): Cost => ({
  flops: a.flops * n,
  loaded: a.loaded * n,
  stored: a.stored * n,
  exact: a.exact,
});
