// Supervised learning: SFT (the loss sees completions only) and pretraining (it sees every token), one loop.
import { z } from 'zod';
import { Tape } from '../compute/autograd.js';
import { createDevice, type Device } from '../compute/device/device.js';
import type { MemoryReport } from '../compute/device/memory.js';
import { columnSums } from '../compute/op/sum/sum.js';
import { viewOf } from '../compute/tensor.js';
import { RetortError, refuse } from '../errors.js';
import type { Llama } from '../model/llama.js';
import { loadTask } from '../task/load.js';
import type { Split, Task } from '../task/task.js';
import type { Example } from '../text/dataset.js';
import { getTemplate } from '../text/template.js';
import { documentExamples, type ExampleSource, fileExamples, traceExamples, wholeText } from './examples.js';
import { checkNewModelFields, makeNewPolicy, newModelFields } from './new-model.js';
import { optimizerFields, parseOptions, runFields, saveModel } from './options.js';
import { completionLogprobs, eachPass, tokensOf } from './packing.js';
import { loadPolicy, type Policy } from './policy.js';
import { openActiveRun } from './recorder.js';
import { learningRateAt } from './schedule.js';

export type SupervisedCommand = 'sft' | 'pretrain';

/** The options of `retort sft` and `retort pretrain`; plain JSON, as they stand in config.json. */
export const supervisedOptions = z.strictObject({
  ...newModelFields,
  task: z.string().optional().describe('learn the traces of this task (name, or path of a module)'),
  taskOptions: z.record(z.string(), z.unknown()).default({}).describe('options of the task'),
  data: z
    .string()
    .optional()
    .describe('file to learn from instead: JSONL of prompt/completion, messages or text; plain text'),
  evalData: z
    .string()
    .optional()
    .describe('file of held-out data; default with a task: its held-out problems'),
  template: z.string().optional().describe("prompt template; default: the task's, or raw"),
  steps: z.number().int().min(1).optional().describe('optimizer steps; default: as the epochs say, or 1000'),
  epochs: z.number().positive().optional().describe('passes over the data'),
  batchTokens: z
    .number()
    .int()
    .min(1)
    .default(1536)
    .describe('tokens packed into one forward and backward pass'),
  gradientAccumulationSteps: z
    .number()
    .int()
    .min(1)
    .default(1)
    .describe('passes that make one optimizer step'),
  ...optimizerFields,
  learningRate: optimizerFields.learningRate.default(2e-3),
  warmupSteps: optimizerFields.warmupSteps.default(50),
  schedule: optimizerFields.schedule.default('cosine'),
  minLearningRateRatio: optimizerFields.minLearningRateRatio.default(0.02),
  beta2: optimizerFields.beta2.default(0.95),
  weightDecay: optimizerFields.weightDecay.default(0.05),
  evalEvery: z
    .number()
    .int()
    .min(0)
    .default(0)
    .describe('steps between losses on held-out data; 0: only at the end'),
  evalExamples: z.number().int().min(1).default(200).describe('held-out examples of such a loss'),
  onNonFinite: z
    .enum(['stop', 'skip'])
    .default('stop')
    .describe('an infinite or NaN gradient ends the run or skips the update'),
  ...runFields,
  saveEvery: runFields.saveEvery.default(500),
});
export type SupervisedOptions = z.output<typeof supervisedOptions>;

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

interface Prepared {
  readonly train: ExampleSource;
  readonly heldout: ExampleSource | null;
  readonly steps: number;
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
  const o = parseOptions(command, supervisedOptions, given);
  // A resumed run's options have their defaults filled in.
  if (resume === undefined) checkNewModelFields(command, input);
  if (!input.task === !o.data) {
    throw refuse(
      'bad-input',
      `what ${command} learns from`,
      { task: o.task, data: o.data },
      'give either a task or data',
    );
  }
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
  /** Reads and checks the data, once, as soon as there is a policy: wrong data must not begin a run. */
  const prepare = (policy: Policy): Prepared => {
    if (prepared) return prepared;
    const train = sourceOf(command, o, task, policy, 'train') as ExampleSource;
    const heldout = sourceOf(command, o, task, policy, 'heldout');
    if (task) checkTraces(train, 1000);
    if (task && heldout) checkTraces(heldout, o.evalExamples);
    prepared = { train, heldout, steps: o.steps ?? stepsOfEpochs(train, o) };
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
      const loss = await meanLoss(policy.llama, examples, o.batchTokens, true);
      const tokens = examples.reduce((n, e) => n + tokensOf(e), 0);
      let gradNorm = 0;
      let skipped = 0;
      try {
        gradNorm = optimizer.step(learningRate);
      } catch (error) {
        if (!(error instanceof RetortError && error.code === 'numerics' && o.onNonFinite === 'skip'))
          throw error;
        warn(`step ${step}: ${error.message}; the update was skipped`);
        optimizer.clearGradients();
        skipped = 1;
      }
      const seconds = (performance.now() - began) / 1000;
      state = { nextExample: next, tokens: state.tokens + tokens, seconds: state.seconds + seconds, loss };
      const metrics: Record<string, number> = {
        loss,
        learning_rate: learningRate,
        grad_norm: gradNorm,
        num_tokens: state.tokens,
        step_time: seconds,
        tokens_per_second: tokens / seconds,
        ...(train.size === null ? {} : { epoch: next / train.size }),
        ...(skipped ? { skipped_updates: skipped } : {}),
      };
      const due = step === steps || (o.evalEvery > 0 && step % o.evalEvery === 0);
      if (heldout && due) {
        evalLoss = await lossOver(policy, heldout, o);
        metrics.eval_loss = evalLoss;
      }
      active.recordMetrics({ step, ...metrics });
      active.stepDone(step, state);
      yield { step, steps, metrics };
    }
    if (heldout && evalLoss === null) evalLoss = await lossOver(policy, heldout, o);
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

/** Where a command's examples come from; null where there are no held-out ones. */
function sourceOf(
  command: SupervisedCommand,
  o: SupervisedOptions,
  task: Task | null,
  { llama, tokenizer }: Policy,
  split: Split,
): ExampleSource | null {
  const context = llama.config.maxPositionEmbeddings;
  if (task) {
    const template = getTemplate(o.template ?? task.template, tokenizer);
    const source = traceExamples(task, split, tokenizer, template, o.seed, context);
    if (command === 'sft') return source;
    return {
      size: source.size,
      at(index) {
        const { promptIds, completionIds } = source.at(index);
        return wholeText([...promptIds, ...completionIds]);
      },
    };
  }
  const path = split === 'train' ? o.data : o.evalData;
  if (!path) return null;
  if (command === 'pretrain') return documentExamples(path, tokenizer, context, o.seed);
  return fileExamples(path, tokenizer, getTemplate(o.template ?? 'raw', tokenizer), o.seed, context);
}

/** Makes a task's traces, all of a data set and some of those that never end: a wrong one is refused now. */
function checkTraces(source: ExampleSource, some: number): void {
  for (let i = 0; i < (source.size ?? some); i++) source.at(i);
}

/** Optimizer steps that cover the epochs. */
function stepsOfEpochs(source: ExampleSource, o: SupervisedOptions): number {
  if (source.size === null) {
    if (o.epochs !== undefined)
      throw refuse('bad-input', 'epochs of an endless source', o.epochs, 'give steps instead');
    return 1000;
  }
  const examples = Math.ceil((o.epochs ?? 1) * source.size);
  let steps = 0;
  for (let at = 0; at < examples; steps++) {
    at = take(source, at, o.batchTokens * o.gradientAccumulationSteps).next;
  }
  return steps;
}

/** The next examples that fit into `tokens`, one at least. */
function take(source: ExampleSource, from: number, tokens: number): { examples: Example[]; next: number } {
  const examples: Example[] = [];
  let next = from;
  for (let total = 0; ; next++) {
    const example = source.at(next);
    total += tokensOf(example);
    if (examples.length > 0 && total > tokens) return { examples, next };
    examples.push(example);
  }
}

/** Sum of -log p over a pass's completions; adds its gradient times `weight` where there is one. */
function passLoss(llama: Llama, pass: readonly Example[], weight: number | null): number {
  const { device } = llama;
  const tape = weight === null ? null : new Tape(device);
  const { logprob } = completionLogprobs({ device, tape }, llama, pass);
  const [sum] = columnSums(device, viewOf(logprob, [logprob.size, 1]));
  if (tape && weight !== null) {
    device.fill(tape.contribute(logprob).tensor, -weight);
    tape.backward();
  }
  return -sum;
}

/** Mean loss over the completions' tokens; with `learn` its gradient is added to the model's. */
async function meanLoss(
  llama: Llama,
  examples: readonly Example[],
  batchTokens: number,
  learn: boolean,
): Promise<number> {
  const targets = examples.reduce((n, e) => n + e.completionIds.length, 0);
  let sum = 0;
  await eachPass(llama, examples, batchTokens, (pass) => {
    sum += passLoss(llama, pass, learn ? 1 / targets : null);
  });
  return sum / targets;
}

/** Mean loss over held-out examples. */
function lossOver({ llama }: Policy, source: ExampleSource, o: SupervisedOptions): Promise<number> {
  const count = Math.min(source.size ?? o.evalExamples, o.evalExamples);
  const examples = Array.from({ length: count }, (_, i) => source.at(i));
  return meanLoss(llama, examples, o.batchTokens, false);
}
