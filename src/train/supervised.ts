// Supervised learning: SFT (the loss sees completions only) and pretraining (it sees every token), one loop.
import type { z } from 'zod';
import { createDevice, type Device } from '../compute/device/device.js';
import type { MemoryReport } from '../compute/device/memory.js';
import { loadTask } from '../task/load.js';
import type { Task } from '../task/task.js';
import { makeNewPolicy } from './new-model.js';
import { stepOrSkip } from './optimizer.js';
import { saveModel } from './options.js';
import { tokensOf } from './packing.js';
import { loadPolicy, type Policy } from './policy.js';
import { openActiveRun } from './recorder.js';
import { learningRateAt } from './schedule.js';
import { type Prepared, prepareData, take } from './supervised-data.js';
import { lossOver, meanLoss } from './supervised-loss.js';
import {
  type SupervisedCommand,
  type SupervisedOptions,
  settleSupervisedOptions,
  type supervisedOptions,
} from './supervised-options.js';

export type SupervisedInput = Omit<z.input<typeof supervisedOptions>, 'task'> & {
  readonly task?: string | Task;
  /** Go on with the run in this folder; the other options are those it was begun with. */
  readonly resume?: string;
  readonly device?: Device;
  readonly signal?: AbortSignal;
  readonly warn?: (message: string) => void;
};

export interface SupervisedStep {
  /** From 1. */
  readonly step: number;
  readonly steps: number;
  readonly metrics: Readonly<Record<string, number>>;
}

export interface SupervisedSummary {
  readonly steps: number;
  /** Of the last step. */
  readonly loss: number;
  /** On held-out data; null where there is none. */
  readonly evalLoss: number | null;
  /** Read, prompts included. */
  readonly tokens: number;
  readonly seconds: number;
  readonly run: string | null;
  readonly saved: string | null;
  readonly memory: MemoryReport;
}

interface State {
  readonly nextExample: number;
  readonly tokens: number;
  readonly seconds: number;
  readonly loss: number;
}

/**
 * Fine-tunes on prompts and completions: the loss is over completions only.
 * @example
 * for await (const { step, metrics } of sft({ task: 'number-sort', steps: 300 })) console.log(step, metrics.loss);
 */
export function sft(input: SupervisedInput): AsyncGenerator<SupervisedStep, SupervisedSummary> {
  return supervised('sft', input);
}

/** Pretrains: the loss is over every token of texts, or of a task's prompts and traces. */
export function pretrain(input: SupervisedInput): AsyncGenerator<SupervisedStep, SupervisedSummary> {
  return supervised('pretrain', input);
}

async function* supervised(
  command: SupervisedCommand,
  input: SupervisedInput,
): AsyncGenerator<SupervisedStep, SupervisedSummary> {
  const {
    resume,
    device: givenDevice,
    signal,
    warn = (m: string) => process.emitWarning(m),
    ...rest
  } = input;
  const given = { ...rest, task: typeof input.task === 'string' ? input.task : input.task?.name };
  const o = settleSupervisedOptions(command, given, resume !== undefined);
  const task =
    typeof input.task === 'string' ? await loadTask(input.task, o.taskOptions) : (input.task ?? null);
  const device = givenDevice ?? createDevice({ threads: o.threads });
  try {
    return yield* run(command, o, task, device, { resume, signal, warn });
  } finally {
    if (!givenDevice) await device.close();
  }
}

async function* run(
  command: SupervisedCommand,
  o: SupervisedOptions,
  task: Task | null,
  device: Device,
  { resume, signal, warn }: { resume?: string; signal?: AbortSignal; warn: (message: string) => void },
): AsyncGenerator<SupervisedStep, SupervisedSummary> {
  const save = saveModel(o, resume !== undefined);
  let prepared: Prepared | null = null;
  /** Once, as soon as there is a policy. */
  const prepare = ({ llama: { config }, tokenizer }: Policy): Prepared => {
    prepared ??= prepareData(command, o, task, { config, tokenizer });
    return prepared;
  };
  const active = openActiveRun<State>({
    device,
    command,
    options: o,
    out: o.out ?? null,
    resume: resume ?? null,
    seed: o.seed,
    makePolicy: () => {
      const policy = o.model
        ? loadPolicy(o.model, device, { trainable: true })
        : makeNewPolicy(o, task?.alphabet ?? null, device, o.seed);
      prepare(policy);
      return policy;
    },
    optimizer: { ...o, eps: o.adamEpsilon },
    initialState: { nextExample: 0, tokens: 0, seconds: 0, loss: 0 },
    saveEvery: o.saveEvery,
    keepLast: o.keepLast,
    signal,
    warn,
  });
  try {
    const { policy, optimizer } = active;
    const { train, heldout, steps } = prepare(policy);
    const perStep = o.batchTokens * o.gradientAccumulationSteps;
    let state = active.state;
    let evalLoss: number | null = null;
    for (let step = active.startStep + 1; step <= steps; step++) {
      const began = performance.now();
      const { examples, next } = take(train, state.nextExample, perStep);
      const learningRate = learningRateAt(step - 1, steps, o);
      optimizer.clearGradients();
      const loss = await meanLoss(policy.llama, examples, o, true);
      const tokens = examples.reduce((n, e) => n + tokensOf(e), 0);
      const gradNorm = stepOrSkip(optimizer, learningRate, o.onNonFinite, (m) => warn(`step ${step}: ${m}`));
      const seconds = (performance.now() - began) / 1000;
      state = { nextExample: next, tokens: state.tokens + tokens, seconds: state.seconds + seconds, loss };
      const metrics: Record<string, number> = {
        loss,
        learning_rate: learningRate,
        grad_norm: gradNorm ?? 0,
        num_tokens: state.tokens,
        step_time: seconds,
        tokens_per_second: tokens / seconds,
        ...(train.size === null ? {} : { epoch: next / train.size }),
        ...(gradNorm === null ? { skipped_updates: 1 } : {}),
      };
      const due = step === steps || (o.evalEvery > 0 && step % o.evalEvery === 0);
      if (heldout && due) {
        evalLoss = await lossOver(policy.llama, heldout, o);
        metrics.eval_loss = evalLoss;
      }
      active.recordMetrics({ step, ...metrics });
      active.stepDone(step, state);
      yield { step, steps, metrics };
    }
    if (heldout && evalLoss === null) evalLoss = await lossOver(policy.llama, heldout, o);
    const saved = save(policy);
    const { loss, tokens, seconds } = state;
    const summary = {
      steps,
      loss,
      evalLoss,
      tokens,
      seconds,
      run: active.dir,
      saved,
      memory: device.memory(),
    };
    active.finish(steps, state, summary);
    return summary;
  } finally {
    active.close();
  }
}
