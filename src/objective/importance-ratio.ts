// Importance ratios of tokens, or of whole completions (GSPO), as logarithms.
//
// GSPO (arXiv 2507.18071), eq. 7: the ratio of completion y of |y| tokens is
//   s = exp(1/|y| sum over t of (logprob_t - old_t))
// and stands at each of its tokens. Each log-probability moves s by s/|y|. All |y| tokens have the same loss and the same
// weight, so the loss moves with a log-probability as if the ratio were the token's own: the surrogate's slope holds as it is.
import type { Device } from '../compute/device/device.js';
import { buildKernel } from '../compute/kernel/builder.js';
import type { Kernel, TargetInfo } from '../compute/kernel/ir.js';
import type { Tensor } from '../compute/tensor.js';

/** TRL's `importance_sampling_level`. */
export type ImportanceSamplingLevel = 'token' | 'sequence';

export const importanceSamplingLevels: readonly ImportanceSamplingLevel[] = ['token', 'sequence'];

/** Each f32[tokens]. */
export interface LogRatios {
  readonly logRatio: Tensor;
  /** What the token counts in a mean over ratios: 1, or 1/|y| where a completion has one ratio. */
  readonly share: Tensor;
}

function tokenKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'token-ratio',
    target,
    { logprob: 'f32*', old: 'f32*', logRatio: 'f32*', share: 'f32*' },
    (b, p) => {
      b.items((token) => {
        b.store(p.logRatio, token, b.sub(b.load(p.logprob, token), b.load(p.old, token)));
        b.store(p.share, token, b.float(1));
      });
    },
  );
}

function sequenceKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'sequence-ratio',
    target,
    { logprob: 'f32*', old: 'f32*', starts: 'i32*', logRatio: 'f32*', share: 'f32*' },
    (b, p) => {
      b.items((sequence) => {
        const first = b.loadInt(p.starts, sequence);
        const end = b.loadInt(p.starts, sequence, 1);
        const sum = b.variable(b.float(0));
        b.loop(first, end, 1, (token) => {
          sum.set(b.add(sum.get(), b.sub(b.load(p.logprob, token), b.load(p.old, token))));
        });
        const share = b.div(b.float(1), b.toFloat(b.sub(end, first)));
        const mean = b.mul(sum.get(), share);
        b.loop(first, end, 1, (token) => {
          b.store(p.logRatio, token, mean);
          b.store(p.share, token, share);
        });
      });
    },
  );
}

/**
 * The log-ratios of logprob[tokens] to old[tokens], in temporary memory.
 * @param starts i32[completions + 1]: the first token of each completion, and the end; null for a ratio at each token
 */
export function logRatios(device: Device, logprob: Tensor, old: Tensor, starts: Tensor | null): LogRatios {
  const ratios = { logRatio: device.temporary([logprob.size]), share: device.temporary([logprob.size]) };
  const into = [ratios.logRatio, ratios.share];
  if (starts) {
    const kernel = device.kernel('sequence-ratio', sequenceKernel);
    device.launch(kernel, starts.size - 1, [logprob, old, starts, ...into], [], 4);
  } else {
    const kernel = device.kernel('token-ratio', tokenKernel);
    device.launch(kernel, logprob.size, [logprob, old, ...into], [], 256);
  }
  return ratios;
}

/** The first token of each completion, and the end, from their lengths. */
export function startsOf(lengths: readonly number[]): number[] {
  const starts = [0];
  for (const length of lengths) starts.push(starts[starts.length - 1] + length);
  return starts;
}
