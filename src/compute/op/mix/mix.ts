// Moves one tensor towards another: the reference model following the policy.
import { refuse } from '../../../errors.js';
import type { Device } from '../../device/device.js';
import { buildKernel } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import type { Tensor } from '../../tensor.js';
import { CHUNK_GRAIN, chunkCount, chunks } from '../elementwise.js';

function mixKernel(target: TargetInfo): Kernel {
  return buildKernel('mix', target, { from: 'f32*', into: 'f32*', n: 'i32', share: 'f32' }, (b, p) => {
    chunks(b, p.n, (i, count) => {
      const old = b.loadVec(p.into, i, count);
      const change = b.mul(b.splat(p.share), b.sub(b.loadVec(p.from, i, count), old));
      b.store(p.into, i, b.add(old, change), count);
    });
  });
}

/** into += share (from - into), for flat tensors of one size. */
export function mix(device: Device, from: Tensor, into: Tensor, share: number): void {
  if (from.size !== into.size)
    throw refuse('bad-kernel', `mixing into [${into.shape}]`, from.shape, 'shapes must fit');
  device.launch(
    device.kernel('mix', mixKernel),
    chunkCount(into.size),
    [from, into],
    [into.size, share],
    CHUNK_GRAIN,
  );
}
