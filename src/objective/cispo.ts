// CISPO: the importance weight is clipped, not the token's part in the loss, so that every token keeps a gradient.
//
// MiniMax-M1 (arXiv 2506.13585), eq. 4 and 5, with the upper clip alone as in its experiments. With A the advantage, r the
// importance ratio and sg(.) what no gradient goes through:
//   loss = -sg(min(r, epsilonHigh)) A logprob
// As in TRL `epsilonHigh` is the greatest weight itself, not its distance from 1 (epsilon_max of arXiv 2510.13786).
import type { Surrogate } from './surrogate.js';

export const cispo: Surrogate = {
  bounds: (_, epsilonHigh) => [0, epsilonHigh],
  terms(b, { logprob, ratio, advantage, high }) {
    const slope = b.neg(b.mul(b.min(ratio, high), advantage));
    return {
      loss: b.mul(slope, logprob),
      slope,
      clippedLow: b.int(0),
      clippedHigh: b.and(b.lt(high, ratio), b.lt(0, advantage)),
    };
  },
};
