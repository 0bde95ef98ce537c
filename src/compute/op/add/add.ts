// Addition of two tensors of the same shape; used for the residual stream.
import { refuse } from '../../../errors.js';
import type { Context } from '../../autograd.js';
import type { Device } from '../../device/device.js';
import { buildKernel } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import type { Tensor } from '../../tensor.js';
import { CHUNK_GRAIN, chunkCount, chunks } from '../elementwise.js';

function addKernel(target: TargetInfo): Kernel {
  return buildKernel('add', target, { x: 'f32*', z: 'f32*', y: 'f32*', n: 'i32' }, (b, p) => {
    chunks(b, p.n, (i, count) =>
      b.store(p.y, i, b.add(b.loadVec(p.x, i, count), b.loadVec(p.z, i, count)), count),
    );
  });
}

/** y = x + z, y may be x or z. */
export function addInto(device: Device, x: Tensor, z: Tensor, y: Tensor): void {
  device.launch(device.kernel('add', addKernel), chunkCount(x.size), [x, z, y], [x.size], CHUNK_GRAIN);
}

/**
 * x + branch, where the branch was computed from x: every other use of x comes before the branch's last operation,
 * so both share one gradient.
 */
export function addResidual({ device, tape }: Context, x: Tensor, branch: Tensor): Tensor {
  if (x.size !== branch.size)
    throw refuse('bad-kernel', `adding to [${x.shape}]`, branch.shape, 'shapes must fit');
  const y = device.temporary(x.shape);
  addInto(device, x, branch, y);
  tape?.record([y], () => {
    const dy = tape.arrived(y);
    if (!dy) return;
    for (const t of [branch, x]) {
      if (tape.share(t, dy)) continue;
      const d = tape.contribute(t).tensor;
      addInto(device, d, dy, d);
    }
  });
  return y;
}
