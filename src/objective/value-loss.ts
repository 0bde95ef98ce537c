// The value loss of PPO for each token, its gradient, and what is logged of it; as a kernel.
//
// Schulman et al. 2016 (arXiv 1506.02438), eq. 28, clipped as in OpenAI's implementation of PPO (Engstrom et al. 2020, arXiv
// 2005.12729, section 3). With V the value, V_old that of the rollout, R the return and c the clip range:
//   loss = 1/2 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2)
import type { Device } from '../compute/device/device.js';
import { buildKernel } from '../compute/kernel/builder.js';
import type { Kernel, TargetInfo } from '../compute/kernel/ir.js';
import { columnSums } from '../compute/op/sum/sum.js';
import type { Tensor } from '../compute/tensor.js';

export interface ValueLossOptions {
  /** How far a value may move from that of the rollout before it gives no more gradient; Infinity does not clip. */
  readonly cliprangeValue: number;
  /** What the gradient is multiplied with. The loss that is told is not. */
  readonly vfCoef: number;
}

/** Per-token inputs, each f32[tokens]. */
export interface ValueLossInputs {
  readonly value: Tensor;
  /** At the time of the rollout. */
  readonly old: Tensor;
  /** What the value is trained towards. */
  readonly returns: Tensor;
  /** What the token's loss is multiplied with. */
  readonly weight: Tensor;
}

/** Sums over tokens. */
export interface ValueLossSums {
  /** Weighted: this is the loss itself. */
  readonly loss: number;
  readonly tokens: number;
  /** Those whose clipped loss is the greater one. */
  readonly clipped: number;
}

export const noValueSums: ValueLossSums = { loss: 0, tokens: 0, clipped: 0 };

const COLUMNS = 2;

function valueLossKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'value-loss',
    target,
    {
      value: 'f32*',
      old: 'f32*',
      returns: 'f32*',
      weight: 'f32*',
      dvalue: 'f32*',
      sums: 'f32*',
      range: 'f32',
      coefficient: 'f32',
    },
    (b, p) => {
      b.items((token) => {
        const value = b.load(p.value, token);
        const old = b.load(p.old, token);
        const goal = b.load(p.returns, token);
        const weight = b.load(p.weight, token);
        const clippedValue = b.min(b.max(value, b.sub(old, p.range)), b.add(old, p.range));
        const off = b.sub(value, goal);
        const clippedOff = b.sub(clippedValue, goal);
        const free = b.mul(off, off);
        const clipped = b.mul(clippedOff, clippedOff);
        const clips = b.lt(free, clipped);
        // Where the clipped loss is the greater one, the value lies outside its range and moves it no more.
        const slope = b.select(clips, 0, off);
        b.store(p.dvalue, token, b.mul(b.mul(p.coefficient, weight), slope));
        const at = b.mul(token, COLUMNS);
        b.store(p.sums, at, b.mul(b.mul(0.5, weight), b.max(free, clipped)), undefined, 0);
        b.store(p.sums, at, b.toFloat(clips), undefined, 1);
      });
    },
  );
}

/** Writes the loss's gradient by value, times vfCoef, into `into`[tokens] and gives the sums. */
export function valueLoss(
  device: Device,
  { value, old, returns, weight }: ValueLossInputs,
  { cliprangeValue, vfCoef }: ValueLossOptions,
  into: Tensor,
): ValueLossSums {
  const mark = device.mark();
  const tokens = value.size;
  const columns = device.temporary([tokens, COLUMNS]);
  device.launch(
    device.kernel('value-loss', valueLossKernel),
    tokens,
    [value, old, returns, weight, into, columns],
    [cliprangeValue, vfCoef],
    256,
  );
  const [loss, clipped] = columnSums(device, columns);
  device.rewind(mark);
  return { loss, tokens, clipped };
}

export function addValueSums(a: ValueLossSums, b: ValueLossSums): ValueLossSums {
  return { loss: a.loss + b.loss, tokens: a.tokens + b.tokens, clipped: a.clipped + b.clipped };
}
