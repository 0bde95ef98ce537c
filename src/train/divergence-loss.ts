// The loss of distillation from distributions: the mean divergence of the student from its teacher at each learned token.
import { type Context, Tape } from '../compute/autograd.js';
import { headDivergence, type TeacherRows } from '../compute/op/divergence/head-divergence.js';
import { columnSums } from '../compute/op/sum/sum.js';
import { viewOf } from '../compute/tensor.js';
import type { Llama } from '../model/llama.js';
import type { Example } from '../text/dataset.js';
import { completionHidden, eachPass } from './packing.js';

export interface DivergenceLossOptions {
  /** 0: forward KL, 1: reverse KL, between: Jensen-Shannon. */
  readonly beta: number;
  /** What the logits of both are divided by. */
  readonly temperature: number;
  /** Most tokens, prompts included, in one forward and backward pass. */
  readonly batchTokens: number;
  readonly gradientCheckpointing: boolean;
}

/** What a teacher says before each learned token of a pass, one example after another. */
export type TeacherOf = (c: Context, pass: readonly Example[]) => TeacherRows;

/** A teacher that runs beside its student, on the same device. */
export function runningTeacher(llama: Llama): TeacherOf {
  return (c, pass) => ({ hidden: completionHidden(c, llama, pass), head: llama.head });
}

/** Mean divergence over the examples' learned tokens; with `learn` its gradient is added to the student's. */
export async function meanDivergence(
  llama: Llama,
  teacher: TeacherOf,
  examples: readonly Example[],
  o: DivergenceLossOptions,
  learn: boolean,
): Promise<number> {
  const { device } = llama;
  const targets = examples.reduce((n, e) => n + e.completionIds.length, 0);
  let sum = 0;
  await eachPass(llama, examples, o.batchTokens, (pass) => {
    const said = teacher({ device, tape: null }, pass);
    const tape = learn ? new Tape(device, { checkpointing: o.gradientCheckpointing }) : null;
    const hidden = completionHidden({ device, tape }, llama, pass);
    const rows = headDivergence({ device, tape }, hidden, llama.head, said, o);
    sum += columnSums(device, viewOf(rows, [rows.size, 1]))[0];
    if (!tape) return;
    device.fill(tape.contribute(rows).tensor, 1 / targets);
    tape.backward();
  });
  return sum / targets;
}
