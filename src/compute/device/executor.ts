// Runs a thread's list of commands, on the main thread and in workers alike.

import { RetortError } from '../../errors.js';
import { prepareInterpreter } from '../kernel/interpreter.js';
import type { Kernel, TargetInfo } from '../kernel/ir.js';
import { native } from '../target/x64/native.js';
import type { SharedMemory } from './backing.js';
import * as P from './protocol.js';

/** What travels to a worker of targets other than machine code, whose addresses hold in every thread. */
export type Executable =
  | { readonly target: 'wasm'; readonly kernel: KernelSignature; readonly module: WebAssembly.Module }
  | { readonly target: 'interpreter'; readonly kernel: Kernel; readonly info: TargetInfo };

type KernelSignature = Pick<Kernel, 'name' | 'buffers' | 'scalars'>;

/** Runs lists of commands. */
export interface Executor {
  /** Makes a kernel known by its number. */
  load(id: number, executable: Executable): void;
  /** Runs thread `part`'s list. @throws RetortError bad-kernel naming the kernel that failed */
  run(part: number): void;
}

export function createExecutor(lists: SharedArrayBuffer, memory: SharedMemory): Executor {
  return memory instanceof WebAssembly.Memory ? steppedExecutor(lists, memory) : nativeExecutor(lists);
}

function nativeExecutor(lists: SharedArrayBuffer): Executor {
  const n = native();
  if (typeof n === 'string') throw new RetortError('bad-kernel', n);
  const { runList } = n;
  const start = n.addressOf(lists);
  return {
    load() {
      throw new RetortError('bad-kernel', 'machine code is not loaded by number');
    },
    run: (part) => runList(start + 4 * P.LIST_WORDS * part),
  };
}

function steppedExecutor(lists: SharedArrayBuffer, memory: WebAssembly.Memory): Executor {
  const words = new Int32Array(lists);
  const floats = new Float32Array(lists);
  const calls: ((args: readonly number[]) => void)[] = [];
  const kernels: KernelSignature[] = [];
  return {
    load(id, executable) {
      kernels[id] = executable.kernel;
      calls[id] = callable(executable, memory);
    },
    run(part) {
      let at = P.LIST_WORDS * part;
      for (let id = words[at]; id !== 0; id = words[at]) {
        const { name, buffers, scalars } = kernels[id];
        const args: number[] = [];
        let field = at + P.HEAD;
        for (let i = 0; i < buffers.length; i++, field += P.FIELD) args.push(words[field]);
        for (let i = 0; i < scalars.length; i++, field += P.FIELD)
          args.push(scalars[i].type === 'f32' ? floats[field] : words[field]);
        try {
          calls[id](args);
        } catch (cause) {
          if (cause instanceof RetortError) throw cause;
          throw new RetortError('bad-kernel', `kernel ${name} failed: ${(cause as Error).message}`, {
            cause,
          });
        }
        at += words[at + P.FIELD] / 4;
      }
    },
  };
}

/** The kernel as a function of its buffers' offsets, begin, end, part and its other scalars. */
function callable(executable: Executable, memory: WebAssembly.Memory): (args: readonly number[]) => void {
  const { buffers } = executable.kernel;
  if (executable.target === 'wasm') {
    const instance = new WebAssembly.Instance(executable.module, { env: { memory } });
    const run = instance.exports.run as (...args: number[]) => void;
    return (args) => run(...args);
  }
  const call = prepareInterpreter(executable.kernel, executable.info);
  return (args) => {
    const views = buffers.map(({ element }, i) => {
      const offset = args[i] >>> 0;
      return element === 'f32'
        ? new Float32Array(memory.buffer, offset)
        : new Int32Array(memory.buffer, offset);
    });
    call(views, args.slice(buffers.length));
  };
}
