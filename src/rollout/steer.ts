// Steering a sample from outside the model: its logits are changed before a token is drawn; what is reported stays the
// model's own.
import type { Device } from '../compute/device/device.js';
import {
  fillSampling,
  readSampled,
  type Sampling,
  sample,
  samplingTensor,
} from '../compute/op/sample/sample.js';
import { matrixShape, type Tensor, viewOf } from '../compute/tensor.js';

/** What guides one sample: a grammar, a bias, tokens that are forced. */
export interface TokenControl {
  /**
   * Changes the logits [vocab] of the next token in place; -Infinity forbids a token.
   * @returns false where no token is possible: the sample ends
   */
  adjust(logits: Float32Array): boolean;
  /** The token to stand in place of one that was drawn; the same where it may stand. Absent: it may. */
  instead?(id: number): number;
  /** Whether a token that was drawn may stand; else it is forbidden and another is drawn. Absent: it may. */
  permits?(id: number): boolean;
  /** Takes up the token that was drawn. */
  accept(id: number): void;
}

/** Leaves one token possible. */
export function allowOnly(logits: Float32Array, id: number): void {
  logits.fill(Number.NEGATIVE_INFINITY);
  logits[id] = 0;
}

/** A row to be drawn again under its control. */
export interface SteeredRow {
  readonly control: TokenControl;
  /** Logits as the model gave them. */
  readonly raw: Float32Array;
  readonly sampling: Sampling;
}

export interface SteeredToken {
  readonly id: number;
  readonly samplingLogprob: number;
}

/** Draws a token of each row as its control wants it; null where none is possible. */
export function drawSteered(device: Device, rows: readonly SteeredRow[]): (SteeredToken | null)[] {
  const drawn: (SteeredToken | null)[] = rows.map(() => null);
  let open = rows.flatMap(({ control, raw, sampling }, index) => {
    const logits = raw.slice();
    return control.adjust(logits) ? [{ index, control, sampling, logits }] : [];
  });
  while (open.length > 0) {
    const mark = device.mark();
    const [count, n] = [open.length, open[0].logits.length];
    const all = device.temporary([count, n]);
    open.forEach(({ logits }, row) => {
      device.floats(all).set(logits, row * n);
    });
    const sampling = samplingTensor(device, count);
    fillSampling(
      device,
      sampling,
      open.map((row) => row.sampling),
    );
    const { tokens, samplingLogprobs } = readSampled(device, sample(device, all, sampling));
    device.rewind(mark);
    open = open.filter(({ index, control, logits }, row) => {
      const id = control.instead?.(tokens[row]) ?? tokens[row];
      if (!control.permits || control.permits(id)) {
        // What is given and not drawn has the probability 1, as where the logits leave one token.
        drawn[index] = { id, samplingLogprob: id === tokens[row] ? samplingLogprobs[row] : 0 };
        return false;
      }
      logits[id] = Number.NEGATIVE_INFINITY;
      return logits.some((x) => x > Number.NEGATIVE_INFINITY);
    });
  }
  return drawn;
}

export type TopLogprobs = readonly (readonly [id: number, logprob: number])[];

/** A row's logits [vocab], as memory that may be changed. */
export function rowOf(device: Device, logits: Tensor, row: number): Float32Array {
  const [, n] = matrixShape(logits);
  return device.floats(viewOf(logits, [n], row * n));
}

/** Log-probability of a token under the logits as they are, in float64. */
export function logprobOf(logits: Float32Array, id: number): number {
  return logits[id] - logSumExp(logits);
}

/** The likeliest tokens, best first, the smaller id first among equals. */
export function topLogprobs(logits: Float32Array, count: number): TopLogprobs {
  const best: number[] = [];
  for (let id = 0; id < logits.length; id++) {
    if (best.length === count && !(logits[id] > logits[best[count - 1]])) continue;
    let at = best.length;
    while (at > 0 && logits[id] > logits[best[at - 1]]) at--;
    best.splice(at, 0, id);
    if (best.length > count) best.pop();
  }
  if (best.length === 0) return [];
  const sum = logSumExp(logits);
  return best.map((id) => [id, logits[id] - sum] as const);
}

function logSumExp(logits: Float32Array): number {
  let peak = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) if (logits[i] > peak) peak = logits[i];
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - peak);
  return peak + Math.log(sum);
}
