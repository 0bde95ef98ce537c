// Distillation: a student learns from a teacher. By its answers (DeepSeek-R1, arXiv 2501.12948, section 2.4), by its
// distributions on given sequences (Hinton et al., arXiv 1503.02531), or by its distributions on what the student itself
// writes (GKD, arXiv 2306.13649, algorithm 1).
//
// Where this differs from GKD's algorithm: whether a step is on the student's own samples is drawn once a step, as in TRL,
// not for each sequence; temperatures of sampling and of the divergence are two options.
import { join } from 'node:path';
import type { z } from 'zod';
import type { ApiTotals } from '../api/chat.js';
import { settleApiOptions } from '../api/options.js';
import type { ModelIdentity } from '../checkpoint/weights-hash.js';
import { createDevice, type Device } from '../compute/device/device.js';
import type { MemoryReport } from '../compute/device/memory.js';
import { refuse } from '../errors.js';
import { freeLlama } from '../model/llama.js';
import { type Operations, readingOperations } from '../model/operations.js';
import { openScorer, type Scorer } from '../reward/score.js';
import type { GenerateProgress } from '../rollout/generate.js';
import { loadTask } from '../task/load.js';
import type { Task } from '../task/task.js';
import { type Example, loadExamples } from '../text/dataset.js';
import { encodePrompt, getTemplate, type PromptTemplate } from '../text/template.js';
import type { Tokenizer } from '../text/tokenizer.js';
import {
  apiOptionsOf,
  asksTeacher,
  type DistillOptions,
  type distillOptions,
  settleDistillOptions,
} from './distill-options.js';
import { collect, type KeptCounts, questionsOf, type Taught } from './distill-responses.js';
import { sampleEach } from './distill-samples.js';
import {
  type AnsweringTeacher,
  type Asked,
  apiTeacher,
  checkTokenizers,
  identifyTeacher,
  loadTeacher,
  localTeacher,
} from './distill-teacher.js';
import { meanDivergence, runningTeacher, type TeacherOf } from './divergence-loss.js';
import type { Evaluation } from './evaluate.js';
import { type ExampleSource, fileExamples, shuffled } from './examples.js';
import { type Accuracies, accuraciesOf, evaluateHeldOut, greedyAndSampled } from './held-out.js';
import { planNewModel } from './new-model.js';
import { saveModel } from './options.js';
import { tokensOf } from './packing.js';
import { loadPolicy, newPolicy, type Policy, type PolicyPlan, readPolicyPlan } from './policy.js';
import { openActiveRun } from './recorder.js';
import { usualLength } from './rollout-options.js';
import type { LoopInput } from './setting.js';
import { stepsOfEpochs, take } from './supervised-data.js';
import {
  type Drawn,
  LEARNING_START,
  type LearningState,
  learnSteps,
  type SupervisedStep,
} from './supervised-loop.js';
import { lossOver, meanLoss } from './supervised-loss.js';
import { makeTopLogits, readTopLogits, storedTeacher, topLogitsName, writeTopLogits } from './top-logits.js';

export type DistillInput = Omit<z.input<typeof distillOptions>, 'task'> &
  Partial<Pick<LoopInput, 'task' | 'resume' | 'device' | 'signal' | 'onProgress' | 'warn'>>;

export interface DistillSummary {
  readonly method: DistillOptions['method'];
  readonly steps: number;
  /** Of the last step. */
  readonly loss: number;
  /** On held-out data; null where there is none. */
  readonly evalLoss: number | null;
  /** On held-out problems; null where there are none. */
  readonly after: Accuracies | null;
  /** Read by the student, prompts included. */
  readonly tokens: number;
  /** Spent by the student. */
  readonly operations: Operations;
  /** Spent by a teacher that ran here: its answers and its distributions. */
  readonly teacherOperations: number;
  /** What became of the teacher's answers; null where it gave none. */
  readonly answers: KeptCounts | null;
  /** What an API billed, everything in the file of answers; null for a local teacher. */
  readonly api: ApiTotals | null;
  /** What a judge's API cost in all, by its file of answers; absent where the task has none. */
  readonly judging?: Readonly<Record<string, number>>;
  readonly seconds: number;
  readonly run: string | null;
  readonly saved: string | null;
  readonly memory: MemoryReport;
}

/**
 * Distills a teacher into a student, a training step at each turn of the loop.
 * @throws RetortError for bad input before anything expensive; interrupted where the signal is aborted; network or budget
 * of an API teacher
 * @example
 * const loop = distill({ teacher: 'big', dModel: 64, task: 'countdown', problems: 2000, out: 'run' });
 * for await (const { step, metrics } of loop) console.log(step, metrics.loss);
 */
export async function* distill(input: DistillInput): AsyncGenerator<SupervisedStep, DistillSummary> {
  const { resume, device: givenDevice, signal, onProgress = () => {}, ...more } = input;
  const { warn = (m: string) => process.emitWarning(m), ...rest } = more;
  const given = { ...rest, task: typeof input.task === 'string' ? input.task : input.task?.name };
  const o = settleDistillOptions(given, resume !== undefined);
  const task =
    typeof input.task === 'string' ? await loadTask(input.task, o.taskOptions) : (input.task ?? null);
  const plan = planDistillation(o, task);
  const save = saveModel(o, resume !== undefined);
  const device = givenDevice ?? createDevice({ threads: o.threads });
  const scorer = task ? await openScorer({ task, signal, timeLimitSeconds: o.rewardTimeout }) : null;
  try {
    return yield* run({ ...plan, o, task, scorer, device, save, resume, signal, onProgress, warn });
  } finally {
    await scorer?.close();
    if (!givenDevice) await device.close();
  }
}

interface Plan {
  readonly student: PolicyPlan;
  readonly template: PromptTemplate;
  readonly questions: readonly Asked[];
}

/** Everything that can be checked before a model is loaded or a call is made. */
function planDistillation(o: DistillOptions, task: Task | null): Plan {
  const local = o.endpoint === undefined;
  const student = o.model
    ? readPolicyPlan(o.model)
    : planNewModel(
        { ...o, tokenizer: o.tokenizer ?? (local ? o.teacher : undefined) },
        task?.alphabet ?? null,
      );
  const template = getTemplate(o.template ?? task?.template ?? 'raw', student.tokenizer);
  const answersData = o.method === 'responses' || o.data === undefined;
  const questions = answersData ? questionsOf(o, task) : [];
  if (local) {
    const teacher = readPolicyPlan(o.teacher);
    checkTokenizers(o, teacher, student);
    const own = teacherTemplate(o, task, teacher.tokenizer);
    checkPrompts('teacher', teacher, own, questions);
  } else {
    settleApiOptions(apiOptionsOf(o));
    if (o.answers === undefined && o.out === undefined)
      throw refuse(
        'bad-input',
        'out',
        undefined,
        'name a folder for the run, or a file of answers (answers)',
      );
  }
  checkPrompts('student', student, template, questions);
  return { student, template, questions };
}

function teacherTemplate(o: DistillOptions, task: Task | null, tokenizer: Tokenizer): PromptTemplate {
  return getTemplate(o.teacherTemplate ?? o.template ?? task?.template ?? 'raw', tokenizer);
}

function checkPrompts(
  whose: string,
  { config: { maxPositionEmbeddings: context }, tokenizer }: PolicyPlan,
  template: PromptTemplate,
  questions: readonly Asked[],
): void {
  for (const { index, question } of questions) {
    const { length } = encodePrompt(template, tokenizer, question);
    if (length < context) continue;
    const remedy = `its context is ${context}: give shorter prompts, or a model with a longer context`;
    throw refuse('bad-input', `tokens of prompt ${index} for the ${whose}`, length, remedy);
  }
}

interface Running extends Plan {
  readonly o: DistillOptions;
  readonly task: Task | null;
  readonly scorer: Scorer | null;
  readonly device: Device;
  readonly save: (policy: Policy) => string | null;
  readonly resume?: string;
  readonly signal?: AbortSignal;
  readonly onProgress: (stage: string, progress: GenerateProgress) => void;
  readonly warn: (message: string) => void;
}

async function* run(r: Running): AsyncGenerator<SupervisedStep, DistillSummary> {
  const { o, student, template, device, signal, warn } = r;
  const active = openActiveRun<LearningState>({
    device,
    command: 'distill',
    options: o,
    resume: r.resume,
    makePolicy: () =>
      o.model
        ? loadPolicy(o.model, device, { trainable: true })
        : newPolicy(student.config, student.tokenizer, device, o.seed),
    initialState: LEARNING_START,
    signal,
    warn,
  });
  const { policy } = active;
  let teacher: Policy | null = null;
  try {
    const local = o.endpoint === undefined;
    const identity = local ? await identifyTeacher(o.teacher, active.dir) : null;
    teacher = local ? loadTeacher(o, device) : null;
    const lessons = await prepare(r, teacher && identity && { policy: teacher, identity }, active.dir).catch(
      active.stoppedAt(active.startStep, active.state),
    );
    if (teacher && !lessons.needsTeacher) {
      freeLlama(teacher.llama);
      teacher = null;
    }
    const heldout = o.evalData
      ? fileExamples(
          o.evalData,
          policy.tokenizer,
          template,
          o.seed,
          policy.llama.config.maxPositionEmbeddings,
        )
      : null;
    const learn = (examples: readonly Example[], learning: boolean) =>
      lessons.teacherOf
        ? meanDivergence(
            policy.llama,
            lessons.teacherOf,
            examples,
            { ...o, beta: o.beta, temperature: o.lossTemperature },
            learning,
          )
        : meanLoss(policy.llama, examples, o, learning);
    const steps = o.steps ?? lessons.steps;
    const state = yield* learnSteps(active, {
      steps,
      options: o,
      warn,
      draw: (step, from) => drawStep(r, lessons, { policy, teacher }, step, from),
      learn: (examples) => learn(examples, true),
      async measure(step) {
        if (o.evalEvery === 0 || step % o.evalEvery !== 0) return {};
        const metrics: Record<string, number> = {};
        if (heldout) metrics.eval_loss = await lossOver(policy.llama, heldout, o);
        if (r.scorer && o.evalProblems > 0) {
          const e = await accuracyOf(r, policy, 1, `evaluation at step ${step}`);
          metrics['eval/pass1'] = e.pass1.value;
          metrics['eval/mean_length'] = e.meanLength;
        }
        return metrics;
      },
    });
    const ended = active.stoppedAt(steps, state);
    const after = await finalAccuracies(r, policy).catch(ended);
    const summary: DistillSummary = {
      method: o.method,
      steps,
      loss: state.loss,
      evalLoss: heldout ? await lossOver(policy.llama, heldout, o) : null,
      after,
      tokens: state.tokens,
      operations: state.operations,
      teacherOperations: lessons.teacherOperations + state.teacherOperations,
      answers: lessons.counts,
      api: lessons.api,
      ...(r.task?.spent && { judging: r.task.spent() }),
      seconds: state.seconds,
      run: active.dir,
      saved: r.save(policy),
      memory: device.memory(),
    };
    active.finish(steps, state, { ...summary });
    return summary;
  } finally {
    if (teacher) freeLlama(teacher.llama);
    active.close();
  }
}

/** What the steps learn from. */
interface Lessons {
  /** Given sequences, shuffled anew for each epoch; null where all are made in the steps. */
  readonly source: ExampleSource | null;
  /** Null learns the sequences themselves. */
  readonly teacherOf: TeacherOf | null;
  readonly needsTeacher: boolean;
  readonly steps: number;
  readonly teacherOperations: number;
  readonly counts: KeptCounts | null;
  readonly api: ApiTotals | null;
}

/** A teacher that runs here. */
interface LocalTeacher {
  readonly policy: Policy;
  readonly identity: ModelIdentity;
}

async function prepare(r: Running, teacher: LocalTeacher | null, dir: string | null): Promise<Lessons> {
  const { o, student, template } = r;
  const onPolicy = o.method === 'on-policy';
  let taught: Taught | null = null;
  let api: ApiTotals | null = null;
  let examples: readonly Example[] | null = null;
  if (asksTeacher(o)) {
    ({ taught, api } = await ask(r, teacher, dir));
    examples = taught.examples;
  } else if (o.data !== undefined) {
    // Both read them whole.
    const contexts = [student, ...(teacher ? [teacher.policy.llama] : [])].map(
      (m) => m.config.maxPositionEmbeddings,
    );
    const context = Math.min(...contexts);
    examples = loadExamples(o.data, student.tokenizer, { template, context });
  }
  let teacherOperations = taught?.teacherOperations ?? 0;
  let teacherOf: TeacherOf | null = null;
  if (o.method !== 'responses') teacherOf = runningTeacher((teacher as LocalTeacher).policy.llama);
  if (o.topLogits !== undefined && examples) {
    const stored = await topLogits(r, teacher as LocalTeacher, examples, dir);
    teacherOf = stored.teacherOf;
    teacherOperations += stored.operations;
  }
  const source = examples && shuffled(examples, o.seed);
  const steps = onPolicy
    ? Math.ceil(((o.epochs ?? 1) * (source?.size ?? (o.problems as number))) / o.batchSize)
    : stepsOfEpochs(source as ExampleSource, o);
  const needsTeacher = o.method !== 'responses' && o.topLogits === undefined;
  return { source, teacherOf, needsTeacher, steps, teacherOperations, counts: taught?.counts ?? null, api };
}

/** The teacher's answers to the run's questions. */
async function ask(
  r: Running,
  local: LocalTeacher | null,
  dir: string | null,
): Promise<{ taught: Taught; api: ApiTotals | null }> {
  const { o, task, template, questions, signal, warn } = r;
  const teacher: AnsweringTeacher = local
    ? localTeacher(local.policy, local.identity, teacherTemplate(o, task, local.policy.tokenizer), o)
    : apiTeacher(o, template, o.answers ?? join(dir as string, 'answers.jsonl'), { signal, warn });
  try {
    const onProgress = (p: GenerateProgress) => r.onProgress('teacher', p);
    const taught = await collect(questions, { ...r, teacher, dir, signal, onProgress });
    return { taught, api: teacher.totals() };
  } finally {
    await teacher.close();
  }
}

/** The teacher's likeliest tokens, from the run's file or made now. */
async function topLogits(
  { o, onProgress, student }: Running,
  { policy: { llama }, identity }: LocalTeacher,
  examples: readonly Example[],
  dir: string | null,
): Promise<{ teacherOf: TeacherOf; operations: number }> {
  const k = o.topLogits as number;
  if (k > student.config.vocabSize)
    throw refuse(
      'bad-input',
      'topLogits',
      k,
      `the vocabulary has ${student.config.vocabSize} tokens: give fewer`,
    );
  const temperature = o.lossTemperature;
  const of = topLogitsName(identity.sha256, examples, k, temperature);
  const path = dir === null ? null : join(dir, 'top-logits.bin');
  let top = path === null ? null : readTopLogits(path);
  if (top?.of !== of) {
    top = await makeTopLogits(llama, examples, { of, k, temperature, batchTokens: o.batchTokens }, (done) =>
      onProgress("teacher's top logits", { finished: done, total: examples.length, tokens: 0 }),
    );
    if (path !== null) writeTopLogits(path, top);
  }
  const operations = readingOperations(llama.config, examples.map(tokensOf));
  return { teacherOf: storedTeacher(top, examples), operations };
}

/** The sequences of a step. */
async function drawStep(
  r: Running,
  { source, needsTeacher }: Lessons,
  models: { policy: Policy; teacher: Policy | null },
  step: number,
  from: number,
): Promise<Drawn> {
  const { o } = r;
  const { teacher } = models;
  const scoring = (examples: readonly Example[]) =>
    teacher && needsTeacher ? readingOperations(teacher.llama.config, examples.map(tokensOf)) : 0;
  if (o.method !== 'on-policy') {
    const given = source as ExampleSource;
    const { examples, next } = take(given, from, o.batchTokens * o.gradientAccumulationSteps);
    const metrics = { epoch: next / (given.size as number) };
    return { examples, next, teacherOperations: scoring(examples), metrics };
  }
  const made = await sampleEach({ ...r, ...models, source }, step, from);
  return {
    examples: made.examples,
    next: from + o.batchSize,
    generated: made.generated,
    teacherOperations: made.taught + scoring(made.examples),
    metrics: { on_policy: made.own ? 1 : 0 },
  };
}

/** @param signal ends it at once; a step's evaluation goes on to its end, so that the step is kept */
function accuracyOf(
  r: Running,
  policy: Policy,
  temperature: number,
  stage: string,
  signal?: AbortSignal,
): Promise<Evaluation> {
  const { o } = r;
  return evaluateHeldOut(policy, {
    task: r.task as Task,
    template: r.template,
    scorer: r.scorer as Scorer,
    problems: o.evalProblems,
    temperature,
    maxTokens: o.maxCompletionLength ?? usualLength(policy.llama.config.maxPositionEmbeddings),
    engine: { maxSequences: o.maxSequences },
    signal,
    onProgress: (p) => r.onProgress(stage, p),
  });
}

async function finalAccuracies(r: Running, policy: Policy): Promise<Accuracies | null> {
  if (!r.task || r.o.evalProblems === 0) return null;
  const both = await greedyAndSampled((temperature, name) =>
    accuracyOf(r, policy, temperature, `held-out accuracy, ${name}`, r.signal),
  );
  return accuraciesOf(both);
}
