// A request under way: its prompts go to the engine, its tokens come back as choices.
import { randomInt } from 'node:crypto';
import { type Answer, createAnswer, type Delta } from './answer.js';
import { type ControlSpec, needsControl } from './control.js';
import type { EngineClient } from './engine-client.js';
import type { SampleEnd, SampleTokens, WorkOrder } from './engine-messages.js';
import { ApiError, toApiError } from './errors.js';
import type { ServedModel } from './model.js';
import type { Prompt } from './prompt.js';

/** What is asked of a model, whatever the protocol it came by. */
export interface Ask extends Pick<WorkOrder, 'lane' | 'n' | 'maxTokens' | 'stop' | 'topLogprobs'> {
  readonly model: ServedModel;
  /** null: each prompt gets one of its own, so that equal prompts do not get equal answers. */
  readonly seed: number | null;
  readonly prompts: readonly Prompt[];
  readonly sampling: Pick<WorkOrder, 'temperature' | 'topK' | 'topP' | 'minP'>;
  /** What guides the samples, beside what the prompts say. */
  readonly control: Omit<ControlSpec, 'thinking' | 'grammar'>;
  readonly tools: ReadonlySet<string>;
  /** Whether the request leaves the answer's length to the model: then nothing says how much of `maxTokens` it takes. */
  readonly openEnded: boolean;
  /** Whether answers are told apart into reasoning, content and calls. */
  readonly plain: boolean;
}

export interface Usage {
  readonly promptTokens: number;
  /** Of the prompt, what a cache held. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** Of the completion. */
  readonly reasoningTokens: number;
}

export type Finish = 'stop' | 'length' | 'tool_calls';

/** Who hears of a job. Choices are numbered prompt by prompt. */
export interface JobListener {
  onDelta(choice: number, delta: Delta): void;
  onFinish(choice: number, delta: Delta, finish: Finish): void;
  /** Every choice has finished. */
  onDone(usage: Usage): void;
  /** Nothing more comes. */
  onError(error: ApiError, usage: Usage): void;
}

export interface Job {
  /** Frees its slots; the listener hears no more. */
  cancel(): Usage;
  /** When its first token came, milliseconds of `performance.now`. */
  readonly firstToken: number | null;
}

export function startJob(engine: EngineClient, ask: Ask, listener: JobListener): Job {
  const { model, lane, prompts, n, maxTokens, stop, seed, sampling, topLogprobs, tools, plain } = ask;
  const answers: Answer[] = [];
  const cancels: (() => void)[] = [];
  let open = prompts.length * n;
  let completionTokens = 0;
  /** By prompt; known with the first token of a sample of it. */
  const cached = prompts.map(() => 0);
  let firstToken: number | null = null;
  let over = false;

  // What never came to its first token is not counted.
  const usage = (): Usage => ({
    promptTokens: firstToken === null ? 0 : prompts.reduce((sum, { ids }) => sum + ids.length, 0),
    cachedTokens: cached.reduce((sum, tokens) => sum + tokens, 0),
    completionTokens,
    reasoningTokens: answers.reduce((sum, answer) => sum + answer.reasoningTokens, 0),
  });

  function end(): void {
    over = true;
    for (const cancel of cancels) cancel();
  }

  function onTokens(choice: number, news: SampleTokens): void {
    if (over) return;
    firstToken ??= performance.now();
    completionTokens += news.ids.length;
    cached[Math.floor(choice / n)] = news.cached;
    const delta = answers[choice].push(news);
    if (delta) listener.onDelta(choice, delta);
  }

  function onEnd(choice: number, news: SampleEnd): void {
    if (over) return;
    if (news.finishReason === 'dead-end') {
      onFailed(new ApiError(400, "the model's vocabulary cannot spell the answer asked for"));
      return;
    }
    const answer = answers[choice];
    const delta = answer.finish(news);
    const called = answer.calls > 0 && news.finishReason === 'stop';
    listener.onFinish(choice, delta, called ? 'tool_calls' : news.finishReason);
    if (--open > 0) return;
    listener.onDone(usage());
    over = true;
  }

  function onFailed(error: ApiError): void {
    if (over) return;
    end();
    listener.onError(error, usage());
  }

  /** A fault in here ends this job, not what else the thread's news are for. */
  function guarded(run: () => void): void {
    try {
      run();
    } catch (error) {
      onFailed(toApiError(error));
    }
  }

  function submit({ ids, thinking, calls, grammar }: Prompt, p: number): void {
    for (let sample = 0; sample < n; sample++)
      answers.push(
        createAnswer({
          ...{ tokenizer: model.tokenizer, tokens: model.tokens, thinking, calls, tools, stop, plain },
          logprobs: topLogprobs !== null,
        }),
      );
    const control: ControlSpec = { ...ask.control, thinking, grammar };
    const order = {
      handle: model.handle,
      lane,
      promptIds: ids,
      n,
      maxTokens,
      stop,
      seed: seed ?? randomInt(2 ** 47),
      topLogprobs,
      ...sampling,
      control: needsControl(control) ? control : null,
    };
    cancels.push(
      engine.submit(order, {
        onTokens: (news) => guarded(() => onTokens(p * n + news.sample, news)),
        onEnd: (news) => guarded(() => onEnd(p * n + news.sample, news)),
        onFailed: (why) => onFailed(typeof why === 'string' ? new ApiError(400, why) : toApiError(why)),
      }),
    );
  }

  guarded(() => prompts.forEach(submit));

  return {
    cancel() {
      end();
      return usage();
    },
    get firstToken() {
      return firstToken;
    },
  };
}
