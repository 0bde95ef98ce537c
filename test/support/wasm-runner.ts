// Runs a kernel through WebAssembly on typed arrays of the caller's, with guard zones, for tests.

import type { InterpretedKernel } from '../../src/compute/kernel/interpreter.js';
import type { Kernel, TargetInfo } from '../../src/compute/kernel/ir.js';
import { compileWasm } from '../../src/compute/target/wasm.js';
import { RetortError } from '../../src/errors.js';

/** Bytes before, between and after the buffers. */
const GUARD = 256;
/** A pattern that no kernel writes by chance; as f32 it is a NaN. */
const SENTINEL = 0x7fd1a5e7;

/**
 * The compiled kernel with the interpreter's signature: arrays are copied into a memory of its own, and back after the
 * run. The space around every buffer is filled with a pattern.
 * @throws RetortError `bad-kernel`, when called, if the kernel wrote outside its buffers.
 */
export function wasmRunner(kernel: Kernel, target: TargetInfo): InterpretedKernel {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true });
  const module = new WebAssembly.Module(compileWasm(kernel, target));
  const run = new WebAssembly.Instance(module, { env: { memory } }).exports.run as (...a: number[]) => void;
  return (buffers, scalars) => {
    const offsets: number[] = [];
    let end = GUARD;
    for (const b of buffers) {
      offsets.push(end);
      end += b.byteLength + GUARD;
    }
    if (end > memory.buffer.byteLength) memory.grow(Math.ceil((end - memory.buffer.byteLength) / 65536));
    const words = new Int32Array(memory.buffer, 0, end / 4);
    words.fill(SENTINEL);
    const bits = buffers.map((b) => new Int32Array(b.buffer, b.byteOffset, b.length));
    for (const [i, b] of bits.entries()) words.set(b, offsets[i] / 4);
    run(...offsets, ...scalars);
    for (const [i, b] of bits.entries()) {
      const at = offsets[i] / 4;
      b.set(words.subarray(at, at + b.length));
      words.fill(SENTINEL, at, at + b.length);
    }
    const touched = words.findIndex((w) => w !== SENTINEL);
    if (touched >= 0)
      throw new RetortError(
        'bad-kernel',
        `kernel ${kernel.name} wrote outside its buffers, at byte ${4 * touched}`,
      );
  };
}
