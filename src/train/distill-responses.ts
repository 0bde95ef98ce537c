// What a teacher answered: asked piece by piece, scored, stored as it comes, filtered into a data set for SFT.
import fs from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomically } from '../checkpoint/atomic.js';
import { type JsonlWriter, openJsonlWriter, readJsonl } from '../checkpoint/jsonl.js';
import { RetortError, refuse } from '../errors.js';
import type { Scored, Scorer } from '../reward/score.js';
import type { GenerateProgress } from '../rollout/generate.js';
import type { Task } from '../task/task.js';
import type { Example } from '../text/dataset.js';
import { encodePair } from '../text/dataset.js';
import { completionToLearn, type PromptTemplate } from '../text/template.js';
import type { DistillOptions } from './distill-options.js';
import type { AnsweringTeacher, Asked } from './distill-teacher.js';
import { type DropRule, dropRules, RULE_TEXTS } from './keep.js';
import type { PolicyPlan } from './policy.js';

/** One answer as samples.jsonl has it, learned or not. */
export interface TaughtSample {
  readonly index: number;
  readonly sample: number;
  readonly question: string;
  readonly text: string;
  readonly whole: boolean;
  readonly tokens: number;
  /** Null without a task. */
  readonly scored: Scored | null;
  readonly origin: Readonly<Record<string, unknown>>;
}

/** A line of data.jsonl. */
export interface TaughtLine {
  readonly prompt: string;
  readonly completion: string;
  readonly origin: Readonly<Record<string, unknown>>;
}

/** Why an answer is not learned: the rules of rejection sampling, and what the student cannot take. */
export type UntaughtRule = DropRule | 'too-long' | 'unspellable';

/** How many answers there were, how many are learned, and why the others are not. */
export interface KeptCounts {
  readonly answers: number;
  readonly kept: number;
  readonly dropped: Readonly<Partial<Record<UntaughtRule, number>>>;
}

export interface Taught {
  readonly lines: readonly TaughtLine[];
  readonly examples: readonly Example[];
  readonly counts: KeptCounts;
  /** What a local teacher spent on all answers. */
  readonly teacherOperations: number;
}

/** The questions of a run. @throws RetortError bad-data, bad-input */
export function questionsOf(o: DistillOptions, task: Task | null): Asked[] {
  if (task) {
    const size = task.size?.train;
    const problems = o.problems as number;
    if (size !== undefined && problems > size)
      throw refuse(
        'bad-input',
        'problems',
        problems,
        `task ${task.name} has ${size} train problems: ask for fewer`,
      );
    return Array.from({ length: problems }, (_, index) => ({
      index,
      question: task.prompt(task.problem('train', index, o.seed)),
    }));
  }
  const path = o.data as string;
  const remedy = 'each line is {"prompt": "..."}';
  const asked: Asked[] = [];
  for (const { number, value } of readJsonl(path, { code: 'bad-data', remedy })) {
    const { prompt } = value as { prompt?: unknown };
    if (typeof prompt !== 'string' || prompt === '')
      throw new RetortError('bad-data', `${path}:${number}: it has no prompt; ${remedy}`);
    asked.push({ index: asked.length, question: prompt });
  }
  if (asked.length === 0) throw new RetortError('bad-data', `${path} holds no prompt; ${remedy}`);
  return asked.slice(0, o.problems);
}

export interface CollectOptions {
  readonly o: DistillOptions;
  readonly task: Task | null;
  readonly scorer: Scorer | null;
  readonly template: PromptTemplate;
  readonly student: PolicyPlan;
  readonly teacher: AnsweringTeacher;
  /** Folder of the run; null keeps everything in memory. */
  readonly dir: string | null;
  readonly signal?: AbortSignal;
  readonly onProgress: (progress: GenerateProgress) => void;
}

/**
 * Asks what was not asked yet, and gives what is to be learned.
 * @throws RetortError bad-data where nothing is left to learn; budget, network, interrupted of an API
 */
export async function collect(questions: readonly Asked[], c: CollectOptions): Promise<Taught> {
  const { o, dir } = c;
  const path = dir === null ? null : join(dir, 'samples.jsonl');
  const stored = path === null ? new Map<number, Piece>() : readSamples(path, o);
  const writer = path === null ? null : openJsonlWriter(path);
  try {
    const left = questions.filter(({ index }) => !stored.has(index));
    const total = questions.length * o.samples;
    const atOnce = Math.min(left.length, c.teacher.atOnce);
    for (let at = 0; at < left.length; at += atOnce) {
      const piece = left.slice(at, at + atOnce);
      const done = (questions.length - left.length + at) * o.samples;
      const made = await answer(piece, c, (p) => c.onProgress({ ...p, finished: done + p.finished, total }));
      for (const [i, { index }] of piece.entries()) stored.set(index, made[i]);
      append(writer, made);
    }
  } finally {
    writer?.close();
  }
  const pieces = questions.map(({ index }) => stored.get(index) as Piece);
  const taught = select(pieces, c);
  if (dir !== null)
    writeFileAtomically(
      join(dir, 'data.jsonl'),
      taught.lines.map((line) => `${JSON.stringify(line)}\n`).join(''),
    );
  if (taught.lines.length === 0)
    throw new RetortError(
      'bad-data',
      `none of ${taught.counts.answers} answers is left to learn (${reasons(taught.counts)}); ask more problems, another teacher, or other rules for what is kept`,
    );
  return taught;
}

/** The answers to one question. */
interface Piece {
  readonly samples: readonly TaughtSample[];
  readonly operations: number;
}

async function answer(
  piece: readonly Asked[],
  { o, task, scorer, teacher, signal }: CollectOptions,
  onProgress: (progress: GenerateProgress) => void,
): Promise<Piece[]> {
  const { responses, operations } = await teacher.ask(piece, { onProgress, signal });
  const problemOf = (index: number) => (task as Task).problem('train', index, o.seed);
  const scores: Scored[] | null =
    scorer &&
    (await scorer.scoreAll(
      responses.flatMap((row, i) =>
        row.map((r) => ({ problem: problemOf(piece[i].index), completion: r.text, tokenCount: r.tokens })),
      ),
    ));
  let at = 0;
  return responses.map((row, i) => ({
    samples: row.map((r, sample) => {
      const scored = scores?.[at++] ?? null;
      return {
        index: piece[i].index,
        sample,
        question: piece[i].question,
        ...r,
        scored,
      };
    }),
    // Shared out, so that a resumed run adds up to the same.
    operations: operations / piece.length,
  }));
}

function append(writer: JsonlWriter | null, pieces: readonly Piece[]): void {
  if (!writer) return;
  for (const { samples, operations } of pieces)
    for (const sample of samples) writer.append({ ...sample, operations: operations / samples.length });
  writer.sync();
}

/** Questions of which samples.jsonl has every answer. */
function readSamples(path: string, { samples: each }: DistillOptions): Map<number, Piece> {
  const found = new Map<number, Map<number, TaughtSample & { operations: number }>>();
  if (fs.existsSync(path)) {
    const options = {
      code: 'bad-checkpoint',
      remedy: 'remove the file to ask anew',
      tornLastLine: true,
    } as const;
    for (const { value } of readJsonl(path, options)) {
      const sample = value as TaughtSample & { operations: number };
      const of = found.get(sample.index) ?? new Map();
      of.set(sample.sample, sample);
      found.set(sample.index, of);
    }
  }
  const whole = [...found].filter(([, samples]) => samples.size === each);
  return new Map(
    whole.map(([index, samples]) => {
      const rows = [...samples.values()].sort((a, b) => a.sample - b.sample);
      return [index, { samples: rows, operations: rows.reduce((sum, r) => sum + r.operations, 0) }];
    }),
  );
}

/** Without a task every answer is as good as another. */
const UNSCORED: Scored = { rewards: {}, reward: 0, correct: false, failed: [] };

/** What is learned: what rejection sampling's rules keep, and the student can write. */
function select(pieces: readonly Piece[], { o, template, student }: CollectOptions): Taught {
  const dropped: Partial<Record<UntaughtRule, number>> = {};
  const lines: TaughtLine[] = [];
  const examples: Example[] = [];
  let answers = 0;
  for (const { samples } of pieces) {
    const made = samples.map((s) => exampleOf(s, template, student));
    const candidates = samples.map(({ text, tokens, whole, scored }, i) => ({
      ...{ text, tokens, ended: whole, scored: scored ?? UNSCORED },
      // What is learned is the text, whatever the student's tokens: only it must be able to take it.
      exact: () => typeof made[i] !== 'string',
    }));
    const rules = dropRules(samples[0].question, candidates, o);
    samples.forEach(({ question, text, tokens, scored, origin }, i) => {
      answers++;
      const example = made[i];
      const rule = rules[i] === 'inexact' ? (example as UntaughtRule) : rules[i];
      if (rule !== null) {
        dropped[rule] = (dropped[rule] ?? 0) + 1;
        return;
      }
      const { rewards, reward, correct } = scored ?? {};
      lines.push({
        prompt: question,
        completion: text,
        origin: { ...origin, tokens, rewards, reward, correct },
      });
      examples.push(example as Example);
    });
  }
  const teacherOperations = pieces.reduce((sum, p) => sum + p.operations, 0);
  return { lines, examples, counts: { answers, kept: lines.length, dropped }, teacherOperations };
}

/** An answer as the student's tokens, or why it cannot be. */
function exampleOf(
  { question, text }: TaughtSample,
  template: PromptTemplate,
  { config, tokenizer }: PolicyPlan,
): Example | 'too-long' | 'unspellable' {
  const completion = completionToLearn(template, text);
  let example: Example;
  try {
    example = encodePair(tokenizer, template.render(question), completion, template.addSpecialTokens);
  } catch (error) {
    if (error instanceof RetortError) return 'unspellable';
    throw error;
  }
  const tokens = example.promptIds.length + example.completionIds.length - 1;
  return tokens > config.maxPositionEmbeddings ? 'too-long' : example;
}

/** Rules as `RULE_TEXTS`. */
const TEXTS: Readonly<Record<UntaughtRule, string>> = {
  ...RULE_TEXTS,
  'too-long': "beyond the student's context",
  unspellable: "with characters that the student's tokenizer cannot spell",
};

/** In words. */
export function reasons({ dropped }: KeptCounts): string {
  const named = Object.entries(dropped).map(([rule, n]) => `${n} ${TEXTS[rule as UntaughtRule]}`);
  return named.join(', ') || 'none dropped';
}
