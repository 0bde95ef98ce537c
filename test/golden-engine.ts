// What the golden tests need of the engine: the devices they run on, a model with golden weights, one backward pass.
import type { Context } from '../src/compute/autograd.js';
import { Tape, type TapeOptions } from '../src/compute/autograd.js';
import { createDevice, type Device } from '../src/compute/device/device.js';
import { whyNotX64 } from '../src/compute/target/x64/detect.js';
import type { LlamaConfig } from '../src/model/config.js';
import {
  createLlama,
  type Llama,
  packedLogprobs,
  packSequences,
  readWeights,
  type Trainable,
} from '../src/model/llama.js';
import type { Optimizer } from '../src/train/optimizer.js';
import { createOptimizer } from '../src/train/optimizer.js';
import type { ScoredSample } from '../src/train/policy-gradient.js';
import {
  assertClose,
  type GoldenAdamW,
  type GoldenRollout,
  type GoldenTensor,
  tensor,
} from './golden-files.js';

/** Every target; the interpreter with the most lanes that attention serves, as AVX-512 has them. */
export const targets: readonly { readonly name: string; readonly open: () => Device }[] = [
  { name: 'wasm', open: () => createDevice({ target: 'wasm', threads: 1 }) },
  { name: 'wasm, 2 threads', open: () => createDevice({ target: 'wasm', threads: 2 }) },
  ...(whyNotX64() ? [] : [{ name: 'x64', open: () => createDevice({ target: 'x64', threads: 2 }) }]),
  {
    name: 'interpreter, 16 lanes, mulAdd not fused',
    open: () =>
      createDevice({
        target: 'interpreter',
        threads: 1,
        interpret: { lanes: 16, fusedMulAdd: false },
      }),
  },
];

/** A trainable model whose weights are the tensors `prefix` + NAME. */
export function goldenLlama(
  device: Device,
  config: LlamaConfig,
  tensors: Map<string, GoldenTensor>,
  prefix = 'parameter:',
): Llama {
  const llama = createLlama(device, config, { trainable: true });
  readWeights(llama, { read: (name, into) => into.set(tensor(tensors, prefix + name).data) });
  return llama;
}

export function goldenOptimizer(llama: Trainable, options: GoldenAdamW): Optimizer {
  const [beta1, beta2] = options.betas;
  return createOptimizer(llama, { ...options, adamEpsilon: options.eps, beta1, beta2 });
}

/**
 * Mean next-token cross-entropy over all predicted tokens, its gradients added to the parameters' own. The loss of the
 * tokens is -logprob, so each log-probability's gradient is minus one over their number.
 */
export function nextTokenLoss(
  llama: Llama,
  sequences: readonly (readonly number[])[],
  options?: TapeOptions,
): number {
  const { device } = llama;
  const mark = device.mark();
  const tape = new Tape(device, options);
  const context: Context = { device, tape };
  const batch = packSequences(llama, sequences);
  const rows: number[] = [];
  const targets: number[] = [];
  let start = 0;
  for (const sequence of sequences) {
    for (let i = 1; i < sequence.length; i++) {
      rows.push(start + i - 1);
      targets.push(sequence[i]);
    }
    start += sequence.length;
  }
  const { logprob } = packedLogprobs(context, llama, batch, targets, { rows });
  const loss = -device.floats(logprob).reduce((sum, x) => sum + x, 0) / targets.length;
  device.fill(tape.contribute(logprob).tensor, -1 / targets.length);
  tape.backward();
  device.rewind(mark);
  return loss;
}

/** The given rollouts with the given old and reference log-probabilities and advantages. */
export function goldenSamples(
  rollouts: readonly GoldenRollout[],
  tensors: Map<string, GoldenTensor>,
  advantages = 'advantages',
): ScoredSample[] {
  let start = 0;
  return rollouts.map(({ prompt, completion, truncated }, i) => {
    const part = (name: string) => tensor(tensors, name).data.subarray(start, start + completion.length);
    const sample = {
      promptIds: prompt,
      completionIds: completion,
      oldLogprobs: part('oldLogps'),
      referenceLogprobs: part('refLogps'),
      advantage: tensor(tensors, advantages).data[i],
      truncated,
    };
    start += completion.length;
    return sample;
  });
}

/** Asserts that every parameter's gradient is the golden one of that name. */
export function assertGradients(llama: Trainable, tensors: Map<string, GoldenTensor>, prefix: string): void {
  for (const p of llama.parameters)
    assertClose(
      llama.device.floats(p.gradient!),
      tensor(tensors, prefix + p.name).data,
      `gradient ${p.name}`,
    );
}

/**
 * Asserts that every parameter moved from `start` as the golden one did. The moves are compared, not the values: they
 * are a hundredth of the values, which would hide a wrong clipping or epsilon.
 */
export function assertMoves(
  llama: Trainable,
  start: Map<string, GoldenTensor>,
  tensors: Map<string, GoldenTensor>,
  prefix: string,
  from = 'parameter:',
): void {
  for (const p of llama.parameters) {
    const before = tensor(start, from + p.name).data;
    const moved = (values: Float32Array) => values.map((value, i) => value - before[i]);
    const expected = moved(tensor(tensors, prefix + p.name).data);
    assertClose(moved(llama.device.floats(p.value)), expected, `move of ${p.name}`);
  }
}
