// Checks that a kernel is well formed, so that interpreters and targets may trust it.
import { RetortError } from '../../errors.js';
import type { Instruction, Kernel, Statement, ValueId, ValueType } from './ir.js';

/**
 * Checks types, argument counts, scopes, buffers and constants of a kernel.
 * @throws RetortError `bad-kernel` naming the kernel, the statement and what is wrong with it.
 */
export function verifyKernel(kernel: Kernel): void {
  const names = ['begin', 'end', 'part'];
  if (names.some((name, i) => kernel.scalars[i]?.name !== name || kernel.scalars[i].type !== 'i32'))
    throw new RetortError(
      'bad-kernel',
      `kernel ${kernel.name}: its first scalars must be i32 begin, end, part`,
    );
  if (!Number.isInteger(kernel.lanes) || kernel.lanes < 1 || (kernel.lanes & (kernel.lanes - 1)) !== 0)
    throw new RetortError(
      'bad-kernel',
      `kernel ${kernel.name}: lanes must be a power of two, not ${kernel.lanes}`,
    );
  const scope: Scope = { kernel, visible: new Map(), defined: new Set() };
  verifyBlock(scope, kernel.body);
}

interface Scope {
  readonly kernel: Kernel;
  /** What may be named here, and as what. */
  readonly visible: Map<ValueId, 'value' | 'variable'>;
  /** Every id ever defined, since an id is defined once in the whole kernel. */
  readonly defined: Set<ValueId>;
}

function verifyBlock(scope: Scope, block: readonly Statement[]): void {
  const mine: ValueId[] = [];
  const define = (id: ValueId, type: ValueType, as: 'value' | 'variable', at: Statement) => {
    if (scope.kernel.types[id] !== type) fail(scope, at, `%${id} is not ${type} in the table of types`);
    if (scope.defined.has(id)) fail(scope, at, `%${id} is defined twice`);
    scope.defined.add(id);
    scope.visible.set(id, as);
    mine.push(id);
  };
  for (const s of block) {
    switch (s.kind) {
      case 'value':
        verifyInstruction(scope, s);
        define(s.id, s.type, 'value', s);
        break;
      case 'var':
        need(scope, s, s.init, s.type);
        define(s.id, s.type, 'variable', s);
        break;
      case 'set':
        if (scope.visible.get(s.variable) !== 'variable') fail(scope, s, `no variable %${s.variable} here`);
        need(scope, s, s.value, scope.kernel.types[s.variable]);
        break;
      case 'store': {
        const element = elementOf(scope, s, s.buffer);
        const vector = element === 'f32' ? 'vec' : 'ivec';
        const type = typeOf(scope, s, s.value);
        if (type !== vector && (type !== element || s.count !== undefined))
          fail(scope, s, `cannot store ${type} to a buffer of ${element}`);
        verifyAddress(scope, s, s.index, s.imm, s.count);
        break;
      }
      case 'prefetch':
        verifyAddress(scope, s, s.index, s.imm, undefined);
        break;
      case 'loop':
        need(scope, s, s.start, 'i32');
        need(scope, s, s.end, 'i32');
        if (!Number.isInteger(s.step) || s.step <= 0 || s.step > 0x7fffffff)
          fail(scope, s, `step must be a positive integer, not ${s.step}`);
        define(s.counter, 'i32', 'value', s);
        verifyBlock(scope, s.body);
        scope.visible.delete(s.counter);
        break;
      case 'if':
        need(scope, s, s.condition, 'i32');
        verifyBlock(scope, s.yes);
        verifyBlock(scope, s.no);
        break;
    }
  }
  for (const id of mine) scope.visible.delete(id);
}

const twin: Partial<Record<ValueType, ValueType>> = { i32: 'f32', ivec: 'vec', f32: 'i32', vec: 'ivec' };
const any = ['i32', 'f32', 'vec', 'ivec'] as const;
const floats = ['f32', 'vec'] as const;
const ints = ['i32', 'ivec'] as const;

function verifyInstruction(scope: Scope, s: Instruction): void {
  const { op, type } = s;
  const result = (allowed: readonly ValueType[]) => {
    if (!allowed.includes(type)) fail(scope, s, `cannot give ${type}`);
  };
  const args = (...types: ValueType[]) => {
    if (s.args.length !== types.length) fail(scope, s, `takes ${types.length} values, not ${s.args.length}`);
    for (const [i, t] of types.entries()) need(scope, s, s.args[i], t);
  };
  switch (op) {
    case 'const':
      result(['i32', 'f32']);
      args();
      if (s.imm === undefined || (type === 'i32' ? s.imm | 0 : Math.fround(s.imm)) !== s.imm)
        if (!(type === 'f32' && Number.isNaN(s.imm))) fail(scope, s, `${s.imm} is no ${type}`);
      return;
    case 'param':
      args();
      if (scope.kernel.scalars[s.imm ?? -1]?.type !== type) fail(scope, s, `no ${type} scalar ${s.imm}`);
      return;
    case 'get':
      if (s.args.length !== 1 || scope.visible.get(s.args[0]) !== 'variable')
        fail(scope, s, `no variable %${s.args[0]} here`);
      if (scope.kernel.types[s.args[0]] !== type) fail(scope, s, `the variable is not ${type}`);
      return;
    case 'splat':
      result(['vec', 'ivec']);
      args(type === 'vec' ? 'f32' : 'i32');
      return;
    case 'iota':
      result(['ivec']);
      args();
      return;
    case 'firstLanes':
      result(['mask']);
      args('i32');
      return;
    case 'add':
    case 'sub':
    case 'mul':
    case 'min':
    case 'max':
      result(any);
      args(type, type);
      return;
    case 'div':
      result(['i32', 'f32', 'vec']);
      args(type, type);
      return;
    case 'rem':
      result(['i32']);
      args(type, type);
      return;
    case 'neg':
    case 'abs':
    case 'sqrt':
    case 'floor':
    case 'nearest':
      result(floats);
      args(type);
      return;
    case 'fma':
    case 'mulAdd':
      result(floats);
      args(type, type, type);
      return;
    case 'lt':
    case 'le':
    case 'eq': {
      result(['i32', 'mask']);
      const operand = typeOf(scope, s, s.args[0]);
      const fits = type === 'mask' ? ['vec', 'ivec'] : ['f32', 'i32'];
      if (!fits.includes(operand)) fail(scope, s, `cannot compare ${operand} to give ${type}`);
      args(operand, operand);
      return;
    }
    case 'select':
      result(any);
      args(type === 'vec' || type === 'ivec' ? 'mask' : 'i32', type, type);
      return;
    case 'and':
    case 'or':
      result(['i32', 'ivec', 'mask']);
      args(type, type);
      return;
    case 'not':
      result(['i32', 'mask']);
      args(type);
      return;
    case 'shl':
    case 'shr':
      result(ints);
      if (!Number.isInteger(s.imm) || s.imm! < 0 || s.imm! > 31)
        fail(scope, s, `the distance must be 0 to 31, not ${s.imm}`);
      args(type);
      return;
    case 'toFloat':
    case 'bitsToFloat':
      result(floats);
      args(twin[type]!);
      return;
    case 'toInt':
    case 'bitsToInt':
      result(ints);
      args(twin[type]!);
      return;
    case 'hsum':
    case 'hmax':
    case 'hmin':
      result(['f32']);
      args('vec');
      return;
    case 'load': {
      const element = elementOf(scope, s, s.buffer ?? -1);
      const vector = element === 'f32' ? 'vec' : 'ivec';
      if (type !== vector && (type !== element || s.args.length !== 1))
        fail(scope, s, `cannot load ${type} from a buffer of ${element}`);
      if (s.args.length < 1 || s.args.length > 2) fail(scope, s, `takes 1 or 2 values, not ${s.args.length}`);
      verifyAddress(scope, s, s.args[0], s.imm, s.args[1]);
      return;
    }
    default:
      fail(scope, s, `unknown operation ${op satisfies never}`);
  }
}

function verifyAddress(scope: Scope, s: Statement, index: ValueId, imm?: number, count?: ValueId): void {
  need(scope, s, index, 'i32');
  if (count !== undefined) need(scope, s, count, 'i32');
  // Below 2^28 elements, so that imm * 4 fits the displacement of every target.
  if (imm === undefined || !Number.isInteger(imm) || Math.abs(imm) >= 2 ** 28)
    fail(scope, s, `the offset must be an integer below 2^28 in size, not ${imm}`);
}

function elementOf(scope: Scope, s: Statement, buffer: number) {
  return scope.kernel.buffers[buffer]?.element ?? fail(scope, s, `no buffer ${buffer}`);
}

function typeOf(scope: Scope, s: Statement, id: ValueId): ValueType {
  if (scope.visible.get(id) !== 'value') fail(scope, s, `no value %${id} here`);
  return scope.kernel.types[id];
}

function need(scope: Scope, s: Statement, id: ValueId, type: ValueType): void {
  const found = typeOf(scope, s, id);
  if (found !== type) fail(scope, s, `%${id} must be ${type}, not ${found}`);
}

function fail(scope: Scope, s: Statement, what: string): never {
  const where = s.kind === 'value' ? `${s.op} %${s.id}` : s.kind;
  throw new RetortError('bad-kernel', `kernel ${scope.kernel.name}: ${where}: ${what}`);
}
