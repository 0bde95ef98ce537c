// Values of completions' tokens under a critic, and the gradient of the value loss over a minibatch.
import { type Context, Tape } from '../compute/autograd.js';
import type { Tensor } from '../compute/tensor.js';
import { type Critic, valuesOf } from '../model/critic.js';
import {
  addValueSums,
  noValueSums,
  type ValueLossOptions,
  type ValueLossSums,
  valueLoss,
} from '../objective/value-loss.js';
import { type Continued, completionHidden, eachPass, tokenNumbers } from './packing.js';

/** A completion with what its values are trained towards. */
export interface ValuedSample extends Continued {
  /** Of the state before each id, by the critic at the time of the rollout. */
  readonly values: ArrayLike<number>;
  /** Of each id. */
  readonly returns: ArrayLike<number>;
}

export interface ValueGradientOptions extends ValueLossOptions {
  /** Most tokens, prompts included, in one forward and backward pass. */
  readonly microBatchTokens: number;
  readonly gradientCheckpointing: boolean;
}

/** The value of the state before each token of each completion: one forward pass. */
export function completionValues(
  critic: Critic,
  items: readonly Continued[],
  microBatchTokens: number,
): Promise<Float64Array[]> {
  const { trunk } = critic;
  return tokenNumbers(trunk, items, microBatchTokens, (c, pass) =>
    valuesOf(c, critic, completionHidden(c, trunk, pass)),
  );
}

/** Collects the value loss of a minibatch, pass by pass; normalised over the whole minibatch. */
export interface ValueLossOfPasses {
  /** Seeds the loss's gradient through the tape, given the hidden states [tokens, hiddenSize] before a pass's tokens. */
  add(c: Context & { readonly tape: Tape }, hidden: Tensor, pass: readonly ValuedSample[]): void;
  sums(): ValueLossSums;
}

export function valueLossOver(
  critic: Critic,
  samples: readonly ValuedSample[],
  o: ValueLossOptions,
): ValueLossOfPasses {
  const tokens = samples.reduce((n, s) => n + s.completionIds.length, 0);
  let sums = noValueSums;
  return {
    add(c, hidden, pass) {
      const { device, tape } = c;
      const upload = (values: readonly number[]) => device.upload(values, 'f32');
      const value = valuesOf(c, critic, hidden);
      const inputs = {
        value,
        old: upload(pass.flatMap((s) => Array.from(s.values))),
        returns: upload(pass.flatMap((s) => Array.from(s.returns))),
        weight: upload(new Array<number>(value.size).fill(1 / tokens)),
      };
      sums = addValueSums(sums, valueLoss(device, inputs, o, tape.contribute(value).tensor));
    },
    sums: () => sums,
  };
}

/** Adds the value loss's gradient over a minibatch to that of a critic with a trunk of its own, and gives the sums. */
export async function accumulateValueGradient(
  critic: Critic,
  samples: readonly ValuedSample[],
  o: ValueGradientOptions,
): Promise<ValueLossSums> {
  const { device, trunk } = critic;
  const loss = valueLossOver(critic, samples, o);
  await eachPass(trunk, samples, o.microBatchTokens, (pass) => {
    const tape = new Tape(device, { checkpointing: o.gradientCheckpointing });
    const c = { device, tape };
    loss.add(c, completionHidden(c, trunk, pass), pass);
    tape.backward();
  });
  return loss.sums();
}
