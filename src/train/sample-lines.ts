// What is kept of a problem's completions, as lines that SFT learns from as exactly the tokens that were sampled.
import type { ModelIdentity } from '../checkpoint/weights-hash.js';
import { RetortError } from '../errors.js';
import type { Scored, Scorer } from '../reward/score.js';
import { type Completion, samplingOf } from '../rollout/request.js';
import type { Task } from '../task/task.js';
import { encodePair } from '../text/dataset.js';
import { completionToLearn, type PromptTemplate, scoredText } from '../text/template.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { IndexedProblem } from './evaluate.js';
import { type Candidate, type DropRule, dropRules } from './keep.js';
import type { Policy } from './policy.js';
import type { SampleOptions } from './sample-options.js';

/** A line of data.jsonl: what `retort sft --data` reads, and where it comes from. */
export interface SampleLine {
  /** The task's prompt, without template. */
  readonly prompt: string;
  /** With what the template has opened. */
  readonly completion: string;
  readonly origin: Readonly<Record<string, unknown>>;
}

/** What the parts of a run work on. */
export interface SampleJob {
  readonly o: SampleOptions;
  readonly task: Task;
  readonly policy: Policy;
  readonly template: PromptTemplate;
  readonly scorer: Scorer;
  readonly problems: readonly IndexedProblem[];
  readonly source: ModelIdentity;
  readonly maxTokens: number;
}

/** A problem's prompt. */
export interface Prompt {
  readonly text: string;
  readonly ids: readonly number[];
}

/** What is kept of a problem, and why the rest is not. */
export function takeProblem(
  job: SampleJob,
  at: number,
  prompt: Prompt,
  completions: readonly Completion[],
  scored: readonly Scored[],
): { lines: SampleLine[]; rules: (DropRule | null)[] } {
  const { o, policy, template } = job;
  const texts = completions.map((c) => textToLearn(policy.tokenizer, template, prompt, c));
  const candidates = completions.map(
    (c, i): Candidate => ({
      text: scoredText(template, c.text),
      tokens: c.ids.length,
      ended: c.finishReason === 'stop',
      scored: scored[i],
      exact: () => texts[i]() !== null,
    }),
  );
  const rules = dropRules(prompt.text, candidates, o);
  const lines = completions.flatMap((c, i) =>
    rules[i] === null ? [lineOf(job, at, prompt, c, texts[i]() as string, scored[i])] : [],
  );
  return { lines, rules };
}

/**
 * The completion of a line, such that SFT makes the same tokens of it; null where there is none: a model may write a
 * text in other tokens than its tokenizer would.
 */
function textToLearn(
  tokenizer: Tokenizer,
  template: PromptTemplate,
  prompt: Prompt,
  { ids, text }: Completion,
): () => string | null {
  let known: string | null | undefined;
  const make = () => {
    // SFT ends an example with the first of the tokens that end one; another one must stand in the text.
    for (const end of ['', tokenizer.decode(ids.slice(-1))]) {
      const whole = scoredText(template, text) + end;
      if (isExact(tokenizer, template, prompt, whole, ids)) return whole;
    }
    return null;
  };
  return () => {
    if (known === undefined) known = make();
    return known;
  };
}

function isExact(
  tokenizer: Tokenizer,
  template: PromptTemplate,
  prompt: Prompt,
  completion: string,
  ids: readonly number[],
): boolean {
  const rendered = template.render(prompt.text);
  try {
    const learned = encodePair(
      tokenizer,
      rendered,
      completionToLearn(template, completion),
      template.addSpecialTokens,
    );
    return isSame(learned.promptIds, prompt.ids) && isSame(learned.completionIds, ids);
  } catch (error) {
    // Prompt and completion join inside a token.
    if (error instanceof RetortError) return false;
    throw error;
  }
}

function isSame(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}

function lineOf(
  { o, task, template, problems, source }: SampleJob,
  at: number,
  prompt: Prompt,
  { sample: number, ids }: Completion,
  completion: string,
  { rewards, reward, correct }: Scored,
): SampleLine {
  const { index, problem } = problems[at];
  const origin = {
    ...source,
    task: task.name,
    taskOptions: task.options,
    template: template.name,
    problem,
    index,
    sample: number,
    seed: o.seed,
    ...samplingOf(o),
    tokens: ids.length,
    rewards,
    reward,
    correct,
  };
  return { prompt: prompt.text, completion, origin };
}
