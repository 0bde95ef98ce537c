// How a kernel uses its values: what code generators ask before they choose a place for each.
import type { Instruction, Kernel, Statement, ValueId } from '../kernel/ir.js';

export interface Usage {
  /** Uses of each value, as operand, address, condition or bound. */
  readonly uses: ReadonlyMap<ValueId, number>;
  /** Values used exactly once, in the very block that defines them. */
  readonly onceInBlock: ReadonlySet<ValueId>;
  /** Scalar loads whose every use is a splat, so that they can load into all lanes. */
  readonly splatLoads: ReadonlySet<ValueId>;
  /** Scalar constants. */
  readonly constants: ReadonlyMap<ValueId, number>;
  /** The instructions that add two i32. */
  readonly sums: ReadonlyMap<ValueId, Instruction>;
  /** How many loops around its use may change a value: 0 for one that stays the same throughout the call. */
  readonly depth: ReadonlyMap<ValueId, number>;
}

export function usageOf(kernel: Kernel): Usage {
  const uses = new Map<ValueId, number>();
  const constants = new Map<ValueId, number>();
  const home = new Map<ValueId, readonly Statement[]>();
  const away = new Set<ValueId>();
  const loads: Instruction[] = [];
  const splats = new Map<ValueId, number>();

  const sums = new Map<ValueId, Instruction>();
  const depth = new Map<ValueId, number>();

  const visit = (block: readonly Statement[], loops: number) => {
    const use = (id: ValueId) => {
      uses.set(id, (uses.get(id) ?? 0) + 1);
      if (home.get(id) !== block) away.add(id);
    };
    for (const s of block) {
      for (const id of operandsOf(s)) use(id);
      if (s.kind === 'value') {
        home.set(s.id, block);
        if (s.op === 'const') constants.set(s.id, s.imm!);
        if (s.op === 'add' && s.type === 'i32') sums.set(s.id, s);
        const fixed = s.op !== 'load' && s.op !== 'get';
        depth.set(s.id, fixed ? Math.max(0, ...s.args.map((id) => depth.get(id)!)) : loops);
        if (s.op === 'load' && (s.type === 'f32' || s.type === 'i32')) loads.push(s);
        if (s.op === 'splat') splats.set(s.args[0], (splats.get(s.args[0]) ?? 0) + 1);
      } else if (s.kind === 'loop') {
        depth.set(s.counter, loops + 1);
        visit(s.body, loops + 1);
      } else if (s.kind === 'if') {
        visit(s.yes, loops);
        visit(s.no, loops);
      }
    }
  };
  visit(kernel.body, 0);

  const once = [...uses].filter(([id, count]) => count === 1 && !away.has(id)).map(([id]) => id);
  const splatLoads = loads.filter((s) => splats.get(s.id) === uses.get(s.id)).map((s) => s.id);
  return { uses, onceInBlock: new Set(once), splatLoads: new Set(splatLoads), constants, sums, depth };
}

/**
 * The terms of an index, constants among them, those first that change in the fewest loops. A sum within one loop is one
 * term, and so is one that must stay `whole`.
 */
export function termsOf(
  { sums, depth, constants }: Usage,
  index: ValueId,
  whole: (sum: Instruction) => boolean = () => false,
): ValueId[] {
  const terms: ValueId[] = [];
  const split = (id: ValueId, room: number) => {
    const sum = sums.get(id);
    const apart = sum?.args.some((a) => depth.get(a)! < depth.get(id)! || constants.has(a));
    if (!sum || !apart || room === 0 || whole(sum)) terms.push(id);
    else for (const a of sum.args) split(a, room - 1);
  };
  split(index, 4);
  return terms.sort((a, b) => depth.get(a)! - depth.get(b)!);
}

/** The values and variables that a statement itself reads or sets, without those of blocks inside it. */
export function operandsOf(s: Statement): readonly ValueId[] {
  switch (s.kind) {
    case 'value':
      return s.args;
    case 'var':
      return [s.init];
    case 'set':
      return [s.variable, s.value];
    case 'store':
      return s.count === undefined ? [s.index, s.value] : [s.index, s.value, s.count];
    case 'prefetch':
      return [s.index];
    case 'loop':
      return [s.start, s.end];
    case 'if':
      return [s.condition];
  }
}
