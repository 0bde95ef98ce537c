// From the protocol's requests to what is asked of the engine: defaults, limits of the context, prompts.
import { randomInt } from 'node:crypto';
import { ApiError } from './errors.js';
import type { Ask } from './job.js';
import type { ServedModel } from './model.js';
import { completionPrompt, type Prompt } from './prompt.js';
import type { ChatRequest, CompletionRequest, SamplingFields } from './schema.js';

/** The protocol's default for plain completions. */
const COMPLETION_TOKENS = 16;

export function chatAsk(model: ServedModel, lane: string, r: ChatRequest): Ask {
  if (r.top_logprobs !== undefined && !r.logprobs)
    throw new ApiError(400, 'top_logprobs needs logprobs: true', { param: 'top_logprobs' });
  const prompt = model.makePrompt(r);
  const wanted = r.max_completion_tokens ?? r.max_tokens;
  return {
    ...sampled(model, lane, r),
    prompts: [prompt],
    maxTokens: roomFor(model, [prompt], wanted),
    topLogprobs: r.logprobs ? (r.top_logprobs ?? 0) : null,
    tools: new Set(r.tool_choice === 'none' ? [] : r.tools?.map((t) => t.function.name)),
    plain: false,
  };
}

export function completionAsk(
  model: ServedModel,
  lane: string,
  r: CompletionRequest,
): { ask: Ask; echo: readonly string[] } {
  const given: readonly (string | readonly number[])[] =
    typeof r.prompt === 'string' || typeof r.prompt[0] === 'number'
      ? [r.prompt as string | number[]]
      : (r.prompt as string[] | number[][]);
  const prompts = given.map((one): Prompt => {
    return { ids: completionPrompt(model.tokenizer, one), thinking: false, calls: null };
  });
  if (r.echo && r.logprobs !== undefined)
    throw new ApiError(
      400,
      'echo with logprobs is not supported: log-probabilities are of the answer alone',
      {
        param: 'echo',
      },
    );
  const echo = r.echo
    ? given.map((one) => (typeof one === 'string' ? one : model.tokenizer.decode(one)))
    : [];
  const ask: Ask = {
    ...sampled(model, lane, r),
    prompts,
    maxTokens: roomFor(model, prompts, r.max_tokens ?? COMPLETION_TOKENS),
    topLogprobs: r.logprobs ?? null,
    tools: new Set(),
    plain: true,
  };
  return { ask, echo };
}

function sampled(model: ServedModel, lane: string, r: SamplingFields) {
  const { defaults } = model;
  return {
    model,
    lane,
    n: r.n ?? 1,
    stop: r.stop === undefined ? [] : [r.stop].flat(),
    seed: r.seed ?? randomInt(2 ** 47),
    sampling: {
      temperature: r.temperature ?? defaults.temperature,
      topP: r.top_p ?? defaults.topP,
      topK: r.top_k === undefined ? defaults.topK : Math.max(0, r.top_k),
      minP: r.min_p ?? defaults.minP,
    },
  };
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
