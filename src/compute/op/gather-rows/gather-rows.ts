// Picks rows of an activation: only the rows whose logits are needed go through the head.
import { refuse } from '../../../errors.js';
import type { Context } from '../../autograd.js';
import { matrixShape, type Tensor } from '../../tensor.js';
import { COLUMN_CHUNK } from '../columns.js';
import { gatherKernel, scatterAddKernel } from '../embedding/embedding.js';

/** y[n, d] = x[index]. The indices lie inside x: whoever makes a batch checks them. */
export function gatherRows({ device, tape }: Context, x: Tensor, index: Tensor): Tensor {
  const [, d] = matrixShape(x);
  const n = index.size;
  const y = device.temporary([n, d]);
  device.launch(device.kernel('gather', gatherKernel), n, [x, index, y], [d], 64);
  tape?.record([y], () => {
    const dy = tape.arrived(y);
    if (!dy) return;
    const dx = tape.contribute(x);
    if (dx.accumulate) throw refuse('bad-kernel', 'rows gathered from a tensor', 'used twice', 'gather once');
    device.fill(dx.tensor, 0);
    const kernel = device.kernel('scatter-add', scatterAddKernel);
    device.launch(kernel, Math.ceil(d / COLUMN_CHUNK), [dy, index, dx.tensor], [n, d]);
  });
  return y;
}
