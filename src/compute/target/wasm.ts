// The WebAssembly target: compiles a kernel to a module of 128-bit SIMD code.
//
// Constants and pure values that are used once, in the block that defines them, stay on the stack; every other
// value has a local, and the runtime's optimiser assigns registers.
import { refuse } from '../../errors.js';
import type { Instruction, Kernel, Statement, TargetInfo, ValueId } from '../kernel/ir.js';
import { verifyKernel } from '../kernel/verify.js';
import { usageOf } from './usage.js';
import {
  byCount,
  type Emitter,
  emitSimd,
  getLocal,
  inLocal,
  intBytes,
  memoryArgument,
  newLocal,
  push,
  pushAddress,
  setLocal,
  wasmTypeOf,
} from './wasm-emitter.js';
import { encodeModule, float32, plain, signed, simd, unsigned, type WasmType } from './wasm-encoder.js';
import { emitOperation } from './wasm-operations.js';

/**
 * Compiles a kernel to a module that imports the shared memory `env.memory` and exports
 * `run(...buffers, ...scalars)`: the byte offset of each buffer (a multiple of 4), then the kernel's scalars in order, of
 * which the first are begin, end and part.
 * @throws RetortError `bad-kernel` when the kernel is malformed or was built for other lanes than 4.
 */
export function compileWasm(kernel: Kernel, target: TargetInfo): Uint8Array<ArrayBuffer> {
  verifyKernel(kernel);
  if (kernel.lanes !== 4 || target.lanes !== 4)
    throw refuse('bad-kernel', `lanes of kernel ${kernel.name}`, kernel.lanes, 'WebAssembly has 4');
  const parameters: WasmType[] = [
    ...kernel.buffers.map(() => 'i32' as const),
    ...kernel.scalars.map((s) => s.type),
  ];
  const e: Emitter = {
    kernel,
    fused: target.fusedMulAdd,
    usage: usageOf(kernel),
    code: [],
    emitValue,
    parameterCount: parameters.length,
    locals: [],
    localOf: new Map(),
    pending: new Map(),
  };
  emitBlock(e, kernel.body);
  return encodeModule(parameters, e.locals, e.code);
}

/** Deeper expressions get a local, so that emission does not recurse without bound. */
const deepest = 40;

function emitBlock(e: Emitter, block: readonly Statement[]): void {
  for (const s of block) emitStatement(e, s);
}

function emitStatement(e: Emitter, s: Statement): void {
  switch (s.kind) {
    case 'value':
      define(e, s);
      return;
    case 'var': {
      push(e, s.init);
      const local = newLocal(e, wasmTypeOf(s.type));
      e.localOf.set(s.id, local);
      setLocal(e, local);
      return;
    }
    case 'set':
      push(e, s.value);
      setLocal(e, e.localOf.get(s.variable)!);
      return;
    case 'store':
      emitStore(e, s);
      return;
    case 'prefetch':
      // WebAssembly has no such instruction.
      return;
    case 'if':
      push(e, s.condition);
      e.code.push(plain.if, 0x40);
      emitBlock(e, s.yes);
      if (s.no.length > 0) e.code.push(plain.else);
      emitBlock(e, s.no);
      e.code.push(plain.end);
      return;
    case 'loop':
      emitLoop(e, s);
      return;
  }
}

/** The test stands at the end of the body and once before the loop, which saves a jump each time around. */
function emitLoop(e: Emitter, s: Extract<Statement, { kind: 'loop' }>): void {
  const counter = newLocal(e, 'i32');
  e.localOf.set(s.counter, counter);
  push(e, s.start);
  e.code.push(plain.localTee, ...unsigned(counter));
  const constant = e.usage.constants.get(s.end);
  const pushEnd = (end: number | undefined) =>
    end === undefined ? e.code.push(plain.i32Const, ...signed(constant!)) : getLocal(e, end);
  const end = constant === undefined ? inLocal(e, s.end) : undefined;
  pushEnd(end);
  e.code.push(plain.i32LtS, plain.if, 0x40, plain.loop, 0x40);
  emitBlock(e, s.body);
  getLocal(e, counter);
  e.code.push(plain.i32Const, ...signed(s.step), plain.i32Add, plain.localTee, ...unsigned(counter));
  pushEnd(end);
  e.code.push(plain.i32LtS, plain.brIf, 0, plain.end, plain.end);
}

function emitStore(e: Emitter, s: Extract<Statement, { kind: 'store' }>): void {
  const type = e.kernel.types[s.value];
  if (s.count !== undefined) {
    emitMaskedStore(e, s, s.count);
    return;
  }
  const offset = pushAddress(e, s.buffer, s.index, s.imm);
  push(e, s.value);
  if (type === 'f32') e.code.push(plain.f32Store, ...memoryArgument(offset));
  else if (type === 'i32') e.code.push(plain.i32Store, ...memoryArgument(offset));
  else emitSimd(e, simd.store, ...memoryArgument(offset));
}

function emitMaskedStore(e: Emitter, s: Extract<Statement, { kind: 'store' }>, countId: ValueId): void {
  const offset = pushAddress(e, s.buffer, s.index, s.imm);
  const address = newLocal(e, 'i32');
  setLocal(e, address);
  const value = inLocal(e, s.value);
  const put = (opcode: number, bytes: number, lane: number[]) => {
    getLocal(e, address);
    getLocal(e, value);
    emitSimd(e, opcode, ...memoryArgument(offset + bytes), ...lane);
  };
  byCount(e, inLocal(e, countId), {
    1: () => put(simd.store32Lane, 0, [0]),
    2: () => put(simd.store64Lane, 0, [0]),
    3: () => put(simd.store32Lane, 8, [2]),
    4: () => put(simd.store, 0, []),
  });
}

/** Computes a value now, or leaves it to its use, or names a local that has it already. */
function define(e: Emitter, s: Instruction): void {
  const { usage, localOf } = e;
  if (!usage.uses.get(s.id)) return;
  if (s.op === 'param') {
    localOf.set(s.id, e.kernel.buffers.length + s.imm!);
    return;
  }
  // The load has put the splat into its own local.
  if (s.op === 'splat' && usage.splatLoads.has(s.args[0])) {
    localOf.set(s.id, localOf.get(s.args[0])!);
    return;
  }
  const depth = 1 + Math.max(0, ...s.args.map((id) => e.pending.get(id)?.depth ?? 0));
  const free = s.op === 'const' || s.op === 'iota' || (s.op === 'splat' && usage.constants.has(s.args[0]));
  const pure = s.op !== 'load' && s.op !== 'get';
  if (free || (pure && depth < deepest && usage.onceInBlock.has(s.id))) {
    e.pending.set(s.id, { instruction: s, depth });
    return;
  }
  emitValue(e, s);
  const splat = usage.splatLoads.has(s.id);
  const local = newLocal(e, splat ? 'v128' : wasmTypeOf(s.type));
  localOf.set(s.id, local);
  setLocal(e, local);
}

function emitValue(e: Emitter, s: Instruction): void {
  switch (s.op) {
    case 'const':
      if (s.type === 'i32') e.code.push(plain.i32Const, ...signed(s.imm!));
      else e.code.push(plain.f32Const, ...float32(s.imm!));
      return;
    case 'splat': {
      const value = e.usage.constants.get(s.args[0]);
      if (value === undefined) {
        emitOperation(e, s);
        return;
      }
      const bytes = s.type === 'vec' ? float32(value) : intBytes(value);
      emitSimd(e, simd.const, ...bytes, ...bytes, ...bytes, ...bytes);
      return;
    }
    case 'get':
      getLocal(e, e.localOf.get(s.args[0])!);
      return;
    case 'load':
      emitLoad(e, s);
      return;
    default:
      emitOperation(e, s);
      return;
  }
}

function emitLoad(e: Emitter, s: Instruction): void {
  const offset = pushAddress(e, s.buffer!, s.args[0], s.imm!);
  if (s.args.length === 2) {
    emitMaskedLoad(e, s.args[1], offset);
    return;
  }
  if (e.usage.splatLoads.has(s.id)) emitSimd(e, simd.load32Splat, ...memoryArgument(offset));
  else if (s.type === 'f32') e.code.push(plain.f32Load, ...memoryArgument(offset));
  else if (s.type === 'i32') e.code.push(plain.i32Load, ...memoryArgument(offset));
  else emitSimd(e, simd.load, ...memoryArgument(offset));
}

function emitMaskedLoad(e: Emitter, countId: ValueId, offset: number): void {
  const address = newLocal(e, 'i32');
  setLocal(e, address);
  const result = newLocal(e, 'v128');
  const get = (opcode: number) => {
    getLocal(e, address);
    emitSimd(e, opcode, ...memoryArgument(offset));
    setLocal(e, result);
  };
  emitSimd(e, simd.const, ...new Array<number>(16).fill(0));
  setLocal(e, result);
  byCount(e, inLocal(e, countId), {
    1: () => get(simd.load32Zero),
    2: () => get(simd.load64Zero),
    3: () => {
      getLocal(e, address);
      getLocal(e, result);
      emitSimd(e, simd.load32Lane, ...memoryArgument(offset + 8), 2);
      setLocal(e, result);
    },
    4: () => get(simd.load),
  });
  getLocal(e, result);
}
