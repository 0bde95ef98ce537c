// Prompts with completions as packed forward passes: cut into passes of bounded size, log-probabilities of completions.
import { setImmediate } from 'node:timers/promises';
import type { Context } from '../compute/autograd.js';
import type { Tensor } from '../compute/tensor.js';
import { hiddenLogprobs, type Llama, packedHidden, packSequences } from '../model/llama.js';

/** A prompt and what follows it. */
export interface Continued {
  readonly promptIds: readonly number[];
  /** At least one. */
  readonly completionIds: readonly number[];
}

/** Tokens that go through the model: the last predicts nothing that is needed. */
export function tokensOf({ promptIds, completionIds }: Continued): number {
  return promptIds.length + completionIds.length - 1;
}

/** Cuts a list into passes of at most `most` tokens, in order; what is longer stands alone. */
export function passesOf<T extends Continued>(items: readonly T[], most: number): T[][] {
  const passes: T[][] = [];
  let total = Number.POSITIVE_INFINITY;
  for (const item of items) {
    const tokens = tokensOf(item);
    if (total + tokens > most) {
      passes.push([]);
      total = 0;
    }
    passes[passes.length - 1].push(item);
    total += tokens;
  }
  return passes;
}

/** Runs `work` on each pass, rewinding the step arena and leaving the event loop room after each. */
export async function eachPass<T extends Continued>(
  { device }: Llama,
  items: readonly T[],
  most: number,
  work: (pass: readonly T[]) => void,
): Promise<void> {
  for (const pass of passesOf(items, most)) {
    const mark = device.mark();
    work(pass);
    device.rewind(mark);
    await setImmediate();
  }
}

/** Runs each pass without a tape and gives, completion by completion, the numbers of its tokens that `work` computes. */
export async function tokenNumbers<T extends Continued>(
  llama: Llama,
  items: readonly T[],
  most: number,
  work: (c: Context, pass: readonly T[]) => Tensor,
): Promise<Float64Array[]> {
  const { device } = llama;
  const lists: Float64Array[] = [];
  await eachPass(llama, items, most, (pass) => {
    const numbers = device.floats(work({ device, tape: null }, pass));
    let start = 0;
    for (const { completionIds } of pass) {
      lists.push(Float64Array.from(numbers.subarray(start, start + completionIds.length)));
      start += completionIds.length;
    }
  });
  return lists;
}

/** The hidden state [tokens, hiddenSize] before every completion's tokens: what each is predicted from. */
export function completionHidden(c: Context, llama: Llama, items: readonly Continued[]): Tensor {
  const sequences = items.map((s) => [...s.promptIds, ...s.completionIds.slice(0, -1)]);
  const rows: number[] = [];
  let start = 0;
  for (const item of items) {
    for (let i = 0; i < item.completionIds.length; i++) rows.push(start + item.promptIds.length - 1 + i);
    start += tokensOf(item);
  }
  return packedHidden(c, llama, packSequences(llama, sequences), rows);
}

/** Log-probability and entropy, f32[tokens], of every completion's tokens from the hidden states before them. */
export function tokenLogprobs(
  c: Context,
  llama: Llama,
  hidden: Tensor,
  items: readonly Continued[],
  temperature: number,
): { logprob: Tensor; entropy: Tensor } {
  const tokens = items.flatMap((s) => [...s.completionIds]);
  return hiddenLogprobs(c, llama, hidden, tokens, { temperature });
}

/** Log-probability and entropy, f32[tokens], of every completion's tokens, one completion after another. */
export function completionLogprobs(
  c: Context,
  llama: Llama,
  items: readonly Continued[],
  temperature = 1,
): { logprob: Tensor; entropy: Tensor } {
  return tokenLogprobs(c, llama, completionHidden(c, llama, items), items, temperature);
}
