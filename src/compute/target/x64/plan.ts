// What selection decides about a block beforehand: which reads of variables need no copy, and which results may be
// written straight into a variable.
import type { Instruction, Kernel, Statement, ValueId } from '../../kernel/ir.js';
import { operandsOf, type Usage } from '../usage.js';

export interface BlockPlan {
  /** Values read from a variable that is not set before their last use. */
  readonly aliases: ReadonlySet<ValueId>;
  /** Values that only become the variable's next content, which nobody reads in between: value to variable. */
  readonly targets: ReadonlyMap<ValueId, ValueId>;
}

/** Where, by statement of the block, values are used and variables touched; what lies in nested blocks counts too. */
export function planBlock(block: readonly Statement[], usage: Usage): BlockPlan {
  const lastUse = new Map<ValueId, number>();
  const sets = new Map<ValueId, number[]>();
  /** Statements with blocks inside them that set the variable. */
  const inner = new Map<ValueId, number[]>();
  const reads = new Map<ValueId, number[]>();
  const definedAt = new Map<ValueId, number>();
  const note = (map: Map<ValueId, number[]>, id: ValueId, at: number) => {
    const list = map.get(id);
    if (list) list.push(at);
    else map.set(id, [at]);
  };
  const visit = (s: Statement, at: number, nested: boolean) => {
    for (const id of operandsOf(s)) lastUse.set(id, at);
    if (s.kind === 'value' && s.op === 'get') note(reads, s.args[0], at);
    if (s.kind === 'set') note(nested ? inner : sets, s.variable, at);
    if (s.kind === 'loop') for (const t of s.body) visit(t, at, true);
    if (s.kind === 'if') for (const t of [...s.yes, ...s.no]) visit(t, at, true);
  };
  block.forEach((s, at) => {
    visit(s, at, false);
    if (s.kind === 'value') definedAt.set(s.id, at);
  });

  const aliases = new Set<ValueId>();
  const aliasesOf = new Map<ValueId, number[]>();
  block.forEach((s, at) => {
    if (s.kind !== 'value' || s.op !== 'get') return;
    const variable = s.args[0];
    const last = lastUse.get(s.id) ?? at;
    const changed =
      (sets.get(variable) ?? []).some((i) => i > at && i < last) ||
      (inner.get(variable) ?? []).some((i) => i > at && i <= last);
    if (changed) return;
    aliases.add(s.id);
    note(aliasesOf, variable, last);
  });

  const targets = new Map<ValueId, ValueId>();
  block.forEach((s, at) => {
    if (s.kind !== 'set' && s.kind !== 'var') return;
    const [variable, value] = s.kind === 'set' ? [s.variable, s.value] : [s.id, s.init];
    const from = definedAt.get(value);
    if (from === undefined || usage.uses.get(value) !== 1) return;
    const definition = block[from];
    if (definition.kind !== 'value' || definition.op === 'get' || definition.op === 'param') return;
    const between = (list: readonly number[] | undefined) => (list ?? []).some((i) => i > from && i < at);
    const stale = (aliasesOf.get(variable) ?? []).some((last) => last > from && last <= at);
    if (between(reads.get(variable)) || between(sets.get(variable)) || between(inner.get(variable))) return;
    if (!stale) targets.set(value, variable);
  });
  return { aliases, targets };
}

/** Sums that serve only as indices, or in such sums: addresses take their terms, so they need not be computed. */
export function indexSums(kernel: Kernel, usage: Usage): ReadonlySet<ValueId> {
  const other = new Set<ValueId>();
  const reads = new Set<ValueId>();
  const visit = (block: readonly Statement[]) => {
    for (const s of block) {
      if (s.kind === 'value' && s.op === 'get') reads.add(s.id);
      const index =
        s.kind === 'store' || s.kind === 'prefetch'
          ? s.index
          : s.kind === 'value' && s.op === 'load'
            ? s.args[0]
            : undefined;
      const operands = [...operandsOf(s)];
      if (index !== undefined) operands.splice(operands.indexOf(index), 1);
      if (!(s.kind === 'value' && usage.sums.has(s.id))) for (const id of operands) other.add(id);
      if (s.kind === 'loop') visit(s.body);
      if (s.kind === 'if') {
        visit(s.yes);
        visit(s.no);
      }
    }
  };
  visit(kernel.body);
  // A variable may have changed by the time of the access.
  const lasting = ([, sum]: [ValueId, Instruction]) => !sum.args.some((a) => reads.has(a));
  const lazy = new Set([...usage.sums].filter((s) => !other.has(s[0]) && lasting(s)).map(([id]) => id));
  // From the last sum to the first: a sum within one that is computed is computed.
  for (const id of [...usage.sums.keys()].reverse()) {
    if (!lazy.has(id)) for (const a of usage.sums.get(id)!.args) lazy.delete(a);
  }
  return lazy;
}
