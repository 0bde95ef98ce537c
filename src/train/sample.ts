// Rejection sampling: several completions of each problem, scored; those that the rules keep become an SFT data set.
// DeepSeek-R1 (arXiv 2501.12948, section 2.3.3) makes its second SFT set so: right completions only, without mixed
// languages and chaotic texts. A line of data.jsonl is learned from as exactly the tokens that were sampled.
import { setImmediate } from 'node:timers/promises';
import type { z } from 'zod';
import { contextOf } from '../checkpoint/open-model.js';
import { identifyModel, type ModelIdentity } from '../checkpoint/weights-hash.js';
import type { MemoryReport } from '../compute/device/memory.js';
import { RetortError } from '../errors.js';
import { freeLlama } from '../model/llama.js';
import type { Scored } from '../reward/score.js';
import { createEngine } from '../rollout/engine.js';
import { type Completion, samplingOf } from '../rollout/request.js';
import { encodePrompt } from '../text/template.js';
import { indexedProblems } from './evaluate.js';
import { DROP_RULES, type DropRule } from './keep.js';
import { loadPolicy, type Policy } from './policy.js';
import { checkPrompt, promptTemplate } from './rollout-checks.js';
import { openSampleFolder, type SampleCounts, type SampleFolder } from './sample-folder.js';
import { type Prompt, type SampleJob, type SampleLine, takeProblem } from './sample-lines.js';
import { type sampleOptions, settleSampleOptions } from './sample-options.js';
import { countFailures, toScore } from './scoring.js';
import { type LoopInput, namesOf, openSetting } from './setting.js';

/** What the library takes: the options, and what cannot stand in a file. */
export type SampleInput = Omit<z.input<typeof sampleOptions>, 'task' | 'rewards'> &
  Omit<LoopInput, 'onProgress' | 'onEvaluation'>;

export type { SampleLine } from './sample-lines.js';

/** Some further problems are done. */
export interface SampleStep {
  /** Problems done, and in all. */
  readonly step: number;
  readonly steps: number;
  readonly counts: SampleCounts;
  /** What was kept of these problems, as it stands in data.jsonl. */
  readonly lines: readonly SampleLine[];
}

export interface SampleSummary extends SampleCounts {
  readonly run: string;
  /** The data set. */
  readonly data: string;
  readonly template: string;
  readonly source: ModelIdentity;
  readonly memory: MemoryReport;
  /** What a judge's API cost in all, by its file of answers; absent where the task has none. */
  readonly judging?: Readonly<Record<string, number>>;
}

/** Problems whose completions are scored and written together. */
const TOGETHER = 8;

/**
 * Samples, scores and keeps, some problems at each turn of the loop.
 * @throws RetortError for bad input before anything expensive starts; interrupted where the signal is aborted
 * @example
 * for await (const { counts } of sample({ model: 'models/countdown-base', task: 'countdown', out: 'kept' })) {
 *   console.log(counts.problems, counts.kept);
 * }
 */
export async function* sample(input: SampleInput): AsyncGenerator<SampleStep, SampleSummary> {
  const o = settleSampleOptions(plainOptions(input));
  const maxTokens = o.maxCompletionLength ?? contextOf(o.model);
  const setting = await openSetting(input, { ...o, maxCompletionLength: maxTokens });
  const { task, scorer, device, warn } = setting;
  let policy: Policy | null = null;
  let folder: SampleFolder | null = null;
  try {
    const problems = indexedProblems(task, 'train', o.problems, o.seed, o.firstProblem);
    const source = await identifyModel(o.model);
    policy = loadPolicy(o.model, device, { trainable: false });
    const template = promptTemplate(o, task, policy.tokenizer);
    const job = { o, task, policy, template, scorer, problems, source, maxTokens };
    const prompts = promptsOf(job);
    folder = openSampleFolder(o, source, device, input.resume ?? null, warn);
    const counts = yield* work(job, prompts, folder, input.signal);
    const { dir: run, data } = folder;
    const summary = {
      ...counts,
      ...{ run, data, template: template.name, source, memory: device.memory() },
      ...(task.spent && { judging: task.spent() }),
    };
    folder.finish(summary);
    return summary;
  } finally {
    folder?.close();
    if (policy) freeLlama(policy.llama);
    await setting.close();
  }
}

/** The options alone, as plain JSON. */
function plainOptions({ resume, device, signal, onRewardFailure, warn, ...rest }: SampleInput): unknown {
  return { ...rest, ...namesOf(rest) };
}

/** @throws RetortError bad-input for a prompt that the model's context does not take */
function promptsOf({ task, policy, template, problems }: SampleJob): Prompt[] {
  const context = policy.llama.config.maxPositionEmbeddings;
  return problems.map(({ index, problem }) => {
    const text = task.prompt(problem);
    const ids = encodePrompt(template, policy.tokenizer, text);
    checkPrompt(task, 'train', index, ids.length, context);
    return { text, ids };
  });
}

const NOTHING: SampleCounts = {
  problems: 0,
  sampled: 0,
  kept: 0,
  dropped: Object.fromEntries(DROP_RULES.map((rule) => [rule, 0])) as Record<DropRule, number>,
  right: 0,
  problemsRight: 0,
  problemsKept: 0,
  tokens: 0,
  keptTokens: 0,
  seconds: 0,
  rewardFailures: {},
};

/** The loop: keeps the engine full, and writes problems in their order, however they finish. */
async function* work(
  job: SampleJob,
  prompts: readonly Prompt[],
  folder: SampleFolder,
  signal: AbortSignal | undefined,
): AsyncGenerator<SampleStep, SampleCounts> {
  const { o, policy, problems } = job;
  let counts = folder.before ?? NOTHING;
  const longest = Math.max(...prompts.map(({ ids }) => ids.length));
  const engine = createEngine(policy, {
    maxSequences: Math.min(o.maxSequences, o.samples * problems.length),
    maxLength: longest + job.maxTokens,
  });
  // Problems under way beside those to be written: they fill the engine twice, so that no long completion leaves it idle.
  const window = TOGETHER + Math.ceil((2 * o.maxSequences) / o.samples);
  const requests = new Map<number, number>();
  const finished = new Map<number, Completion[]>();
  let submitted = counts.problems;
  let began = performance.now();

  const write = async (upTo: number): Promise<SampleStep> => {
    const from = counts.problems;
    const groups = Array.from({ length: upTo - from }, (_, i) => finished.get(from + i) as Completion[]);
    const scored = await scoreGroups(job, from, groups);
    const lines: SampleLine[] = [];
    groups.forEach((completions, i) => {
      const done = takeProblem(job, from + i, prompts[from + i], completions, scored[i]);
      lines.push(...done.lines);
      counts = add(counts, completions, scored[i], done.rules);
      finished.delete(from + i);
    });
    const now = performance.now();
    counts = { ...counts, seconds: counts.seconds + (now - began) / 1000 };
    began = now;
    folder.write(lines, counts);
    return { step: counts.problems, steps: problems.length, counts, lines };
  };

  try {
    while (counts.problems < problems.length) {
      for (; submitted < Math.min(problems.length, counts.problems + window); submitted++)
        requests.set(engine.submit(requestOf(job, submitted, prompts[submitted])), submitted);
      for (const completion of engine.step().finished) {
        const at = requests.get(completion.request) as number;
        const group = finished.get(at) ?? [];
        group[completion.sample] = completion;
        finished.set(at, group);
      }
      let ready = counts.problems;
      while (isWhole(finished.get(ready), o.samples)) ready++;
      const stop = signal?.aborted ?? false;
      const due = ready === problems.length || ready - counts.problems >= TOGETHER || stop;
      if (due && ready > counts.problems) yield await write(ready);
      if (stop && counts.problems < problems.length) {
        const what = `stopped after ${counts.problems} of ${problems.length} problems, ${counts.kept} completions kept`;
        throw new RetortError('interrupted', `${what}; go on with: retort resume ${folder.dir}`);
      }
      await setImmediate();
    }
    return counts;
  } finally {
    engine.close();
  }
}

function isWhole(group: readonly Completion[] | undefined, samples: number): boolean {
  return group !== undefined && group.filter(Boolean).length === samples;
}

function requestOf({ o, problems, maxTokens }: SampleJob, at: number, { ids }: Prompt) {
  const { samples: n, seed } = o;
  return { ...samplingOf(o), promptIds: ids, n, maxTokens, seed, problem: problems[at].index };
}

async function scoreGroups(
  { o, template, scorer, problems }: SampleJob,
  from: number,
  groups: readonly (readonly Completion[])[],
): Promise<Scored[][]> {
  const items = groups.flatMap((group, i) =>
    group.map((c) => toScore(template, problems[from + i].problem, c)),
  );
  const scores = await scorer.scoreAll(items);
  return groups.map((_, i) => scores.slice(i * o.samples, (i + 1) * o.samples));
}

/** The counts with those of one problem. */
function add(
  c: SampleCounts,
  completions: readonly Completion[],
  scored: readonly Scored[],
  rules: readonly (DropRule | null)[],
): SampleCounts {
  const dropped = { ...c.dropped };
  for (const rule of rules) if (rule !== null) dropped[rule]++;
  const kept = completions.filter((_, i) => rules[i] === null);
  const right = scored.filter(({ correct }) => correct).length;
  const tokensOf = (list: readonly Completion[]) => list.reduce((sum, { ids }) => sum + ids.length, 0);
  return {
    problems: c.problems + 1,
    sampled: c.sampled + completions.length,
    kept: c.kept + kept.length,
    dropped,
    right: c.right + right,
    problemsRight: c.problemsRight + (right > 0 ? 1 : 0),
    problemsKept: c.problemsKept + (kept.length > 0 ? 1 : 0),
    tokens: c.tokens + tokensOf(completions),
    keptTokens: c.keptTokens + tokensOf(kept),
    seconds: c.seconds,
    rewardFailures: countFailures(c.rewardFailures, scored),
  };
}
