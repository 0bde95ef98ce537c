// The x86-64 target: compiles a kernel to machine code for AVX2 and FMA, or for AVX-512.
import { RetortError, refuse } from '../../../errors.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { verifyKernel } from '../../kernel/verify.js';
import { type Allocated, allocate } from './allocate.js';
import { streams, type X64 } from './detect.js';
import { type Emitted, emit } from './emit.js';
import { native } from './native.js';
import { select } from './select.js';
import { unroll } from './unroll.js';

/** What a processor with these instructions offers to kernels. */
export const X64_TARGETS: Readonly<Record<'avx2' | 'avx512', TargetInfo>> = {
  avx2: { name: 'x64', lanes: 8, vectorRegisters: 16, fusedMulAdd: true, prefetches: true },
  avx512: { name: 'x64', lanes: 16, vectorRegisters: 32, fusedMulAdd: true, prefetches: true },
};

/** What this processor offers to kernels with these instructions. */
export function x64Target(instructions: X64): TargetInfo {
  return { ...X64_TARGETS[instructions], streams: streams() };
}

/**
 * Compiles a kernel to a function `void run(arguments)` whose argument is the address of a block of 8-byte fields: the
 * address of each buffer, then begin, end, part and the kernel's other scalars in order.
 * @throws RetortError bad-kernel when the kernel is malformed or was built for other lanes than 8 or 16
 */
export function compileX64(kernel: Kernel): Emitted {
  verifyKernel(kernel);
  if (kernel.lanes !== 8 && kernel.lanes !== 16)
    throw refuse('bad-kernel', `lanes of kernel ${kernel.name}`, kernel.lanes, 'x86-64 has 8 or 16');
  const unrolled = prepare(unroll(kernel));
  if (!kernel.keepsVectors || unrolled.allocation.spilled.vector === 0)
    return emit(unrolled.code, unrolled.allocation);
  const plain = prepare(kernel);
  if (plain.allocation.spilled.vector > 0) {
    throw refuse(
      'bad-kernel',
      `vectors of kernel ${kernel.name} that find no register`,
      plain.allocation.spilled.vector,
      'make its tile smaller',
    );
  }
  return emit(plain.code, plain.allocation);
}

function prepare(kernel: Kernel): Allocated {
  return allocate(select(kernel));
}

/** Compiles a kernel and makes it callable; gives its address. @throws RetortError bad-kernel, out-of-memory */
export function mapX64(kernel: Kernel): number {
  const n = native();
  if (typeof n === 'string') throw new RetortError('bad-kernel', n);
  return n.map(compileX64(kernel).bytes);
}
