// From the protocol's requests to what is asked of the engine: defaults, limits of the context, prompts.
import { ApiError } from './errors.js';
import type { Ask } from './job.js';
import type { ServedModel } from './model.js';
import type { Prompt } from './prompt.js';
import type { ChatRequest, CompletionRequest, SamplingFields } from './schema.js';
import { CLOSE_CALL } from './tool-calls.js';

/** The protocol's default for plain completions. */
const COMPLETION_TOKENS = 16;
/** Most samples of all prompts of a request. */
const MAX_SAMPLES_IN_ALL = 2048;

/** @param bytes of the request's body */
export async function chatAsk(model: ServedModel, lane: string, r: ChatRequest, bytes: number): Promise<Ask> {
  if (r.top_logprobs !== undefined && !r.logprobs)
    throw new ApiError(400, 'top_logprobs needs logprobs: true', { param: 'top_logprobs' });
  const [prompt] = await model.prompts.make({ chat: r }, bytes);
  const wanted = r.max_completion_tokens ?? r.max_tokens;
  const common = sampled(model, lane, r);
  return {
    ...common,
    stop: [...common.stop, ...endOfFirstCall(r, prompt)],
    prompts: [prompt],
    maxTokens: roomFor(model, [prompt], wanted),
    openEnded: wanted === undefined,
    topLogprobs: r.logprobs ? (r.top_logprobs ?? 0) : null,
    control: {
      ...penalties(model, r),
      thinkingBudget: thinkingBudget(model, r),
      close: model.closeThinking,
    },
    tools: new Set(r.tool_choice === 'none' ? [] : r.tools?.map((t) => t.function.name)),
    plain: false,
  };
}

/** @param bytes of the request's body */
export async function completionAsk(
  model: ServedModel,
  lane: string,
  r: CompletionRequest,
  bytes: number,
): Promise<{ ask: Ask; echo: readonly string[] }> {
  const given: readonly (string | readonly number[])[] =
    typeof r.prompt === 'string' || typeof r.prompt[0] === 'number'
      ? [r.prompt as string | number[]]
      : (r.prompt as string[] | number[][]);
  const samples = given.length * (r.n ?? 1);
  if (samples > MAX_SAMPLES_IN_ALL)
    throw new ApiError(
      400,
      `prompt: ${given.length} of them, ${r.n ?? 1} samples each, are ${samples}; ask for at most ${MAX_SAMPLES_IN_ALL} at once`,
      { param: 'prompt' },
    );
  if (r.echo && r.logprobs !== undefined)
    throw new ApiError(
      400,
      'echo with logprobs is not supported: log-probabilities are of the answer alone',
      {
        param: 'echo',
      },
    );
  const prompts = await model.prompts.make({ plain: given }, bytes);
  const echo = r.echo
    ? given.map((one) => (typeof one === 'string' ? one : model.tokenizer.decode(one)))
    : [];
  const ask: Ask = {
    ...sampled(model, lane, r),
    prompts,
    maxTokens: roomFor(model, prompts, r.max_tokens ?? COMPLETION_TOKENS),
    openEnded: false,
    topLogprobs: r.logprobs ?? null,
    control: { ...penalties(model, r), thinkingBudget: null, close: [] },
    tools: new Set(),
    plain: true,
  };
  return { ask, echo };
}

function sampled(model: ServedModel, lane: string, r: SamplingFields) {
  const defaults = model.info.sampling;
  return {
    model,
    lane,
    n: r.n ?? 1,
    stop: r.stop === undefined ? [] : [r.stop].flat(),
    seed: r.seed ?? null,
    sampling: {
      temperature: r.temperature ?? defaults.temperature,
      topP: r.top_p ?? defaults.topP,
      topK: r.top_k === undefined ? defaults.topK : Math.max(0, r.top_k),
      minP: r.min_p ?? defaults.minP,
    },
  };
}

/** What ends an answer after its first call, where only one is wanted. */
function endOfFirstCall({ parallel_tool_calls: several = true }: ChatRequest, { calls }: Prompt): string[] {
  if (several || calls === null) return [];
  if (calls === 'tags') return [CLOSE_CALL];
  throw new ApiError(
    400,
    'parallel_tool_calls: false is not supported in the form in which this model calls',
    {
      param: 'parallel_tool_calls',
    },
  );
}

function penalties(model: ServedModel, r: SamplingFields) {
  const bias = Object.entries(r.logit_bias ?? {}).map(([key, value]) => {
    const id = Number(key);
    if (id >= model.tokenizer.vocabSize)
      throw new ApiError(
        400,
        `logit_bias: got token ${id}; ids of this model go from 0 to ${model.tokenizer.vocabSize - 1}`,
        {
          param: 'logit_bias',
        },
      );
    return [id, value] as const;
  });
  return {
    bias,
    frequencyPenalty: r.frequency_penalty ?? 0,
    presencePenalty: r.presence_penalty ?? 0,
    repetitionPenalty: r.repetition_penalty ?? model.info.sampling.repetitionPenalty ?? 1,
  };
}

function thinkingBudget(model: ServedModel, r: ChatRequest): number | null {
  const budget = r.thinking_budget ?? r.thinking?.budget_tokens;
  if (budget === undefined) return null;
  if (model.closeThinking.length === 0)
    throw new ApiError(400, 'a limit on thinking: the vocabulary of this model cannot spell </think>', {
      param: r.thinking_budget === undefined ? 'thinking.budget_tokens' : 'thinking_budget',
    });
  return budget;
}

/** Most tokens of the answer: what is asked for, at most what the context leaves. */
function roomFor(model: ServedModel, prompts: readonly Prompt[], wanted: number | undefined): number {
  const { maxLength } = model.info;
  const longest = Math.max(...prompts.map(({ ids }) => ids.length));
  if (longest >= maxLength)
    throw new ApiError(
      400,
      `the prompt has ${longest} tokens; the context ends at ${maxLength}: shorten it`,
      {
        code: 'context_length_exceeded',
      },
    );
  return Math.min(wanted ?? maxLength, maxLength - longest);
}
