// The x86-64 target: compiles a kernel to machine code for AVX2 and FMA.
import { RetortError, refuse } from '../../../errors.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { verifyKernel } from '../../kernel/verify.js';
import { allocate } from './allocate.js';
import { type Emitted, emit } from './emit.js';
import { native } from './native.js';
import { LANES, select } from './select.js';

export const x64Target: TargetInfo = { name: 'x64', lanes: LANES, vectorRegisters: 16, fusedMulAdd: true };

/**
 * Compiles a kernel to a function `void run(arguments)` whose argument is the address of a block of 8-byte fields: the
 * address of each buffer, then begin, end, part and the kernel's other scalars in order.
 * @throws RetortError bad-kernel when the kernel is malformed or was built for other lanes than 8
 */
export function compileX64(kernel: Kernel): Emitted {
  verifyKernel(kernel);
  if (kernel.lanes !== LANES)
    throw refuse(
      'bad-kernel',
      `lanes of kernel ${kernel.name}`,
      kernel.lanes,
      `x86-64 with AVX2 has ${LANES}`,
    );
  const code = select(kernel);
  return emit(code, allocate(code, kernel.name, true));
}

/** Compiles a kernel and makes it callable; gives its address. @throws RetortError bad-kernel, out-of-memory */
export function mapX64(kernel: Kernel): number {
  const n = native();
  if (typeof n === 'string') throw new RetortError('bad-kernel', n);
  return n.map(compileX64(kernel).bytes);
}
