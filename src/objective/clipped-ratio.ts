// The clipped ratio of PPO, as GRPO, GSPO and DAPO take it over.
//
// PPO (arXiv 1707.06347), eq. 7; DAPO's separate upper clip (arXiv 2503.14476, eq. 10); the upper limit `delta` on the
// ratio from INTELLECT-2 (arXiv 2505.07291). With A the advantage and r the importance ratio:
//   loss = -min(min(r, delta) A, clip(r, 1 - epsilon, 1 + epsilonHigh) A)
import type { Surrogate } from './surrogate.js';

export const clippedRatio: Surrogate = {
  bounds: (epsilon, epsilonHigh) => [1 - epsilon, 1 + epsilonHigh],
  terms(b, { ratio, advantage, low, high, delta }) {
    const free = b.mul(b.min(ratio, delta), advantage);
    const clipped = b.mul(b.min(b.max(ratio, low), high), advantage);
    const inside = b.and(b.le(low, ratio), b.le(ratio, high));
    const moves = b.or(b.and(b.lt(free, clipped), b.le(ratio, delta)), b.and(b.le(clipped, free), inside));
    return {
      loss: b.neg(b.min(free, clipped)),
      slope: b.select(moves, b.neg(b.mul(ratio, advantage)), 0),
      clippedLow: b.and(b.lt(ratio, low), b.lt(advantage, 0)),
      clippedHigh: b.and(b.lt(high, ratio), b.lt(0, advantage)),
    };
  },
};
