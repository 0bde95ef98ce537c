// Whom a student learns from: a model on this device, or a chat API; and whether their tokens are the same.
import { join } from 'node:path';
import { z } from 'zod';
import { type ApiTotals, type ChatApi, openChatApi } from '../api/chat.js';
import { writeFileAtomically } from '../checkpoint/atomic.js';
import { parseJson, readOptionalTextFile } from '../checkpoint/files.js';
import { identifyModel, type ModelIdentity } from '../checkpoint/weights-hash.js';
import type { Device } from '../compute/device/device.js';
import { refuse } from '../errors.js';
import { completionOperations } from '../model/operations.js';
import { createEngine } from '../rollout/engine.js';
import { type GenerateProgress, generateAll } from '../rollout/generate.js';
import { samplingOf } from '../rollout/request.js';
import { encodePrompt, type PromptTemplate, scoredText } from '../text/template.js';
import { firstTokenApart, type Tokenizer } from '../text/tokenizer.js';
import { apiOptionsOf, type DistillOptions } from './distill-options.js';
import { loadPolicy, type Policy, type PolicyPlan } from './policy.js';
import { usualLength } from './rollout-options.js';

/** A prompt for the teacher. */
export interface Asked {
  /** Key of its randomness, and of its answers. */
  readonly index: number;
  readonly question: string;
}

/** One answer of a teacher. */
export interface Response {
  /** The thought between its tags, then the answer. */
  readonly text: string;
  /** Whether it came to its own end. */
  readonly whole: boolean;
  readonly tokens: number;
  /** Where it comes from, plain JSON. */
  readonly origin: Readonly<Record<string, unknown>>;
}

export interface Responses {
  /** By question, then by sample. */
  readonly responses: readonly (readonly Response[])[];
  /** What the teacher spent, where it ran here. */
  readonly operations: number;
}

export interface AskOptions {
  readonly onProgress: (progress: GenerateProgress) => void;
  readonly signal?: AbortSignal;
}

/** How many questions are asked and stored at a time: what a kill can cost a local teacher. */
export interface AnsweringTeacher {
  readonly atOnce: number;
  ask(questions: readonly Asked[], o: AskOptions): Promise<Responses>;
  /** Of an API. */
  totals(): ApiTotals | null;
  close(): Promise<void>;
}

/** A local teacher, loaded. */
export function loadTeacher(o: DistillOptions, device: Device): Policy {
  return loadPolicy(o.teacher, device, { trainable: false, kind: 'reference' });
}

const identitySchema = z.looseObject({ sha256: z.string() });

/**
 * Which weights teach, the same from a run's beginning to its end: they are kept in its folder.
 * @throws RetortError bad-input where the run began with others
 */
export async function identifyTeacher(teacher: string, dir: string | null): Promise<ModelIdentity> {
  const identity = await identifyModel(teacher);
  if (dir === null) return identity;
  const path = join(dir, 'teacher.json');
  const text = readOptionalTextFile(path, 'bad-checkpoint', 'correct its permissions');
  const first = text === undefined ? null : parseJson(text, path, identitySchema, 'bad-checkpoint');
  if (!first) writeFileAtomically(path, `${JSON.stringify(identity, null, 2)}\n`);
  else if (first.sha256 !== identity.sha256) {
    const remedy = `the run ${dir} began with other weights (${first.sha256}): bring them back, or begin a new run`;
    throw refuse('bad-input', `weights of ${teacher}`, identity.sha256, remedy);
  }
  return identity;
}

/** A local teacher that answers. Its samples depend on the seed and the question alone. */
export function localTeacher(
  policy: Policy,
  identity: ModelIdentity,
  template: PromptTemplate,
  o: DistillOptions,
): AnsweringTeacher {
  const maxTokens = o.maxCompletionLength ?? usualLength(policy.llama.config.maxPositionEmbeddings);
  return {
    atOnce: Math.max(1, Math.ceil((4 * o.maxSequences) / o.samples)),
    async ask(questions, { onProgress, signal }) {
      const engine = createEngine(policy, { maxSequences: o.maxSequences });
      try {
        const requests = questions.map(({ index, question }) => ({
          promptIds: encodePrompt(template, policy.tokenizer, question),
          n: o.samples,
          maxTokens,
          ...samplingOf(o),
          stop: o.stop,
          seed: o.seed,
          problem: index,
        }));
        const completions = await generateAll(engine, requests, { onProgress, signal });
        const operations = completions.reduce(
          (sum, row, i) =>
            sum +
            completionOperations(
              policy.llama.config,
              requests[i].promptIds.length,
              row.map((c) => c.ids.length),
            ),
          0,
        );
        const responses = completions.map((row, i) =>
          row.map((c) => ({
            text: scoredText(template, c.text),
            whole: c.finishReason === 'stop',
            tokens: c.ids.length,
            origin: {
              ...identity,
              template: template.name,
              ...{ seed: o.seed, index: questions[i].index, sample: c.sample },
              ...samplingOf(o),
              maxTokens,
            },
          })),
        );
        return { responses, operations };
      } finally {
        engine.close();
      }
    },
    totals: () => null,
    close: async () => {},
  };
}

/**
 * A teacher behind an API.
 * @param template of the student: it says where a thought goes
 * @param answers file that nothing is paid twice for
 */
export function apiTeacher(
  o: DistillOptions,
  template: PromptTemplate,
  answers: string,
  { signal, warn }: { signal?: AbortSignal; warn: (message: string) => void },
): AnsweringTeacher {
  const api: ChatApi = openChatApi({ ...apiOptionsOf(o), answers, signal, warn });
  return {
    // The file of answers is what a kill leaves.
    atOnce: Number.POSITIVE_INFINITY,
    async ask(questions, { onProgress }) {
      const total = questions.length * o.samples;
      let finished = 0;
      let tokens = 0;
      const one = async ({ index, question }: Asked, sample: number): Promise<Response> => {
        const { content, reasoning, finishReason, usage, ...origin } = await api.ask({
          model: o.teacher,
          messages: [
            ...(o.system === undefined ? [] : [{ role: 'system' as const, content: o.system }]),
            { role: 'user' as const, content: question },
          ],
          maxTokens: o.maxCompletionLength as number,
          temperature: o.temperature,
          topP: o.topP,
          stop: o.stop,
          sample,
        });
        finished++;
        tokens += usage?.output ?? 0;
        onProgress({ finished, total, tokens });
        return {
          text: wholeAnswer(template, reasoning, content),
          whole: finishReason === 'stop',
          tokens: usage?.output ?? 0,
          origin: { ...origin, usage, index, sample, termsAllowTraining: o.termsAllowTraining },
        };
      };
      // All are awaited, so that what was paid is stored before an error ends the run.
      const asked = questions.map((q) =>
        Promise.allSettled(Array.from({ length: o.samples }, (_, sample) => one(q, sample))),
      );
      const settled = await Promise.all(asked);
      for (const result of settled.flat()) if (result.status === 'rejected') throw result.reason;
      const responses = settled.map((row) => row.map((r) => (r as PromiseFulfilledResult<Response>).value));
      return { responses, operations: 0 };
    },
    totals: () => api.totals(),
    close: () => api.close(),
  };
}

/** Thought and answer as the student writes them: the thought in its tags, where its template opens one or it has one. */
export function wholeAnswer(template: PromptTemplate, reasoning: string | null, content: string): string {
  if (/^\s*<think>/.test(content)) return content;
  if (reasoning === null && template.opened === '') return content;
  return `${template.opened || '<think>'}${reasoning ?? ''}</think>${content}`;
}

/** How two tokenizers differ, in words; null where a token means the same in both. */
export function tokenizerDifference(teacher: Tokenizer, student: Tokenizer): string | null {
  if (teacher.vocabSize !== student.vocabSize)
    return `the teacher has ${teacher.vocabSize} tokens, the student ${student.vocabSize}`;
  const id = firstTokenApart(teacher, student);
  if (id !== null) {
    const [t, s] = [teacher, student].map((tokenizer) => JSON.stringify(tokenizer.decode([id])));
    return `token ${id} is ${t} for the teacher, ${s} for the student`;
  }
  const ends = (t: Tokenizer) => [...t.eosTokenIds].sort((a, b) => a - b);
  if (JSON.stringify(ends(teacher)) !== JSON.stringify(ends(student)))
    return `sequences of the teacher end with token ${ends(teacher)}, those of the student with ${ends(student)}`;
  const merges = (t: Tokenizer) => {
    const json = JSON.parse(t.files['tokenizer.json'] ?? '{}') as { model?: { merges?: unknown } };
    return JSON.stringify(json.model?.merges ?? []);
  };
  return merges(teacher) === merges(student) ? null : 'the same tokens, but merged in another order';
}

/** @throws RetortError bad-input, naming the difference, where only texts can go from teacher to student */
export function checkTokenizers(o: DistillOptions, teacher: PolicyPlan, student: PolicyPlan): void {
  if (o.method === 'responses') return;
  const { tokenizer, config } = student;
  const difference =
    tokenizerDifference(teacher.tokenizer, tokenizer) ??
    (teacher.config.vocabSize === config.vocabSize
      ? null
      : `the teacher's head has ${teacher.config.vocabSize} rows, the student's ${config.vocabSize}`);
  if (difference === null) return;
  throw refuse(
    'bad-input',
    'method with another tokenizer',
    o.method,
    `${difference}: distributions over other tokens cannot be compared; use --method responses, or a student with the teacher's tokenizer`,
  );
}
