// Innermost loops, several turns at a time: what a turn costs beside its work (the counter, the jump, its addresses) is paid
// once for all of them. A core that another thread shares has only half of the instructions that it takes up in a cycle.
//
// Values keep their order, so results are the same bits. An index that grows by a constant from turn to turn is computed for
// the first of them, and the distance of the others is part of their addresses.

import type { Instruction, Kernel, Statement, ValueId, ValueType } from '../../kernel/ir.js';
import { usageOf } from '../usage.js';

type Plain = Exclude<Statement, { kind: 'loop' | 'if' }>;
/** A loop with none inside it. */
type Loop = Omit<Extract<Statement, { kind: 'loop' }>, 'body'> & { readonly body: readonly Plain[] };

/** Most turns at a time. */
const TURNS = 4;
/** Most operations in all of them. */
const SIZE = 80;
/** Larger distances may not fit into an address together with what else is in it, nor into an i32. */
const FAR = 2 ** 20;

/** The same kernel with its innermost loops unrolled. */
export function unroll(kernel: Kernel): Kernel {
  const types = [...kernel.types];
  const { constants } = usageOf(kernel);
  const body = block(kernel.body, { types, constants });
  return { ...kernel, body, types };
}

interface Context {
  readonly types: ValueType[];
  readonly constants: ReadonlyMap<ValueId, number>;
}

function block(statements: readonly Statement[], context: Context): readonly Statement[] {
  return statements.flatMap((s): readonly Statement[] => {
    if (s.kind === 'if') return [{ ...s, yes: block(s.yes, context), no: block(s.no, context) }];
    if (s.kind !== 'loop') return [s];
    return isInnermost(s) ? unrolled(s, context) : [{ ...s, body: block(s.body, context) }];
  });
}

function isInnermost(loop: Extract<Statement, { kind: 'loop' }>): loop is Loop {
  return loop.body.every((s) => s.kind !== 'loop' && s.kind !== 'if');
}

/** The loop, of which most turns are taken several at a time. */
function unrolled(loop: Loop, context: Context): readonly Statement[] {
  const slopeOf = slopesOf(loop, context.constants);
  // An access of no lanes may have any index: it says nothing of those of later turns that have some.
  const varies = (id: ValueId | undefined) => id !== undefined && slopeOf(id) !== 0;
  if (loop.body.some((s) => varies(s.kind === 'store' ? s.count : isLoad(s) ? s.args[1] : undefined)))
    return [loop];
  const turns = turnsOf(loop, slopeOf, context.constants);
  const stride = turns * loop.step;
  if (turns < 2 || stride > FAR || (stride & (stride - 1)) !== 0) return [loop];

  const { types } = context;
  const define = (type: ValueType): ValueId => types.push(type) - 1;
  const out: Statement[] = [];
  const emit = (op: Instruction['op'], args: readonly ValueId[], imm?: number): ValueId => {
    const id = define('i32');
    out.push({ kind: 'value', id, op, type: 'i32', args, ...(imm === undefined ? {} : { imm }) });
    return id;
  };
  // start + (max(0, end - start) rounded up to whole turns, then down to the stride). A distance that is no i32 gives 0: all
  // turns are taken one by one.
  const last = emit('max', [loop.end, loop.start]);
  const span = emit('max', [emit('sub', [last, loop.start]), emit('const', [], 0)]);
  const rounded = emit('and', [
    emit('add', [span, emit('const', [], loop.step - 1)]),
    emit('const', [], -stride),
  ]);
  const whole = emit('add', [loop.start, rounded]);
  const counter = define('i32');
  const body: Statement[] = [];
  const first = new Map<ValueId, ValueId>([[loop.counter, counter]]);
  for (let turn = 0; turn < turns; turn++) turnOf(turn, loop, types, { slopeOf, first, define, body });
  out.push({ kind: 'loop', counter, start: loop.start, end: whole, step: stride, body });
  const trips = tripsOf(loop, context.constants);
  if (trips === undefined || trips % turns !== 0) out.push({ ...loop, start: whole });
  return out;
}

function isLoad(s: Plain): s is Instruction {
  return s.kind === 'value' && s.op === 'load';
}

/** How often a loop between constants turns, where their distance is an i32. */
function tripsOf({ start, end, step }: Loop, constants: ReadonlyMap<ValueId, number>): number | undefined {
  const [from, to] = [constants.get(start), constants.get(end)];
  if (from === undefined || to === undefined || to - from >= 2 ** 31) return undefined;
  return Math.max(0, Math.ceil((to - from) / step));
}

function turnsOf(loop: Loop, slopeOf: SlopeOf, constants: ReadonlyMap<ValueId, number>): number {
  const isWork = (s: Plain) =>
    s.kind === 'store' ||
    s.kind === 'prefetch' ||
    (s.kind === 'value' &&
      s.op !== 'get' &&
      s.op !== 'const' &&
      s.op !== 'splat' &&
      slopeOf(s.id) === undefined);
  const size = loop.body.filter(isWork).length;
  const trips = tripsOf(loop, constants) ?? TURNS;
  let turns = TURNS;
  while (turns > 1 && (turns * size > SIZE || turns > trips)) turns /= 2;
  return turns;
}

interface Turns {
  readonly slopeOf: SlopeOf;
  /** What stands for a value of the loop in the first turn. */
  readonly first: Map<ValueId, ValueId>;
  define(type: ValueType): ValueId;
  readonly body: Statement[];
}

/** Appends one turn of the loop's body. */
function turnOf(
  turn: number,
  loop: Loop,
  types: readonly ValueType[],
  { slopeOf, first, define, body }: Turns,
): void {
  const names = turn === 0 ? first : new Map<ValueId, ValueId>();
  const ahead = (id: ValueId) => turn * (slopeOf(id) ?? 0);
  const name = (id: ValueId): ValueId => {
    const known = names.get(id);
    if (known !== undefined) return known;
    const base = first.get(id);
    if (base === undefined || slopeOf(id) === undefined) return id;
    if (ahead(id) === 0) return base;
    const [distance, sum] = [define('i32'), define('i32')];
    body.push({ kind: 'value', id: distance, op: 'const', type: 'i32', args: [], imm: ahead(id) });
    body.push({ kind: 'value', id: sum, op: 'add', type: 'i32', args: [base, distance] });
    names.set(id, sum);
    return sum;
  };
  /** An index as the first turn's and a distance from it. */
  const place = (id: ValueId, imm = 0): [ValueId, number] => {
    const base = first.get(id);
    const isNear = Math.abs(imm) + Math.abs(ahead(id)) < FAR;
    return base !== undefined && slopeOf(id) !== undefined && isNear
      ? [base, imm + ahead(id)]
      : [name(id), imm];
  };
  const fresh = (id: ValueId): ValueId => {
    const own = define(types[id]);
    names.set(id, own);
    return own;
  };
  for (const s of loop.body) {
    switch (s.kind) {
      case 'value': {
        if (turn > 0 && slopeOf(s.id) !== undefined) break;
        if (s.op !== 'load') {
          body.push({ ...s, args: s.args.map(name), id: fresh(s.id) });
          break;
        }
        const [index, imm] = place(s.args[0], s.imm);
        body.push({ ...s, args: [index, ...s.args.slice(1).map(name)], imm, id: fresh(s.id) });
        break;
      }
      case 'var':
        body.push({ ...s, init: name(s.init), id: fresh(s.id) });
        break;
      case 'set':
        body.push({ ...s, variable: name(s.variable), value: name(s.value) });
        break;
      case 'store': {
        const [index, imm] = place(s.index, s.imm);
        const count = s.count === undefined ? {} : { count: name(s.count) };
        body.push({ ...s, index, imm, value: name(s.value), ...count });
        break;
      }
      case 'prefetch': {
        const [index, imm] = place(s.index, s.imm);
        body.push({ ...s, index, imm });
        break;
      }
    }
  }
}

/** By how much a value grows from turn to turn: 0 for one from outside the loop, undefined where it is no constant. */
type SlopeOf = (id: ValueId) => number | undefined;

function slopesOf(loop: Loop, constants: ReadonlyMap<ValueId, number>): SlopeOf {
  const slopes = new Map<ValueId, number>([[loop.counter, loop.step]]);
  const inside = new Set<ValueId>();
  const of: SlopeOf = (id) => slopes.get(id) ?? (inside.has(id) ? undefined : 0);
  for (const s of loop.body) {
    if (s.kind === 'var') inside.add(s.id);
    if (s.kind !== 'value') continue;
    inside.add(s.id);
    const slope = s.op === 'const' ? 0 : s.type === 'i32' ? slopeOfSum(s, of, constants) : undefined;
    if (slope !== undefined && Math.abs(slope) <= FAR) slopes.set(s.id, slope);
  }
  return of;
}

function slopeOfSum(
  { op, args, imm }: Instruction,
  of: SlopeOf,
  constants: ReadonlyMap<ValueId, number>,
): number | undefined {
  const [a, c] = args.map(of);
  switch (op) {
    case 'param':
      return 0;
    case 'add':
      return a === undefined || c === undefined ? undefined : a + c;
    case 'sub':
      return a === undefined || c === undefined ? undefined : a - c;
    case 'shl':
      return a === undefined ? undefined : a * 2 ** imm!;
    case 'mul': {
      if (a === 0 && c === 0) return 0;
      const [by, other] = constants.has(args[1]) ? [args[1], a] : [args[0], c];
      const factor = constants.get(by);
      return factor === undefined || other === undefined ? undefined : factor * other;
    }
    default:
      return undefined;
  }
}
