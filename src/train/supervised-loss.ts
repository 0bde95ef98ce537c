// The loss of supervised learning, and its gradient, over passes of bounded size.
import { Tape } from '../compute/autograd.js';
import { columnSums } from '../compute/op/sum/sum.js';
import { viewOf } from '../compute/tensor.js';
import type { Llama } from '../model/llama.js';
import type { Example } from '../text/dataset.js';
import type { ExampleSource } from './examples.js';
import { completionLogprobs, eachPass } from './packing.js';
import type { SupervisedOptions } from './supervised-options.js';

type PassOptions = Pick<SupervisedOptions, 'batchTokens' | 'gradientCheckpointing'>;

/** Sum of -log p over a pass's completions; adds its gradient times `weight` where there is one. */
function passLoss(
  llama: Llama,
  pass: readonly Example[],
  weight: number | null,
  { gradientCheckpointing: checkpointing }: PassOptions,
): number {
  const { device } = llama;
  const tape = weight === null ? null : new Tape(device, { checkpointing });
  const { logprob } = completionLogprobs({ device, tape }, llama, pass);
  const [sum] = columnSums(device, viewOf(logprob, [logprob.size, 1]));
  if (tape && weight !== null) {
    device.fill(tape.contribute(logprob).tensor, -weight);
    tape.backward();
  }
  return -sum;
}

/** Mean loss over the completions' tokens; with `learn` its gradient is added to the model's. */
export async function meanLoss(
  llama: Llama,
  examples: readonly Example[],
  o: PassOptions,
  learn: boolean,
): Promise<number> {
  const targets = examples.reduce((n, e) => n + e.completionIds.length, 0);
  let sum = 0;
  await eachPass(llama, examples, o.batchTokens, (pass) => {
    sum += passLoss(llama, pass, learn ? 1 / targets : null, o);
  });
  return sum / targets;
}

/** Mean loss over held-out examples. */
export function lossOver(
  llama: Llama,
  source: ExampleSource,
  o: PassOptions & Pick<SupervisedOptions, 'evalExamples'>,
): Promise<number> {
  const count = Math.min(source.size ?? o.evalExamples, o.evalExamples);
  const examples = Array.from({ length: count }, (_, i) => source.at(i));
  return meanLoss(llama, examples, o, false);
}
