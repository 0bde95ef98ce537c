// What a run will take before it is begun: bytes by kind, exactly, and the time of a step, by a measurement.
import { createDevice, type Device } from '../compute/device/device.js';
import type { TargetInfo } from '../compute/kernel/ir.js';
import { refuse } from '../errors.js';
import type { LlamaConfig } from '../model/config.js';
import { parameterCount } from '../model/config.js';
import { loadTask } from '../task/load.js';
import type { Task } from '../task/task.js';
import { criticConfig } from './critic.js';
import type { GrpoInput } from './grpo.js';
import { roundsOf, settleGrpoOptions } from './grpo-options.js';
import { planNewModel } from './new-model.js';
import { grpoRehearsal } from './plan/grpo.js';
import { limitOf, type PlannedBytes, type PlannedMemory, planMemory, sizesOf } from './plan/memory.js';
import { ppoRehearsal } from './plan/ppo.js';
import type { Rehearsal } from './plan/rehearsal.js';
import type { RolloutSubject } from './plan/rollouts.js';
import { type PlannedSeconds, planSeconds } from './plan/seconds.js';
import { supervisedRehearsal } from './plan/supervised.js';
import { readPolicyPlan } from './policy.js';
import type { PpoInput } from './ppo.js';
import { settlePpoOptions } from './ppo-options.js';
import { checkFit, promptTemplate } from './rollout-checks.js';
import type { RolloutOptions } from './rollout-options.js';
import { type LoopInput, optionsOf } from './setting.js';
import type { SupervisedInput } from './supervised.js';
import { prepareData } from './supervised-data.js';
import { type SupervisedCommand, settleSupervisedOptions } from './supervised-options.js';

export interface Plan {
  readonly command: 'grpo' | 'ppo' | SupervisedCommand;
  readonly target: TargetInfo;
  readonly threads: number;
  readonly parameters: number;
  readonly steps: number;
  /** Tokens of the completions that `bytes` are for, the longest that may come; null without rollouts. */
  readonly completionLength: number | null;
  /** Peaks by kind, as the run's summary reports them. */
  readonly bytes: PlannedBytes;
  /** The same for completions of the mean length that was given; null where none was. */
  readonly mean: { readonly completionLength: number; readonly bytes: PlannedBytes } | null;
  readonly memory: PlannedMemory;
  /** For the mean length where one was given, else for the longest. Null where nothing could be measured. */
  readonly seconds: (PlannedSeconds & { readonly run: number }) | null;
}

export interface PlanOptions {
  /** Expected mean length of a completion in tokens, for GRPO and PPO. */
  readonly meanLength?: number;
  /** Default true; false leaves the seconds out. */
  readonly measure?: boolean;
  /** Bytes that the run may take. Default: what this machine has. */
  readonly limit?: number;
  /** Default: one of its own, closed at the end. */
  readonly device?: Device;
  readonly signal?: AbortSignal;
  readonly onStage?: (stage: string) => void;
}

/** Steps that are played for bytes: peaks of later ones hold the packed weights of earlier ones; one that is counted. */
const ROLLOUT_STEPS = { played: 2, counted: 1 };
/** Examples differ from step to step, and with them the sizes of passes. */
const SUPERVISED_STEPS = { played: 10, counted: 3 };

/**
 * Plans a GRPO run for completions as long as they may get, and for a mean length where one is given. Rewards, files and
 * checkpoints are not in the seconds.
 * @throws RetortError bad-input as the run itself would
 * @example
 * const { bytes } = await planGrpo({ model: 'models/countdown-base', task: 'countdown' }, { measure: false });
 * console.log(bytes.activations, bytes.total);
 */
export async function planGrpo(input: GrpoInput, options: PlanOptions = {}): Promise<Plan> {
  const o = settleGrpoOptions(optionsOf(input));
  const subject = await subjectOf(input, o, options, roundsOf(o));
  return planRollouts('grpo', subject.config, o, options, (mean) => grpoRehearsal(subject, o, mean));
}

/**
 * Plans a PPO run as `planGrpo` does one of GRPO.
 * @throws RetortError bad-input as the run itself would
 */
export async function planPpo(input: PpoInput, options: PlanOptions = {}): Promise<Plan> {
  const o = settlePpoOptions(optionsOf(input));
  const policy = await subjectOf(input, o, options);
  const subject = { ...policy, critic: criticConfig(policy, o) };
  return planRollouts('ppo', policy.config, o, options, (mean) => ppoRehearsal(subject, o, mean));
}

/** Checks what the run itself would check of its model and its task. */
async function subjectOf(
  input: LoopInput,
  o: RolloutOptions,
  { meanLength }: PlanOptions,
  rounds = 1,
): Promise<RolloutSubject> {
  if (meanLength !== undefined) {
    const most = o.maxCompletionLength;
    if (!Number.isInteger(meanLength) || meanLength < 1 || meanLength > most)
      throw refuse('bad-input', 'mean length of completions', meanLength, `give 1 to ${most} tokens`);
  }
  const task: Task = typeof input.task === 'string' ? await loadTask(input.task, o.taskOptions) : input.task;
  const { config, tokenizer } = readPolicyPlan(o.model);
  const template = promptTemplate(o, task, tokenizer);
  checkFit(config, tokenizer, task, template, o, rounds);
  return { config, tokenizer, task, template };
}

/** @param rehearsal of the run with completions of a mean length, by default as long as they may get */
function planRollouts(
  command: 'grpo' | 'ppo',
  config: LlamaConfig,
  o: RolloutOptions & { readonly threads?: number },
  options: PlanOptions,
  rehearsal: (meanLength?: number) => Rehearsal,
): Promise<Plan> {
  const { meanLength } = options;
  const evaluations = (o.evalEnds ? 4 : 0) + (o.evalEvery > 0 ? Math.floor(o.steps / o.evalEvery) : 0);
  return planRun(
    {
      command,
      config,
      steps: o.steps,
      ...ROLLOUT_STEPS,
      evaluations,
      threads: o.threads,
      completionLength: o.maxCompletionLength,
      longest: rehearsal(),
      // The longest leave gaps in passes that hold whole sequences; shorter ones fill them.
      mixed: rehearsal(Math.ceil(o.maxCompletionLength / 4)),
      mean:
        meanLength === undefined ? null : { completionLength: meanLength, rehearsal: rehearsal(meanLength) },
    },
    options,
  );
}

/**
 * Plans a run of SFT or pretraining over its own first examples.
 * @throws RetortError bad-input, bad-data as the run itself would
 */
export async function planSupervised(
  command: SupervisedCommand,
  input: SupervisedInput,
  options: PlanOptions = {},
): Promise<Plan> {
  const { task: given, resume, device, signal, warn, ...fields } = input;
  const name = typeof given === 'string' ? given : given?.name;
  const o = settleSupervisedOptions(command, { ...fields, task: name }, false);
  const task = typeof given === 'string' ? await loadTask(given, o.taskOptions) : (given ?? null);
  const policy = o.model ? readPolicyPlan(o.model) : planNewModel(o, task?.alphabet ?? null);
  const data = prepareData(command, o, task, policy);
  const { steps } = data;
  const within = o.evalEvery > 0 ? Math.ceil(steps / o.evalEvery) : 1;
  return planRun(
    {
      command,
      config: policy.config,
      steps,
      ...SUPERVISED_STEPS,
      played: Math.min(steps, SUPERVISED_STEPS.played),
      evaluations: data.heldout ? within : 0,
      threads: o.threads,
      completionLength: null,
      longest: supervisedRehearsal(policy.config, data, o),
      mixed: null,
      mean: null,
    },
    options,
  );
}

interface Planned {
  readonly command: Plan['command'];
  readonly config: LlamaConfig;
  readonly steps: number;
  /** Steps whose bytes are counted. */
  readonly played: number;
  /** Steps whose operations are. */
  readonly counted: number;
  readonly evaluations: number;
  readonly threads: number | undefined;
  readonly completionLength: number | null;
  readonly longest: Rehearsal;
  /** Where it may take more memory than the longest. */
  readonly mixed: Rehearsal | null;
  readonly mean: { readonly rehearsal: Rehearsal; readonly completionLength: number } | null;
}

async function planRun(p: Planned, options: PlanOptions): Promise<Plan> {
  const { measure = true, signal, onStage } = options;
  const device = options.device ?? createDevice({ threads: p.threads });
  const limit = options.limit ?? limitOf(device);
  try {
    const extent = { steps: p.played, evaluate: true, signal };
    onStage?.('counting bytes');
    const play = async (rehearsal: Rehearsal) => ({
      rehearsal,
      sizes: await sizesOf(device, rehearsal, extent),
    });
    const longest = await play(p.longest);
    const mean = p.mean && (await play(p.mean.rehearsal));
    const mixed = p.mixed && (await play(p.mixed));
    const all = [longest, mean, mixed].filter((one) => one !== null);
    const memory = await planMemory(device, all, extent, limit);
    const { rehearsal } = mean ?? longest;
    const counted = { ...extent, steps: Math.min(p.steps, p.counted) };
    // The interpreter would take minutes, and nobody trains on it.
    const seconds =
      measure && device.target.name !== 'interpreter'
        ? await planSeconds(device, rehearsal, counted, limit, onStage)
        : null;
    return {
      command: p.command,
      target: device.target,
      threads: device.threads,
      parameters: parameterCount(p.config),
      steps: p.steps,
      completionLength: p.completionLength,
      bytes: longest.sizes.bytes,
      mean: mean && p.mean && { completionLength: p.mean.completionLength, bytes: mean.sizes.bytes },
      memory,
      seconds: seconds && {
        ...seconds,
        run: p.steps * seconds.step + p.evaluations * (seconds.phases.evaluation ?? 0),
      },
    };
  } finally {
    if (!options.device) await device.close();
  }
}
