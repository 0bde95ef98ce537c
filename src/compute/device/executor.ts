// Turns what a target compiled into callable code, on the main thread and in workers alike.

import { RetortError } from '../../errors.js';
import { prepareInterpreter } from '../kernel/interpreter.js';
import type { Kernel, TargetInfo } from '../kernel/ir.js';
import { native } from '../target/x64/native.js';

/** What travels to a worker: everything needed to call one kernel. Structured-cloneable. */
export type Executable =
  | { readonly target: 'wasm'; readonly kernel: KernelSignature; readonly module: WebAssembly.Module }
  /** Machine code that the process has mapped: its address holds in every thread. */
  | { readonly target: 'x64'; readonly kernel: KernelSignature; readonly address: number }
  | { readonly target: 'interpreter'; readonly kernel: Kernel; readonly info: TargetInfo };

export type KernelSignature = Pick<Kernel, 'name' | 'buffers' | 'scalars'>;

/** Calls a kernel for items [begin, end) as part `part`; args are buffer byte offsets, then the other scalars. */
export type KernelCall = (begin: number, end: number, part: number, args: readonly number[]) => void;

export function load(executable: Executable, memory: WebAssembly.Memory): KernelCall {
  if (executable.target === 'wasm') {
    const instance = new WebAssembly.Instance(executable.module, { env: { memory } });
    const run = instance.exports.run as (...args: number[]) => void;
    return (begin, end, part, args) => run(begin, end, part, ...args);
  }
  if (executable.target === 'x64') return loadNative(executable.kernel, executable.address, memory);
  const { kernel } = executable;
  const call = prepareInterpreter(kernel, executable.info);
  return (begin, end, part, args) => {
    const buffers = kernel.buffers.map((b, i) => {
      const offset = args[i] >>> 0;
      return b.element === 'f32'
        ? new Float32Array(memory.buffer, offset)
        : new Int32Array(memory.buffer, offset);
    });
    call(buffers, [begin, end, part, ...args.slice(kernel.buffers.length)]);
  };
}

/** Fields of the argument block: more than any kernel has arguments. */
const FIELDS = 128;
/** This thread's argument block. */
let block:
  | { readonly words: Int32Array; readonly floats: Float32Array; readonly address: number }
  | undefined;

function loadNative(kernel: KernelSignature, address: number, memory: WebAssembly.Memory): KernelCall {
  const n = native();
  if (typeof n === 'string') throw new RetortError('bad-kernel', n);
  if (!block) {
    const shared = new SharedArrayBuffer(8 * FIELDS);
    block = {
      words: new Int32Array(shared),
      floats: new Float32Array(shared),
      address: n.addressOf(shared),
    };
  }
  const { words, floats, address: blockAddress } = block;
  const call = n.callable(address);
  const base = n.addressOf(memory.buffer as unknown as SharedArrayBuffer);
  const buffers = kernel.buffers.length;
  const isFloat = kernel.scalars.map(({ type }) => type === 'f32');
  return (begin, end, part, args) => {
    for (let i = 0; i < buffers; i++) {
      const at = base + (args[i] >>> 0);
      words[2 * i] = at | 0;
      words[2 * i + 1] = at / 2 ** 32;
    }
    words[2 * buffers] = begin;
    words[2 * buffers + 2] = end;
    words[2 * buffers + 4] = part;
    for (let i = buffers; i < args.length; i++) {
      const field = 2 * (i + 3);
      if (isFloat[i - buffers + 3]) floats[field] = args[i];
      else words[field] = args[i];
    }
    call(blockAddress);
  };
}
