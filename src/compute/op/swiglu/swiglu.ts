// SwiGLU's activation: silu(gate) * up. Shazeer, "GLU Variants Improve Transformer" (2020), eq. 6.
import { refuse } from '../../../errors.js';
import type { Context } from '../../autograd.js';
import { buildKernel } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { sigmoid } from '../../kernel/math.js';
import type { Tensor } from '../../tensor.js';
import { CHUNK_GRAIN, chunkCount, chunks } from '../elementwise.js';

function swigluKernel(target: TargetInfo): Kernel {
  return buildKernel('swiglu', target, { gate: 'f32*', up: 'f32*', y: 'f32*', n: 'i32' }, (b, p) => {
    chunks(b, p.n, (i, count) => {
      const gate = b.loadVec(p.gate, i, count);
      b.store(p.y, i, b.mul(b.mul(gate, sigmoid(b, gate)), b.loadVec(p.up, i, count)), count);
    });
  });
}

function swigluBackwardKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'swiglu-backward',
    target,
    { gate: 'f32*', up: 'f32*', dy: 'f32*', dgate: 'f32*', dup: 'f32*', n: 'i32' },
    (b, p) => {
      chunks(b, p.n, (i, count) => {
        const gate = b.loadVec(p.gate, i, count);
        const dy = b.loadVec(p.dy, i, count);
        const s = sigmoid(b, gate);
        const silu = b.mul(gate, s);
        // silu' = s + silu (1 - s)
        const slope = b.mulAdd(silu, b.sub(1, s), s);
        b.store(p.dgate, i, b.mul(b.mul(dy, b.loadVec(p.up, i, count)), slope), count);
        b.store(p.dup, i, b.mul(dy, silu), count);
      });
    },
  );
}

/** silu(gate) * up, element by element. gate and up must have no other use. */
export function swiglu({ device, tape }: Context, gate: Tensor, up: Tensor): Tensor {
  if (gate.size !== up.size)
    throw refuse('bad-kernel', `swiglu of [${gate.shape}]`, up.shape, 'shapes must fit');
  const y = device.temporary(gate.shape);
  const items = chunkCount(y.size);
  device.launch(device.kernel('swiglu', swigluKernel), items, [gate, up, y], [y.size], CHUNK_GRAIN);
  tape?.record([y], () => {
    const dy = tape.arrived(y);
    if (!dy) return;
    const dgate = tape.contribute(gate);
    const dup = tape.contribute(up);
    if (dgate.accumulate || dup.accumulate)
      throw refuse('bad-kernel', 'swiglu inputs', 'used twice', 'use them once');
    device.launch(
      device.kernel('swiglu-backward', swigluBackwardKernel),
      items,
      [gate, up, dy, dgate.tensor, dup.tensor],
      [y.size],
      CHUNK_GRAIN,
    );
  });
  return y;
}
