// The entropy bonus: a policy that stays uncertain loses less, so that it goes on exploring.
//
// Mnih et al. 2016 (arXiv 1602.01783), section 4; PPO (arXiv 1707.06347), eq. 9. As in TRL the bonus is the same for every
// loss type, with H the entropy of a token's distribution at the sampling temperature:
//   loss -= entropyCoef (mean of H over the tokens that count in the batch)
import type { Device } from '../compute/device/device.js';
import { buildKernel } from '../compute/kernel/builder.js';
import type { Kernel, TargetInfo } from '../compute/kernel/ir.js';
import type { Tensor } from '../compute/tensor.js';

function entropyBonusKernel(target: TargetInfo): Kernel {
  return buildKernel('entropy-bonus', target, { weight: 'f32*', dentropy: 'f32*', slope: 'f32' }, (b, p) => {
    b.items((token) => {
      const counts = b.not(b.eq(b.load(p.weight, token), 0));
      b.store(p.dentropy, token, b.select(counts, p.slope, 0));
    });
  });
}

/**
 * Writes the gradient of the bonus by the tokens' entropies into `into`[tokens].
 * @param weight f32[tokens]; tokens of weight 0 do not count
 * @param countedTokens those that count in the whole batch, of which these may be a part
 */
export function entropyBonus(
  device: Device,
  weight: Tensor,
  entropyCoef: number,
  countedTokens: number,
  into: Tensor,
): void {
  const slope = -entropyCoef / Math.max(1, countedTokens);
  const kernel = device.kernel('entropy-bonus', entropyBonusKernel);
  device.launch(kernel, weight.size, [weight, into], [slope], 256);
}
