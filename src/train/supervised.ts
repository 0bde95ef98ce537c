// Supervised learning: SFT (the loss sees completions only) and pretraining (it sees every token), one loop.
import type { z } from 'zod';
import { createDevice, type Device } from '../compute/device/device.js';
import type { MemoryReport } from '../compute/device/memory.js';
import type { Operations } from '../model/operations.js';
import { loadTask } from '../task/load.js';
import type { Task } from '../task/task.js';
import { makeNewPolicy } from './new-model.js';
import { saveModel } from './options.js';
import { loadPolicy, type Policy } from './policy.js';
import { openActiveRun } from './recorder.js';
import type { LoopInput } from './setting.js';
import { type Prepared, prepareData, take } from './supervised-data.js';
import {
  type Drawn,
  LEARNING_START,
  type LearningState,
  learnSteps,
  type SupervisedStep,
} from './supervised-loop.js';
import { lossOver, meanLoss } from './supervised-loss.js';
import {
  type SupervisedCommand,
  type SupervisedOptions,
  settleSupervisedOptions,
  type supervisedOptions,
} from './supervised-options.js';

export type { SupervisedStep } from './supervised-loop.js';

export type SupervisedInput = Omit<z.input<typeof supervisedOptions>, 'task'> &
  Partial<Pick<LoopInput, 'task' | 'resume' | 'device' | 'signal' | 'warn'>>;

export interface SupervisedSummary {
  readonly steps: number;
  /** Of the last step. */
  readonly loss: number;
  /** On held-out data; null where there is none. */
  readonly evalLoss: number | null;
  /** Read, prompts included. */
  readonly tokens: number;
  readonly operations: Operations;
  readonly seconds: number;
  readonly run: string | null;
  readonly saved: string | null;
  readonly memory: MemoryReport;
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
  const active = openActiveRun<LearningState>({
    device,
    command,
    options: o,
    resume,
    makePolicy: () => {
      const policy = o.model
        ? loadPolicy(o.model, device, { trainable: true })
        : makeNewPolicy(o, task?.alphabet ?? null, device, o.seed);
      prepare(policy);
      return policy;
    },
    initialState: LEARNING_START,
    signal,
    warn,
  });
  try {
    const { policy } = active;
    const { train, heldout, steps } = prepare(policy);
    const perStep = o.batchTokens * o.gradientAccumulationSteps;
    let evalLoss: number | null = null;
    const state = yield* learnSteps(active, {
      steps,
      options: o,
      warn,
      draw(_, from): Drawn {
        const { examples, next } = take(train, from, perStep);
        return { examples, next, metrics: train.size === null ? {} : { epoch: next / train.size } };
      },
      learn: (examples) => meanLoss(policy.llama, examples, o, true),
      async measure(step): Promise<Record<string, number>> {
        const due = step === steps || (o.evalEvery > 0 && step % o.evalEvery === 0);
        if (!heldout || !due) return {};
        evalLoss = await lossOver(policy.llama, heldout, o);
        return { eval_loss: evalLoss };
      },
    });
    if (heldout && evalLoss === null) evalLoss = await lossOver(policy.llama, heldout, o);
    const saved = save(policy);
    const { loss, tokens, operations, seconds } = state;
    const summary = {
      steps,
      loss,
      evalLoss,
      tokens,
      operations,
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
