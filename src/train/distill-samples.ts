// The sequences of an on-policy step: the student's own samples, or given ones, or the teacher's made anew.
import { completionOperations } from '../model/operations.js';
import { uniform } from '../random.js';
import { createEngine } from '../rollout/engine.js';
import { type GenerateProgress, generateAll } from '../rollout/generate.js';
import { samplingOf } from '../rollout/request.js';
import type { Task } from '../task/task.js';
import type { Example } from '../text/dataset.js';
import { encodePrompt, type PromptTemplate } from '../text/template.js';
import type { DistillOptions } from './distill-options.js';
import type { ExampleSource } from './examples.js';
import type { Policy } from './policy.js';
import { trainProblem } from './rollout.js';
import { usualLength } from './rollout-options.js';

export interface OnPolicyStep {
  readonly o: DistillOptions;
  readonly task: Task | null;
  readonly template: PromptTemplate;
  readonly policy: Policy;
  readonly teacher: Policy | null;
  /** Given sequences, whose prompts are asked where there is no task. */
  readonly source: ExampleSource | null;
  readonly onProgress: (stage: string, progress: GenerateProgress) => void;
}

export interface Rehearsed {
  readonly examples: readonly Example[];
  /** Operations that sampling took of the student, and of the teacher. */
  readonly generated: number;
  readonly taught: number;
  /** Whether they are the student's own. */
  readonly own: boolean;
}

/** Keys the draw of a step apart from the draws of samples. */
const COIN = 0xc014;

/** Draws whose sequences a step is on, and makes them. The same for a step done again. */
export async function sampleEach(s: OnPolicyStep, step: number, from: number): Promise<Rehearsed> {
  const { o, source } = s;
  const own = uniform(o.seed, step, 0, COIN) < o.lmbda;
  const indices = Array.from({ length: o.batchSize }, (_, i) => from + i);
  if (!own && !o.seqKd)
    return { examples: indices.map((i) => (source as ExampleSource).at(i)), generated: 0, taught: 0, own };
  const writer = own ? s.policy : (s.teacher as Policy);
  const { examples, operations } = await complete(s, writer, indices, `step ${step}: samples`);
  return { examples, generated: own ? operations : 0, taught: own ? 0 : operations, own };
}

async function complete(
  { o, task, template, source, policy, onProgress }: OnPolicyStep,
  writer: Policy,
  indices: readonly number[],
  stage: string,
): Promise<{ examples: Example[]; operations: number }> {
  const promptOf = (index: number) =>
    task
      ? encodePrompt(template, policy.tokenizer, task.prompt(trainProblem(task, index, o.seed)))
      : [...(source as ExampleSource).at(index).promptIds];
  const context = Math.min(
    writer.llama.config.maxPositionEmbeddings,
    policy.llama.config.maxPositionEmbeddings,
  );
  const requests = indices.map((problem) => {
    const promptIds = promptOf(problem);
    const room = context - promptIds.length;
    return {
      promptIds,
      maxTokens: Math.max(1, Math.min(o.maxCompletionLength ?? usualLength(context), room)),
      ...samplingOf(o),
      stop: o.stop,
      seed: o.seed,
      problem,
    };
  });
  const engine = createEngine(writer, { maxSequences: Math.min(o.maxSequences, o.batchSize) });
  try {
    const completions = (
      await generateAll(engine, requests, { onProgress: (p) => onProgress(stage, p) })
    ).flat();
    const examples = completions.map(({ promptIds, ids }) => ({ promptIds, completionIds: ids }));
    const operations = completions.reduce(
      (sum, c) => sum + completionOperations(writer.llama.config, c.promptIds.length, [c.ids.length]),
      0,
    );
    return { examples, operations };
  } finally {
    engine.close();
  }
}
