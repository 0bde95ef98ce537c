// Turns what a target compiled into callable code, on the main thread and in workers alike.

import { prepareInterpreter } from '../kernel/interpreter.js';
import type { Kernel, TargetInfo } from '../kernel/ir.js';

/** What travels to a worker: everything needed to call one kernel. Structured-cloneable. */
export type Executable =
  | { readonly target: 'wasm'; readonly kernel: KernelSignature; readonly module: WebAssembly.Module }
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
