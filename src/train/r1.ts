// R1's pipeline. DeepSeek-R1 (arXiv 2501.12948), section 2.3: cold start, reasoning RL, rejection sampling and SFT of
// the base, RL over all tasks. R1-Zero (section 2.2): the base and rewards alone.
//
// Each stage is an ordinary run in a folder of its own, made by the command's own loop; the pipeline gives each what
// the one before made, measures it on every task, and keeps the results in stages.json. As in the paper, the second
// SFT begins at the base again, not at the model of stage 2.
import fs from 'node:fs';
import { join } from 'node:path';
import type { z } from 'zod';
import { writeFileAtomically } from '../checkpoint/atomic.js';
import { takeLock } from '../checkpoint/lock.js';
import { createRun, listCheckpoints, openRun, resumeRun } from '../checkpoint/run-folder.js';
import { RetortError } from '../errors.js';
import { loadTask } from '../task/load.js';
import { VERSION } from '../version.js';
import { type GrpoInput, type GrpoStep, type GrpoSummary, grpo } from './grpo.js';
import { settleGrpoOptions } from './grpo-options.js';
import { readPolicyPlan } from './policy.js';
import { checkExamples, writeExamples } from './r1-data.js';
import { measure, type TaskAccuracy } from './r1-measure.js';
import {
  type R1Options,
  type r1Options,
  type StageInputs,
  settleR1Options,
  stageInputs,
  taskOf,
} from './r1-options.js';
import { type SampleStep, type SampleSummary, sample } from './sample.js';
import type { LoopInput } from './setting.js';
import { type SupervisedStep, sft } from './supervised.js';

/** `resume` is the folder of a pipeline. */
export type R1Input = z.input<typeof r1Options> & Omit<LoopInput, 'task' | 'rewards' | 'device'>;

/** A step of one of the stages' loops. */
export type R1Step =
  | { readonly stage: string; readonly loop: 'sft'; readonly step: SupervisedStep }
  | { readonly stage: string; readonly loop: 'grpo'; readonly step: GrpoStep }
  | { readonly stage: string; readonly loop: 'sample'; readonly step: SampleStep }
  | { readonly stage: string; readonly loop: 'done'; readonly result: StageResult };

/** What came of a stage. */
export interface StageResult {
  readonly name: string;
  /** Folder of its run beneath the pipeline's; null for the base. */
  readonly run: string | null;
  /** Folder or file of its model; null where it made none. */
  readonly model: string | null;
  /** Held-out, by task; empty where it made no model. */
  readonly accuracies: Readonly<Record<string, TaskAccuracy>>;
  /** Generated. */
  readonly tokens: number;
  readonly trainedTokens: number;
  readonly seconds: number;
  /** What a judge's API cost in all, by its file of answers; absent where none judged. */
  readonly judging?: Readonly<Record<string, number>>;
}

export interface R1Summary {
  readonly run: string;
  /** The last stage's. */
  readonly model: string;
  readonly stages: readonly StageResult[];
}

const STAGES_FILE = 'stages.json';

/**
 * Runs the stages that are not done yet.
 * @throws RetortError for bad input before anything expensive starts; interrupted where the signal is aborted
 */
export async function* r1(input: R1Input): AsyncGenerator<R1Step, R1Summary> {
  const { resume, signal, onProgress, onEvaluation, onRewardFailure, warn, ...given } = input;
  const o = settleR1Options(resume === undefined ? given : { ...given, out: resume });
  readPolicyPlan(o.base);
  for (const tasks of [o.tasks, [...o.tasks, ...o.final.tasks]]) {
    const { task, taskOptions } = taskOf(tasks);
    await loadTask(task, taskOptions);
  }
  await checkExamples(o.coldStart?.from);
  await checkExamples(o.sft.general);
  const run = resume === undefined ? beginRun(o) : openRun(resume);
  const unlock = takeLock(join(run.dir, 'lock.json'), `the pipeline ${run.dir}`);
  try {
    if (resume !== undefined) resumeRun(resume);
    const summary = yield* stages(o, { signal, onProgress, onEvaluation, onRewardFailure, warn });
    writeFileAtomically(join(run.dir, 'summary.json'), `${JSON.stringify(summary, null, 1)}\n`);
    return summary;
  } finally {
    unlock();
  }
}

function beginRun(o: R1Options): { dir: string } {
  const config = { command: 'r1', options: o, seed: o.seed, cwd: process.cwd(), version: VERSION };
  return createRun(o.out, config);
}

type Counts = Pick<StageResult, 'tokens' | 'trainedTokens' | 'seconds' | 'judging'>;

type Hooks = Pick<R1Input, 'signal' | 'onProgress' | 'onEvaluation' | 'onRewardFailure' | 'warn'>;

async function* stages(o: R1Options, hooks: Hooks): AsyncGenerator<R1Step, R1Summary> {
  const results = readResults(o.out);
  const at = (folder: string) => join(o.out, folder);
  const { reasoning, zero } = stageInputs(o, o.base, o.out);
  const maxTokens = settleGrpoOptions(o.zero ? zero : reasoning).maxCompletionLength;
  const inputs = (folder: string, model: string): StageInputs => stageInputs(o, model, at(folder));

  /** Measures what a stage made and records it, once. */
  async function* done(
    name: string,
    run: string | null,
    model: string | null,
    { tokens, trainedTokens, seconds, judging }: Counts,
  ): AsyncGenerator<R1Step, void> {
    if (results.some((r) => r.name === name)) return;
    const accuracies =
      model === null
        ? {}
        : await measure(model, {
            ...{ tasks: [...o.tasks, ...o.final.tasks], template: o.template, problems: o.evalProblems },
            ...{ threads: o.threads, signal: hooks.signal, maxTokens },
            onProgress: (task, p) => hooks.onProgress?.(`${name}: held-out ${task}`, p),
          });
    const result = {
      ...{ name, run, model, accuracies, tokens, trainedTokens, seconds },
      ...(judging && { judging }),
    };
    results.push(result);
    writeFileAtomically(at(STAGES_FILE), `${JSON.stringify({ stages: results }, null, 1)}\n`);
    yield { stage: name, loop: 'done', result };
  }

  async function* supervised(
    name: string,
    folder: string,
    examples: (path: string) => Promise<number>,
    inputOf: (i: StageInputs) => StageInputs['sft'],
  ): AsyncGenerator<R1Step, string> {
    const data = at(`${folder}.jsonl`);
    if (!fs.existsSync(data)) await examples(data);
    const loop = sft({ ...inputOf(inputs(folder, o.base)), data, ...goOn(at(folder)), ...hooksOf(hooks) });
    const summary = yield* through(at(folder), loop, (step) => ({ stage: name, loop: 'sft', step }));
    const model = lastModel(at(folder));
    const counts = { tokens: 0, trainedTokens: summary.tokens, seconds: summary.seconds };
    yield* done(name, folder, model, counts);
    return model;
  }

  async function* reinforced(
    name: string,
    folder: string,
    from: string,
    inputOf: (i: StageInputs) => StageInputs['final'],
  ): AsyncGenerator<R1Step, string> {
    const { onProgress, onEvaluation, onRewardFailure } = hooks;
    const loop = grpo({
      ...(inputOf(inputs(folder, from)) as GrpoInput),
      ...goOn(at(folder)),
      ...hooksOf(hooks),
      ...{ onProgress, onEvaluation, onRewardFailure },
    });
    const summary = yield* through<GrpoStep, GrpoSummary>(at(folder), loop, (step) => ({
      stage: name,
      loop: 'grpo',
      step,
    }));
    const model = lastModel(at(folder));
    yield* done(name, folder, model, summary);
    return model;
  }

  yield* done('base', null, o.base, { tokens: 0, trainedTokens: 0, seconds: 0 });
  if (o.zero) {
    const model = yield* reinforced('R1-Zero', 'zero', o.base, (i) => i.zero);
    return { run: o.out, model, stages: results };
  }
  const cold = yield* supervised(
    'cold start',
    '1-cold-start',
    (path) => writeExamples(path, o.coldStart?.from, o.seed),
    (i) => i.coldStart,
  );
  const reasoner = yield* reinforced('reasoning RL', '2-reasoning-rl', cold, (i) => i.reasoning);
  const sampling = '3-rejection-sampling';
  const loop = sample({ ...inputs(sampling, reasoner).rejection, ...goOn(at(sampling)), ...hooksOf(hooks) });
  const kept = yield* through<SampleStep, SampleSummary>(at(sampling), loop, (step) => ({
    stage: 'rejection sampling',
    loop: 'sample',
    step,
  }));
  if (kept.kept === 0)
    throw new RetortError(
      'bad-data',
      `rejection sampling kept none of ${kept.sampled} completions (${at(sampling)}): loosen its rules (rejection), or train stage 2 longer`,
    );
  yield* done('rejection sampling', sampling, null, { ...kept, trainedTokens: 0 });
  const tuned = yield* supervised(
    'SFT on what was kept',
    '3-sft',
    (path) => writeExamples(path, o.sft.general, o.seed, [join(at(sampling), 'data.jsonl')]),
    (i) => i.sft,
  );
  const model = yield* reinforced('RL on all tasks', '4-rl', tuned, (i) => i.final);
  return { run: o.out, model, stages: results };
}

function hooksOf({ signal, warn }: Hooks): Pick<Hooks, 'signal' | 'warn'> {
  return { ...(signal && { signal }), ...(warn && { warn }) };
}

/** A stage that was begun goes on where it stopped. */
function goOn(folder: string): { resume?: string } {
  return fs.existsSync(join(folder, 'config.json')) ? { resume: folder } : {};
}

/** Runs a stage's loop, or takes what it said when it ended. */
async function* through<Step, Summary>(
  folder: string,
  loop: AsyncGenerator<Step, Summary>,
  tell: (step: Step) => R1Step,
): AsyncGenerator<R1Step, Summary> {
  const summary = join(folder, 'summary.json');
  if (fs.existsSync(summary)) return JSON.parse(fs.readFileSync(summary, 'utf8')) as Summary;
  for (;;) {
    const next = await loop.next();
    if (next.done) return next.value;
    yield tell(next.value);
  }
}

function lastModel(folder: string): string {
  const place = listCheckpoints(openRun(folder)).at(-1);
  if (!place)
    throw new RetortError('bad-checkpoint', `${folder} holds no checkpoint; begin the pipeline anew`);
  return place.path;
}

function readResults(out: string): StageResult[] {
  const path = join(out, STAGES_FILE);
  if (!fs.existsSync(path)) return [];
  return (JSON.parse(fs.readFileSync(path, 'utf8')) as { stages: StageResult[] }).stages;
}
