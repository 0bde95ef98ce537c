// The loop of everything that learns from sequences: take some, descend their loss, measure, record. Supervised learning and
// distillation give it what to take and what to descend.
import type { LlamaConfig } from '../model/config.js';
import { addOperations, NO_OPERATIONS, type Operations, trainingOperations } from '../model/operations.js';
import type { Example } from '../text/dataset.js';
import { stepOrSkip } from './optimizer.js';
import { tokensOf } from './packing.js';
import type { ActiveRun } from './recorder.js';
import { learningRateAt, type ScheduleOptions } from './schedule.js';

export interface SupervisedStep {
  /** From 1. */
  readonly step: number;
  readonly steps: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/** What a step needs of the one before, beside weights and optimizer. */
export interface LearningState {
  readonly nextExample: number;
  /** Read, prompts included. */
  readonly tokens: number;
  readonly operations: Operations;
  /** What a teacher spent, where there is one. */
  readonly teacherOperations: number;
  readonly seconds: number;
  /** Of the last step. */
  readonly loss: number;
}

export const LEARNING_START: LearningState = {
  nextExample: 0,
  tokens: 0,
  operations: NO_OPERATIONS,
  teacherOperations: 0,
  seconds: 0,
  loss: 0,
};

/** The sequences of a step. */
export interface Drawn {
  readonly examples: readonly Example[];
  /** Where the next step goes on. */
  readonly next: number;
  /** Operations of making them: of the trained model, and of a teacher. */
  readonly generated?: number;
  readonly teacherOperations?: number;
  readonly metrics?: Readonly<Record<string, number>>;
}

export interface Learning {
  readonly steps: number;
  readonly options: ScheduleOptions & { readonly onNonFinite: 'stop' | 'skip' };
  draw(step: number, from: number): Drawn | Promise<Drawn>;
  /** Adds the gradient of the mean loss, and gives it. */
  learn(examples: readonly Example[]): Promise<number>;
  /** Metrics of held-out data after a step; what is not due is not measured. */
  measure(step: number): Promise<Readonly<Record<string, number>>>;
  readonly warn: (message: string) => void;
}

/** Runs the steps that are left and gives the state after the last. */
export async function* learnSteps(
  active: ActiveRun<LearningState>,
  { steps, options: o, draw, learn, measure, warn }: Learning,
): AsyncGenerator<SupervisedStep, LearningState> {
  const { policy, optimizer } = active;
  const { config } = policy.llama;
  let state = active.state;
  for (let step = active.startStep + 1; step <= steps; step++) {
    const began = performance.now();
    const {
      examples,
      next,
      generated,
      teacherOperations = 0,
      metrics: drawn,
    } = await draw(step, state.nextExample);
    const learningRate = learningRateAt(step - 1, steps, o);
    optimizer.clearGradients();
    const loss = await learn(examples);
    const tokens = examples.reduce((n, e) => n + tokensOf(e), 0);
    const gradNorm = stepOrSkip(optimizer, learningRate, o.onNonFinite, (m) => warn(`step ${step}: ${m}`));
    const seconds = (performance.now() - began) / 1000;
    state = {
      nextExample: next,
      tokens: state.tokens + tokens,
      operations: addOperations(state.operations, { trained: trainedOn(config, examples), generated }),
      teacherOperations: state.teacherOperations + teacherOperations,
      seconds: state.seconds + seconds,
      loss,
    };
    const metrics: Record<string, number> = {
      loss,
      learning_rate: learningRate,
      grad_norm: gradNorm ?? 0,
      num_tokens: state.tokens,
      step_time: seconds,
      tokens_per_second: tokens / seconds,
      ...drawn,
      ...(gradNorm === null ? { skipped_updates: 1 } : {}),
      ...(await measure(step)),
    };
    active.recordMetrics({ step, ...metrics });
    active.stepDone(step, state);
    yield { step, steps, metrics };
  }
  return state;
}

function trainedOn(config: LlamaConfig, examples: readonly Example[]): number {
  return trainingOperations(config, examples.map(tokensOf));
}
