// The peak of a target: a kernel that only multiplies and adds in registers, against which others are measured.
import { buildKernel } from '../kernel/builder.js';
import type { Kernel, TargetInfo } from '../kernel/ir.js';

const UNROLL = 8;

/** Independent sums: enough to hide the latency of multiply-add, few enough to leave registers for the factors. */
function chains(target: TargetInfo): number {
  return Math.min(16, target.vectorRegisters - 3);
}

/** Floating-point operations of one item of the peak kernel when called with `rounds`. */
export function peakFlops(target: TargetInfo, rounds: number): number {
  return 2 * target.lanes * chains(target) * UNROLL * rounds;
}

/**
 * Multiplies and adds in registers for `rounds` rounds an item, and stores one number an item, so that nothing can be
 * left out. Buffer: out [items]; scalars: rounds, and a factor and an addend (0.5 and 1 keep the numbers tame) that the
 * compiler must not know.
 */
export function peakKernel(target: TargetInfo): Kernel {
  return buildKernel('peak', target, { out: 'f32*', rounds: 'i32', factor: 'f32', addend: 'f32' }, (b, p) => {
    const factor = b.splat(p.factor);
    const addend = b.splat(p.addend);
    b.items((item) => {
      const sums = Array.from({ length: chains(target) }, (_, i) => b.variable(b.splat(i)));
      b.loop(0, p.rounds, 1, () => {
        for (let u = 0; u < UNROLL; u++) for (const sum of sums) sum.set(b.mulAdd(sum.get(), factor, addend));
      });
      let total = sums[0].get();
      for (const sum of sums.slice(1)) total = b.add(total, sum.get());
      b.store(p.out, item, b.hsum(total));
    });
  });
}
