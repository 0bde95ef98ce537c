// What a loop with rollouts is given beside its options, and what it opens of it: task, rewards, device.
import { createDevice, type Device } from '../compute/device/device.js';
import { findReward } from '../reward/load.js';
import type { Reward } from '../reward/reward.js';
import { openScorer, type RewardFailure, type Scored, type ScoreItem, type Scorer } from '../reward/score.js';
import type { GenerateProgress } from '../rollout/generate.js';
import { loadTask } from '../task/load.js';
import { taskNames } from '../task/registry.js';
import type { Task } from '../task/task.js';
import type { ActiveRun } from './recorder.js';
import type { OnEvaluation } from './rollout-evaluation.js';
import type { RolloutOptions } from './rollout-options.js';

/** What the library takes beside options: what cannot stand in a file. */
export interface LoopInput {
  readonly task: string | Task;
  readonly rewards?: readonly (string | Reward)[];
  /** Go on with the run in this folder; the other options are those it was begun with. */
  readonly resume?: string;
  /** Default: one of its own, closed at the end. */
  readonly device?: Device;
  readonly signal?: AbortSignal;
  readonly onProgress?: (stage: string, progress: GenerateProgress) => void;
  readonly onEvaluation?: OnEvaluation;
  readonly onRewardFailure?: (failure: RewardFailure) => void;
  readonly warn?: (message: string) => void;
}

/** The options alone, tasks and rewards by name, as plain JSON. */
export function optionsOf(input: LoopInput): Record<string, unknown> {
  const { resume, device, signal, onProgress, onEvaluation, onRewardFailure, warn, ...rest } = input;
  return { ...rest, ...namesOf(rest) };
}

/** Tasks and rewards by name. */
export function namesOf({ task, rewards }: Pick<LoopInput, 'task' | 'rewards'>): {
  task: string;
  rewards: string[];
} {
  return {
    task: typeof task === 'string' ? task : task?.name,
    rewards: (rewards ?? []).map((r) => (typeof r === 'string' ? r : r.name)),
  };
}

/** What a loop runs in. */
export interface Setting {
  readonly task: Task;
  readonly device: Device;
  readonly scorer: Scorer;
  readonly warn: (message: string) => void;
  /**
   * Scores the completions of a round of a step. What a user's function said is kept with the run, so that a resumed run
   * hears the same.
   */
  score(
    run: Pick<ActiveRun<unknown>, 'journalled'>,
    step: number,
    round: number,
    items: readonly ScoreItem[],
  ): Promise<Scored[]>;
  /** Closes what was opened. */
  close(): Promise<void>;
}

/** @throws RetortError bad-input for a task or a reward that there is not */
export async function openSetting(
  input: LoopInput,
  o: Pick<RolloutOptions, 'taskOptions' | 'maxCompletionLength' | 'rewardWeights' | 'rewardTimeout'> & {
    readonly threads?: number;
  },
): Promise<Setting> {
  const task = typeof input.task === 'string' ? await loadTask(input.task, o.taskOptions) : input.task;
  const rewards = await Promise.all(
    (input.rewards ?? []).map((r) =>
      typeof r === 'string' ? findReward(r, { maxTokens: o.maxCompletionLength, task }) : r,
    ),
  );
  const device = input.device ?? createDevice({ threads: o.threads });
  const scorer = await openScorer({
    task,
    rewards,
    rewardWeights: o.rewardWeights,
    timeLimitSeconds: o.rewardTimeout,
    signal: input.signal,
    onFailure: input.onRewardFailure,
  });
  const deterministic = (task.members ?? [task]).every(repeats) && rewards.length === 0;
  return {
    task,
    device,
    scorer,
    warn: input.warn ?? ((message) => process.emitWarning(message)),
    score(run, step, round, items) {
      const now = () => scorer.scoreAll(items);
      return deterministic ? now() : run.journalled(`${step}.${round}`, step, now);
    },
    async close() {
      await scorer.close();
      if (!input.device) await device.close();
    },
  };
}

/** Whether the same completion gets the same score for certain: of a user's task nobody knows. */
function repeats(task: Task): boolean {
  return taskNames().includes(task.name) && !task.module && task.repeatable !== false;
}
