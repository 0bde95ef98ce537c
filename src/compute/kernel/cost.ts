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
  return new Counter(kernel, scalars, read).block(kernel.body);
}

class Counter {
  readonly #kernel: Kernel;
  readonly #scalars: readonly number[];
  readonly #read: (buffer: number, index: number) => number;
  readonly #definitions = new Map<ValueId, Instruction>();
  /** What each variable is ever set to. */
  readonly #sets = new Map<ValueId, ValueId[]>();
  readonly #decisive: ReadonlySet<ValueId>;
  readonly #even = new Map<Statement, boolean>();
  readonly #values = new Map<ValueId, number>();

  constructor(kernel: Kernel, scalars: readonly number[], read: (buffer: number, index: number) => number) {
    this.#kernel = kernel;
    this.#scalars = scalars;
    this.#read = read;
    this.#index(kernel.body);
    this.#decisive = this.#decidersOf(kernel.body);
  }

  block(block: readonly Statement[]): Cost {
    let sum = NOTHING;
    for (const s of block) sum = plus(sum, this.#statement(s));
    return sum;
  }

  #statement(s: Statement): Cost {
    switch (s.kind) {
      case 'value':
        if (this.#decisive.has(s.id)) this.#values.set(s.id, this.#evaluate(s));
        return this.#costOfValue(s);
      case 'var':
        this.#copy(s.id, s.init);
        return NOTHING;
      case 'set':
        this.#copy(s.variable, s.value);
        return NOTHING;
      case 'prefetch':
        return NOTHING;
      case 'store':
        return { ...NOTHING, stored: this.#bytes(s.value) };
      case 'if': {
        const holds = this.#values.get(s.condition);
        if (holds === undefined || Number.isNaN(holds)) {
          const [yes, no] = [this.block(s.yes), this.block(s.no)];
          return { ...(yes.flops + yes.loaded >= no.flops + no.loaded ? yes : no), exact: false };
        }
        return this.block(holds !== 0 ? s.yes : s.no);
      }
      case 'loop':
        return this.#loop(s);
    }
  }

  #loop(s: Extract<Statement, { kind: 'loop' }>): Cost {
    const start = this.#values.get(s.start)!;
    const end = this.#values.get(s.end)!;
    const turns = Math.max(0, Math.ceil((end - start) / s.step));
    if (turns === 0) return NOTHING;
    if (this.#isEven(s)) {
      this.#values.set(s.counter, start);
      return times(this.block(s.body), turns);
    }
    let sum = NOTHING;
    for (let i = start; i < end; i += s.step) {
      this.#values.set(s.counter, i);
      sum = plus(sum, this.block(s.body));
    }
    return sum;
  }

  /** Whether nothing that decides inside the loop's body changes from turn to turn. */
  #isEven(s: Extract<Statement, { kind: 'loop' }>): boolean {
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
  #decidersOf(block: readonly Statement[]): ReadonlySet<ValueId> {
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

  #index(block: readonly Statement[]): void {
    walk(block, (s) => {
      if (s.kind === 'value') this.#definitions.set(s.id, s);
      if (s.kind === 'var') this.#sets.set(s.id, [s.init]);
      if (s.kind === 'set') this.#sets.get(s.variable)?.push(s.value);
    });
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

  #costOfValue(s: Instruction): Cost {
    if (s.op === 'load') return { ...NOTHING, loaded: this.#bytes(s.id) };
    const from = this.#kernel.types[s.args[0]];
    const lanes = from === 'vec' ? this.#kernel.lanes : from === 'f32' ? 1 : 0;
    return { ...NOTHING, flops: (FLOPS[s.op] ?? 0) * lanes };
  }

  #bytes(id: ValueId): number {
    const type = this.#kernel.types[id];
    return type === 'f32' || type === 'i32' ? 4 : 4 * this.#kernel.lanes;
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

const times = (a: Cost, n: number): Cost => ({
  flops: a.flops * n,
  loaded: a.loaded * n,
  stored: a.stored * n,
  exact: a.exact,
});
