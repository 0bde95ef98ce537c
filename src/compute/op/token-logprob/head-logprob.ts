// From hidden states to the log-probabilities of given tokens, through a head whose logits never lie in memory all at once.
//
// The logits are made for a chunk of rows at a time, in one buffer, which their gradient overwrites. Backward makes them
// anew but for the chunk that forward made last: so where all fit into one chunk, nothing is computed twice. Rows do not
// depend on each other and the head's gradient adds rows in rising order, so no bit of a result depends on the chunks.
import { refuse } from '../../../errors.js';
import type { Context, Parameter } from '../../autograd.js';
import { matrixShape, type Tensor, viewOf } from '../../tensor.js';
import { linearGradients, linearInto } from '../linear/linear.js';
import { type TokenLogprobs, tokenLogprob, tokenLogprobGradient } from './token-logprob.js';

/** Bytes of logits in memory at once. More does not make the products faster. */
export const LOGITS_BYTES = 64 << 20;

export interface HeadLogprobOptions {
  /** What logits are divided by. Default 1. */
  readonly temperature?: number;
  /** Default: `LOGITS_BYTES`; a row of logits at least. */
  readonly logitsBytes?: number;
}

/**
 * logprob[rows] of tokens[rows] under softmax(hidden[rows, d] head[vocab, d]^T / temperature), and entropy[rows] in
 * nats. Seed either output's gradient through the tape.
 * @throws RetortError bad-kernel when the shapes do not fit
 */
export function headLogprob(
  { device, tape }: Context,
  hidden: Tensor,
  head: Parameter,
  tokens: Tensor,
  { temperature = 1, logitsBytes = LOGITS_BYTES }: HeadLogprobOptions = {},
): { logprob: Tensor; entropy: Tensor } {
  const [rows, d] = matrixShape(hidden);
  const [vocabulary] = matrixShape(head.value);
  if (tokens.size !== rows)
    throw refuse('bad-kernel', `tokens for ${rows} rows of hidden states`, tokens.size, 'give one a row');
  const column = () => device.temporary([rows]);
  const all: TokenLogprobs = { logprob: column(), entropy: column(), peak: column(), logSum: column() };
  const most = Math.max(1, Math.floor(logitsBytes / (4 * vocabulary)));
  const chunks = Math.ceil(rows / most);
  const mark = device.mark();
  const buffer = device.temporary([Math.ceil(rows / Math.max(1, chunks)), vocabulary]);

  const chunk = (i: number) => {
    const start = Math.floor((rows * i) / chunks);
    const count = Math.floor((rows * (i + 1)) / chunks) - start;
    const of = (t: Tensor) => viewOf(t, [count], start);
    return {
      of,
      ofHidden: (t: Tensor) => viewOf(t, [count, d], start * d),
      tokens: of(tokens),
      logits: viewOf(buffer, [count, vocabulary]),
      known: {
        logprob: of(all.logprob),
        entropy: of(all.entropy),
        peak: of(all.peak),
        logSum: of(all.logSum),
      },
    };
  };
  // The last first, so that the first chunk's logits are there for backward, which adds up rows in rising order.
  for (let i = chunks - 1; i >= 0; i--) {
    const c = chunk(i);
    linearInto(device, c.ofHidden(hidden), head, c.logits);
    tokenLogprob(device, c.logits, c.tokens, temperature, c.known);
  }
  if (!tape) device.rewind(mark);
  const { logprob, entropy } = all;
  tape?.record([logprob, entropy], () => {
    if (rows === 0) return;
    const [dlogprob, dentropy] = [logprob, entropy].map((t) => {
      const arrived = tape.arrived(t);
      if (arrived) return arrived;
      const none = device.temporary([rows]);
      device.fill(none, 0);
      return none;
    });
    const dhidden = tape.contribute(hidden);
    for (let i = 0; i < chunks; i++) {
      const c = chunk(i);
      if (i > 0) linearInto(device, c.ofHidden(hidden), head, c.logits);
      const gradients = { logprob: c.of(dlogprob), entropy: c.of(dentropy) };
      tokenLogprobGradient(device, c.logits, c.tokens, temperature, c.known, gradients);
      const into = { ...dhidden, tensor: c.ofHidden(dhidden.tensor) };
      linearGradients(device, c.ofHidden(hidden), head, c.logits, into);
    }
  });
  return { logprob, entropy };
}
