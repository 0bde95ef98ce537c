// The interpreter: what a kernel means, in plain JavaScript, for any number of lanes.
//
// Each statement becomes a closure over one register a value: numbers for scalars, small typed arrays for vectors.
import { RetortError, refuse } from '../../errors.js';
import { laneOperation } from './arithmetic.js';
import type { Instruction, Kernel, Statement, TargetInfo, ValueId } from './ir.js';
import { verifyKernel } from './verify.js';

/** What of a target the interpreter takes on. */
export type InterpretedTarget = Pick<TargetInfo, 'lanes' | 'fusedMulAdd'>;
/** Runs a kernel over one typed array a buffer and begin, end, part and the other scalars. */
export type InterpretedKernel = (
  buffers: readonly (Float32Array | Int32Array)[],
  scalars: readonly number[],
) => void;

/** Prepares the kernel and runs it once; see `prepareInterpreter`. */
export function interpret(
  kernel: Kernel,
  target: InterpretedTarget,
  buffers: readonly (Float32Array | Int32Array)[],
  scalars: readonly number[],
): void {
  prepareInterpreter(kernel, target)(buffers, scalars);
}

/**
 * Makes a kernel callable. The result is not reentrant.
 * @throws RetortError `bad-kernel` when the kernel is malformed or was built for other lanes; when called, on a wrong
 * number or type of arguments, an access outside a buffer, a division by 0.
 */
export function prepareInterpreter(kernel: Kernel, target: InterpretedTarget): InterpretedKernel {
  verifyKernel(kernel);
  const { lanes } = target;
  if (kernel.lanes !== lanes)
    throw refuse('bad-kernel', `lanes of kernel ${kernel.name}`, kernel.lanes, `the target has ${lanes}`);
  const machine: Machine = {
    kernel,
    lanes,
    fused: target.fusedMulAdd,
    buffers: [],
    scalars: new Float64Array(kernel.scalars.length),
    numbers: new Float64Array(kernel.types.length),
    vectors: kernel.types.map((type) =>
      type === 'vec'
        ? new Float32Array(lanes)
        : new Int32Array(type === 'ivec' || type === 'mask' ? lanes : 0),
    ),
  };
  const run = prepareBlock(machine, kernel.body);
  return (buffers, scalars) => {
    checkArguments(kernel, buffers, scalars);
    machine.buffers = buffers;
    for (const [i, s] of kernel.scalars.entries())
      machine.scalars[i] = s.type === 'i32' ? scalars[i] | 0 : Math.fround(scalars[i]);
    run();
  };
}

type Step = () => void;
type Lanes = Float32Array | Int32Array;

interface Machine {
  readonly kernel: Kernel;
  readonly lanes: number;
  readonly fused: boolean;
  buffers: readonly Lanes[];
  readonly scalars: Float64Array;
  /** Registers of i32 and f32 values. */
  readonly numbers: Float64Array;
  /** Registers of vec, ivec and mask values; a mask has 0 or 1 a lane, so that its `not` is that of an i32. */
  readonly vectors: readonly Lanes[];
}

function checkArguments(kernel: Kernel, buffers: readonly Lanes[], scalars: readonly number[]): void {
  const wrong = (what: string) => new RetortError('bad-kernel', `kernel ${kernel.name}: ${what}`);
  if (buffers.length !== kernel.buffers.length)
    throw wrong(`takes ${kernel.buffers.length} buffers, not ${buffers.length}`);
  if (scalars.length !== kernel.scalars.length)
    throw wrong(`takes ${kernel.scalars.length} scalars, not ${scalars.length}`);
  for (const [i, { name, element }] of kernel.buffers.entries())
    if (element === 'f32' ? !(buffers[i] instanceof Float32Array) : !(buffers[i] instanceof Int32Array))
      throw wrong(`buffer ${name} must be of ${element}`);
}

const isVector = (m: Machine, id: ValueId) => !['i32', 'f32'].includes(m.kernel.types[id]);

function prepareBlock(m: Machine, block: readonly Statement[]): Step {
  const steps = block.map((s) => prepareStatement(m, s));
  return () => {
    for (let i = 0; i < steps.length; i++) steps[i]();
  };
}

function prepareStatement(m: Machine, s: Statement): Step {
  const { numbers } = m;
  switch (s.kind) {
    case 'value':
      return prepareInstruction(m, s);
    case 'var':
      return copy(m, s.id, s.init);
    case 'set':
      return copy(m, s.variable, s.value);
    case 'store':
      return prepareStore(m, s);
    case 'prefetch':
      return () => {};
    case 'if': {
      const yes = prepareBlock(m, s.yes);
      const no = prepareBlock(m, s.no);
      return () => (numbers[s.condition] !== 0 ? yes() : no());
    }
    case 'loop': {
      const body = prepareBlock(m, s.body);
      return () => {
        const end = numbers[s.end];
        for (let i = numbers[s.start]; i < end; i = (i + s.step) | 0) {
          numbers[s.counter] = i;
          body();
        }
      };
    }
  }
}

function copy(m: Machine, to: ValueId, from: ValueId): Step {
  if (!isVector(m, to))
    return () => {
      m.numbers[to] = m.numbers[from];
    };
  const target = m.vectors[to];
  const source = m.vectors[from];
  return () => target.set(source);
}

/** The first element of an access of `size` elements, which must lie inside the buffer. */
function locate(m: Machine, buffer: number, index: number, imm: number, size: number): number {
  const at = index + imm;
  if (index < 0 || at < 0 || at + size > m.buffers[buffer].length)
    throw new RetortError(
      'bad-kernel',
      `kernel ${m.kernel.name}: ${size} elements at index ${index} + ${imm} of buffer ` +
        `${m.kernel.buffers[buffer].name}, which has ${m.buffers[buffer].length}`,
    );
  return at;
}

/** How many lanes an access covers. */
function reach(m: Machine, count: ValueId | undefined): number {
  return count === undefined ? m.lanes : Math.max(0, Math.min(m.lanes, m.numbers[count]));
}

function prepareStore(m: Machine, s: Extract<Statement, { kind: 'store' }>): Step {
  const { numbers } = m;
  const { buffer, index, imm, value, count } = s;
  if (!isVector(m, value))
    return () => {
      const at = locate(m, buffer, numbers[index], imm, 1);
      m.buffers[buffer][at] = numbers[value];
    };
  const source = m.vectors[value];
  return () => {
    const size = reach(m, count);
    if (size === 0) return;
    const at = locate(m, buffer, numbers[index], imm, size);
    const target = m.buffers[buffer];
    for (let i = 0; i < size; i++) target[at + i] = source[i];
  };
}

function prepareLoad(m: Machine, s: Instruction): Step {
  const { numbers } = m;
  const [index, count] = s.args;
  const buffer = s.buffer!;
  const imm = s.imm!;
  if (!isVector(m, s.id))
    return () => {
      numbers[s.id] = m.buffers[buffer][locate(m, buffer, numbers[index], imm, 1)];
    };
  const target = m.vectors[s.id];
  return () => {
    const size = reach(m, count);
    if (size < m.lanes) target.fill(0);
    if (size === 0) return;
    const at = locate(m, buffer, numbers[index], imm, size);
    const source = m.buffers[buffer];
    for (let i = 0; i < size; i++) target[i] = source[at + i];
  };
}

function prepareInstruction(m: Machine, s: Instruction): Step {
  const { numbers, vectors, lanes } = m;
  const [a, b, c] = s.args;
  const out = vectors[s.id];
  switch (s.op) {
    case 'const':
      numbers[s.id] = s.imm!;
      return () => {};
    case 'param':
      return () => {
        numbers[s.id] = m.scalars[s.imm!];
      };
    case 'get':
      return copy(m, s.id, a);
    case 'splat':
      return () => out.fill(numbers[a]);
    case 'iota':
      for (let i = 0; i < lanes; i++) out[i] = i;
      return () => {};
    case 'firstLanes':
      return () => {
        for (let i = 0; i < lanes; i++) out[i] = i < numbers[a] ? 1 : 0;
      };
    case 'load':
      return prepareLoad(m, s);
    case 'select':
      if (!isVector(m, s.id))
        return () => {
          numbers[s.id] = numbers[a] !== 0 ? numbers[b] : numbers[c];
        };
      return () => {
        for (let i = 0; i < lanes; i++) out[i] = vectors[a][i] ? vectors[b][i] : vectors[c][i];
      };
    case 'hsum':
    case 'hmax':
    case 'hmin':
      return prepareFold(m, s);
    case 'div':
    case 'rem':
      if (s.type === 'i32') return prepareIntegerDivision(m, s);
      break;
    case 'shl':
    case 'shr': {
      const left = s.op === 'shl';
      const shift = (x: number) => (left ? x << s.imm! : x >>> s.imm!) | 0;
      return lanewise(m, s, shift);
    }
    default:
  }
  const lane = laneOperation(s.op, m.kernel.types[a], m.fused);
  if (!lane) throw new RetortError('bad-kernel', `kernel ${m.kernel.name}: ${s.op} of ${m.kernel.types[a]}`);
  return lanewise(m, s, lane);
}

function lanewise(m: Machine, s: Instruction, lane: (a: number, b: number, c: number) => number): Step {
  const { numbers, vectors, lanes } = m;
  const [a, b = a, c = a] = s.args;
  if (!isVector(m, s.id))
    return () => {
      numbers[s.id] = lane(numbers[a], numbers[b], numbers[c]);
    };
  const out = vectors[s.id];
  const x = vectors[a];
  const y = vectors[b];
  const z = vectors[c];
  return () => {
    for (let i = 0; i < lanes; i++) out[i] = lane(x[i], y[i], z[i]);
  };
}

/** Folds the upper half of the lanes onto the lower half until one is left. */
function prepareFold(m: Machine, s: Instruction): Step {
  const source = m.vectors[s.args[0]];
  const work = new Float32Array(m.lanes);
  const op = s.op === 'hsum' ? 'add' : s.op === 'hmax' ? 'max' : 'min';
  const lane = laneOperation(op, 'vec', m.fused)!;
  return () => {
    work.set(source);
    for (let half = m.lanes >> 1; half > 0; half >>= 1)
      for (let i = 0; i < half; i++) work[i] = lane(work[i], work[i + half], 0);
    m.numbers[s.id] = work[0];
  };
}

function prepareIntegerDivision(m: Machine, s: Instruction): Step {
  const { numbers } = m;
  const [a, b] = s.args;
  return () => {
    const x = numbers[a];
    const y = numbers[b];
    if (y === 0 || (y === -1 && x === -(2 ** 31)))
      throw new RetortError('bad-kernel', `kernel ${m.kernel.name}: ${s.op} of ${x} by ${y}`);
    // Adding 0 turns -0 into 0.
    numbers[s.id] = (s.op === 'div' ? Math.trunc(x / y) : x % y) + 0;
  };
}
