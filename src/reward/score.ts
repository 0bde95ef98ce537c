// Scores completions with a task and further rewards: bounded in time and number, and a failing reward ends no run.
import { RetortError, refuse } from '../errors.js';
import type { Task } from '../task/task.js';
import { thinkAnswer } from './answer.js';
import { defineReward, type Reward, type RewardContext } from './reward.js';
import { type FailureKind, JudgeFailure, openWorkerPool, type WorkerPool } from './worker-pool.js';

/** One completion to score. */
export interface ScoreItem<P = unknown> extends RewardContext {
  readonly problem: P;
  readonly completion: string;
}

/** What came of one completion. */
export interface Scored {
  /** By name, each finite. One that failed is 0; where the task's own score failed as a whole, its names are absent. */
  readonly rewards: Readonly<Record<string, number>>;
  /** The weighted sum of `rewards`. */
  readonly reward: number;
  readonly correct: boolean;
  /**
   * The names that failed (the task's name where its score failed as a whole). A sample with a failure says nothing
   * about the policy: leave it out of its group's mean, spread and loss.
   */
  readonly failed: readonly string[];
}

/** A reward that failed on one completion. */
export interface RewardFailure {
  readonly name: string;
  readonly kind: FailureKind;
  readonly message: string;
  /** The position in the list that was being scored. */
  readonly index: number;
  readonly item: ScoreItem;
}

export interface ScorerOptions<P> {
  readonly task: Task<P>;
  /** Beside the task's own. */
  readonly rewards?: readonly Reward<P>[];
  /** By name; they go before those of the task and the rewards. */
  readonly rewardWeights?: Readonly<Record<string, number>>;
  /** For each reward of each completion. Default 10. */
  readonly timeLimitSeconds?: number;
  /** Completions scored at once. Default 16, or as many as the task says. */
  readonly concurrency?: number;
  /** Threads for each task or reward that came from a module. Default 2. */
  readonly workers?: number;
  /** Handed on to tasks and rewards of this thread; scoring itself goes on. */
  readonly signal?: AbortSignal;
  /** Called for each failure, in the order of the completions, after the whole list is scored. */
  readonly onFailure?: (failure: RewardFailure) => void;
}

export interface Scorer<P = unknown> {
  /**
   * Scores a list; results stand in its order. Never rejects because of a task or a reward (see `Scored.failed`), but
   * where the client of an API that one calls can give no further answer.
   *
   * @throws RetortError (bad-input) where a reward has a name that the task uses too; what the client of an API throws.
   */
  scoreAll(items: readonly ScoreItem<P>[]): Promise<Scored[]>;
  /** Failures so far, by name. */
  readonly failures: ReadonlyMap<string, number>;
  /** Ends the worker threads. */
  close(): Promise<void>;
}

type Judge<P> = (item: ScoreItem<P>) => unknown;
type Note = Omit<RewardFailure, 'index' | 'item'>;

/**
 * Makes a scorer. Tasks and rewards with a `module` run in worker threads that are killed at the time limit and
 * replaced; anything else runs in this thread, where only what awaits can be timed out, never an endless loop.
 *
 * @throws RetortError (bad-input) for wrong options, two rewards of one name, the weight of a reward that is not there,
 *   or a module that does not load.
 */
export async function openScorer<P>(o: ScorerOptions<P>): Promise<Scorer<P>> {
  const { task, rewards = [], timeLimitSeconds = 10, workers = 2 } = o;
  const parts = task.members ?? [task];
  const concurrency = o.concurrency ?? Math.max(16, ...parts.map((part) => part.concurrency ?? 0));
  checkOptions({ timeLimitSeconds, concurrency, workers }, rewards, o.rewardWeights);
  const pools: WorkerPool[] = [];
  const close = async () => {
    await Promise.all([...pools.map((pool) => pool.close()), ...parts.map((part) => part.close?.())]);
  };
  const judgeOf = async (kind: 'task' | 'reward', source: Task<P> | Reward<P>): Promise<Judge<P>> => {
    const score = (item: ScoreItem<P>) =>
      source.score(item.problem, item.completion, {
        ...contextOf(item),
        ...(o.signal && { signal: o.signal }),
      });
    if (!source.module) {
      const own = 'endsByItself' in source && source.endsByItself === true;
      const fatal = (e: RetortError) => own || FATAL.includes(e.code);
      return (item) => withinLimit(() => score(item), own ? null : timeLimitSeconds, fatal);
    }
    const pool = await openWorkerPool(source.module, { kind, size: workers, timeLimitSeconds });
    pools.push(pool);
    return ({ problem, completion, ...item }) =>
      pool.score({ problem, completion, context: contextOf(item) });
  };

  /** The task's, or those of a mix's members: each is judged where it lives. */
  const judgesOfTask = new Map<Task, Judge<P>>();
  const judgeTask: Judge<P> = (item) => {
    if (!task.memberOf) return (judgesOfTask.get(task as Task) as Judge<P>)(item);
    const { problem } = item.problem as { problem: P };
    return (judgesOfTask.get(task.memberOf(item.problem)) as Judge<P>)({ ...item, problem });
  };
  let judges: (readonly [Reward<P>, Judge<P>])[];
  try {
    for (const part of parts) judgesOfTask.set(part as Task, await judgeOf('task', part as Task<P>));
    judges = await Promise.all(rewards.map(async (r) => [r, await judgeOf('reward', r)] as const));
    const known = [...Object.keys(task.rewardWeights ?? {}), ...rewards.map((r) => r.name)];
    const others = Object.keys(o.rewardWeights ?? {}).filter((name) => !known.includes(name));
    if (others.length > 0) await checkOwnNames(others, known, judgesOfTask);
  } catch (e) {
    await close();
    throw e;
  }
  const weights = new Map<string, number>(Object.entries(task.rewardWeights ?? {}));
  for (const r of rewards) weights.set(r.name, r.weight ?? 1);
  for (const [name, weight] of Object.entries(o.rewardWeights ?? {})) weights.set(name, weight);
  const failures = new Map<string, number>();

  const scoreOne = async (item: ScoreItem<P>): Promise<{ scored: Scored; notes: Note[] }> => {
    const notes: Note[] = [];
    const values: Record<string, number> = {};
    const [own, ...others] = await Promise.all([
      settled(judgeTask, item),
      ...judges.map(([, judge]) => settled(judge, item)),
    ]);
    const score = readScore(task.name, own, notes);
    for (const [name, value] of Object.entries(score.rewards)) values[name] = finite(name, value, notes);
    for (const [i, [{ name }]] of judges.entries()) {
      if (Object.hasOwn(values, name)) {
        throw refuse(
          'bad-input',
          `a reward has a name that task ${task.name} uses too`,
          name,
          'rename the reward',
        );
      }
      const outcome = others[i];
      if (outcome instanceof JudgeFailure) notes.push({ name, kind: outcome.kind, message: outcome.message });
      values[name] = outcome instanceof JudgeFailure ? 0 : finite(name, outcome, notes);
    }
    let reward = 0;
    for (const [name, value] of Object.entries(values)) reward += (weights.get(name) ?? 1) * value;
    const failed = notes.map((note) => note.name);
    return { scored: { rewards: values, reward, correct: score.correct, failed }, notes };
  };

  return {
    failures,
    close,
    async scoreAll(items) {
      const results = await mapInOrder(items, concurrency, scoreOne);
      for (const [index, { notes }] of results.entries()) {
        for (const note of notes) {
          failures.set(note.name, (failures.get(note.name) ?? 0) + 1);
          o.onFailure?.({ ...note, index, item: items[index] });
        }
      }
      return results.map(({ scored }) => scored);
    },
  };
}

function checkOptions<P>(
  numbers: { timeLimitSeconds: number; concurrency: number; workers: number },
  rewards: readonly Reward<P>[],
  weights: Readonly<Record<string, number>> = {},
): void {
  for (const [name, value] of Object.entries(numbers)) {
    const whole = name === 'timeLimitSeconds' || Number.isInteger(value);
    if (!(Number.isFinite(value) && value > 0 && whole)) {
      throw refuse('bad-input', `${name} of the scorer`, value, 'give a positive number, whole for counts');
    }
  }
  for (const [name, weight] of Object.entries(weights)) {
    if (!Number.isFinite(weight))
      throw refuse('bad-input', `weight of reward ${name}`, weight, 'give a finite number');
  }
  for (const [i, reward] of rewards.entries()) {
    defineReward(reward);
    if (rewards.findIndex((r) => r.name === reward.name) < i) {
      throw refuse('bad-input', 'two rewards have the name', reward.name, 'rename one of them');
    }
  }
}

/** Refuses a name that is none of those under which the task, or any of a mix, scores an empty and a right completion. */
async function checkOwnNames<P>(
  names: readonly string[],
  known: readonly string[],
  judges: ReadonlyMap<Task, Judge<P>>,
): Promise<void> {
  const own = new Set<string>();
  for (const [task, judge] of judges) {
    const problem = task.problem('train', 0, 0);
    const gold = task.gold?.(problem) ?? null;
    const found: string[] = [];
    for (const completion of gold === null ? [''] : ['', thinkAnswer('', gold)]) {
      const value = await settled(judge, { problem: problem as P, completion });
      found.push(...Object.keys(readScore(task.name, value, []).rewards));
    }
    // One that fails here as a whole says nothing of its names; its failures are counted when it matters.
    if (found.length === 0) return;
    for (const name of found) own.add(name);
  }
  const unknown = names.find((name) => !own.has(name));
  if (unknown === undefined) return;
  const rewards = [...new Set([...own, ...known])].join(', ');
  throw refuse('bad-input', 'weight of an unknown reward', unknown, `the rewards are ${rewards}`);
}

function contextOf({ tokenCount }: RewardContext): RewardContext {
  return tokenCount === undefined ? {} : { tokenCount };
}

// What a judge gives, or the failure; anything it throws that is not a failure of the user's code goes on up.
async function settled<P>(judge: Judge<P>, item: ScoreItem<P>): Promise<unknown> {
  try {
    return await judge(item);
  } catch (e) {
    if (e instanceof JudgeFailure) return e;
    throw e;
  }
}

// A synchronous result needs no timer; a promise that never settles is left behind.
function withinLimit(run: () => unknown, limit: number | null, fatal: (e: RetortError) => boolean): unknown {
  const threw = (e: unknown) => {
    if (e instanceof RetortError && fatal(e)) return e;
    return new JudgeFailure('threw', e instanceof Error ? `${e.name}: ${e.message}` : String(e));
  };
  let value: unknown;
  try {
    value = run();
  } catch (e) {
    throw threw(e);
  }
  if (typeof (value as PromiseLike<unknown> | null | undefined)?.then !== 'function') return value;
  return new Promise((resolve, reject) => {
    const late = () => reject(new JudgeFailure('timed-out', `took more than ${limit} s`));
    const timer = limit === null ? undefined : setTimeout(late, limit * 1000);
    Promise.resolve(value as PromiseLike<unknown>)
      .then(resolve, (e) => reject(threw(e)))
      .finally(() => clearTimeout(timer));
  });
}

/**
 * What the client of an API throws where it can give no further answer, which ends the run: every further completion
 * would fail. A task that ends by itself speaks of nothing else in errors of this family.
 */
const FATAL: readonly string[] = ['budget', 'network', 'interrupted', 'bad-data', 'storage'];

function readScore(
  task: string,
  value: unknown,
  notes: Note[],
): { rewards: Record<string, unknown>; correct: boolean } {
  const nothing = { rewards: {}, correct: false };
  if (value instanceof JudgeFailure) {
    notes.push({ name: task, kind: value.kind, message: value.message });
    return nothing;
  }
  const { rewards, correct } = (value ?? {}) as { rewards?: unknown; correct?: unknown };
  if (typeof rewards !== 'object' || rewards === null || typeof correct !== 'boolean') {
    notes.push({
      name: task,
      kind: 'malformed',
      message: `score must give {rewards, correct}: got ${show(value)}`,
    });
    return nothing;
  }
  return { rewards: rewards as Record<string, unknown>, correct };
}

function finite(name: string, value: unknown, notes: Note[]): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  const kind = typeof value === 'number' ? 'not-finite' : 'malformed';
  notes.push({ name, kind, message: `a reward must be a finite number: got ${show(value)}` });
  return 0;
}

function show(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value).slice(0, 80);
  try {
    return JSON.stringify(value).slice(0, 80);
  } catch {
    return 'an object that is no JSON';
  }
}

async function mapInOrder<A, B>(
  items: readonly A[],
  width: number,
  run: (item: A) => Promise<B>,
): Promise<B[]> {
  const results: B[] = [];
  let next = 0;
  const lane = async () => {
    while (next < items.length) {
      const i = next++;
      results[i] = await run(items[i]);
    }
  };
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, lane));
  return results;
}
