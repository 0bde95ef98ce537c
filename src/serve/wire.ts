// The answers of the API as they are written: OpenAI's objects, with DeepSeek's reasoning_content and cache counts.
import type { Delta, TokenLogprob } from './answer.js';
import type { Finish, Usage } from './job.js';
import type { ToolCall } from './tool-calls.js';

/** What all objects of one answer share. */
export interface Head {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
  readonly usage?: null;
}

export interface Choice {
  readonly delta: Delta;
  readonly finish: Finish;
}

/** How one endpoint writes its answers. */
export interface Wire {
  /** The whole answer as one object. */
  whole(head: Head, choices: readonly Choice[], usage: Usage): object;
  /** What opens a choice in a stream, if anything does. */
  first(head: Head, choice: number): object | null;
  pieces(head: Head, choice: number, delta: Delta): object[];
  last(head: Head, choice: number, finish: Finish): object;
  usage(head: Head, usage: Usage): object;
}

export function usageObject(u: Usage): object {
  return {
    prompt_tokens: u.promptTokens,
    completion_tokens: u.completionTokens,
    total_tokens: u.promptTokens + u.completionTokens,
    prompt_cache_hit_tokens: u.cachedTokens,
    prompt_cache_miss_tokens: u.promptTokens - u.cachedTokens,
    prompt_tokens_details: { cached_tokens: u.cachedTokens },
    completion_tokens_details: { reasoning_tokens: u.reasoningTokens },
  };
}

/** Joins what came of a choice over time. */
export function joinDeltas(deltas: readonly Delta[]): Delta {
  const entries = (kind: 'reasoning' | 'content') => deltas.flatMap((d) => d.logprobs?.[kind] ?? []);
  return {
    reasoning: deltas.map((d) => d.reasoning).join(''),
    content: deltas.map((d) => d.content).join(''),
    calls: deltas.flatMap((d) => d.calls),
    logprobs: deltas.some((d) => d.logprobs)
      ? { reasoning: entries('reasoning'), content: entries('content') }
      : null,
  };
}

/** @param callId makes ids of tool calls */
export function chatWire(callId: () => string): Wire {
  const chunk = (head: Head, choices: object[], more: object = {}) => ({
    ...head,
    object: 'chat.completion.chunk',
    choices,
    ...more,
  });
  /** Calls so far, by choice: their places in the stream. */
  const called = new Map<number, number>();
  const callObject = ({ name, arguments: text }: ToolCall) => ({
    id: callId(),
    type: 'function',
    function: { name, arguments: text },
  });
  return {
    whole: (head, choices, usage) => ({
      ...head,
      object: 'chat.completion',
      choices: choices.map(({ delta, finish }, index) => ({
        index,
        message: {
          role: 'assistant',
          content: delta.content === '' && delta.calls.length > 0 ? null : delta.content,
          ...(delta.reasoning === '' ? {} : { reasoning_content: delta.reasoning }),
          ...(delta.calls.length > 0 ? { tool_calls: delta.calls.map(callObject) } : {}),
        },
        logprobs: chatLogprobs(delta.logprobs),
        finish_reason: finish,
      })),
      usage: usageObject(usage),
    }),
    first: (head, index) =>
      chunk(head, [
        { index, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null },
      ]),
    // Clients expect the kinds apart: first the reasoning, then the content, then the calls.
    pieces(head, index, { reasoning, content, calls, logprobs }) {
      const piece = (delta: object, entries: object | null) =>
        chunk(head, [{ index, delta, logprobs: entries, finish_reason: null }]);
      const pieces: object[] = [];
      if (reasoning !== '' || logprobs?.reasoning.length)
        pieces.push(
          piece(
            { reasoning_content: reasoning },
            logprobs && { content: [], reasoning_content: logprobs.reasoning, refusal: null },
          ),
        );
      if (content !== '' || logprobs?.content.length)
        pieces.push(piece({ content }, logprobs && { content: logprobs.content, refusal: null }));
      for (const call of calls) {
        const place = called.get(index) ?? 0;
        called.set(index, place + 1);
        pieces.push(piece({ tool_calls: [{ index: place, ...callObject(call) }] }, null));
      }
      return pieces;
    },
    last: (head, index, finish) => chunk(head, [{ index, delta: {}, logprobs: null, finish_reason: finish }]),
    usage: (head, usage) => chunk(head, [], { usage: usageObject(usage) }),
  };
}

function chatLogprobs(logprobs: Delta['logprobs']): object | null {
  if (!logprobs) return null;
  const { content, reasoning } = logprobs;
  return { content, refusal: null, ...(reasoning.length > 0 ? { reasoning_content: reasoning } : {}) };
}

/** @param echo texts of the prompts, to be written before their answers; empty where they are not asked for */
export function completionWire(n: number, echo: readonly string[]): Wire {
  const before = (index: number) => echo[Math.floor(index / n)] ?? '';
  /** Characters so far, by choice: where the next token's text begins. */
  const written = new Map<number, number>();
  const one = (index: number, lead: string, delta: Delta | null, finish: Finish | null) => {
    const start = (written.get(index) ?? 0) + lead.length;
    const content = delta?.content ?? '';
    written.set(index, start + content.length);
    const logprobs = delta?.logprobs ? legacyLogprobs(delta.logprobs.content, start) : null;
    return { index, text: lead + content, logprobs, finish_reason: finish };
  };
  const object = (head: Head, choices: object[], more: object = {}) => ({
    ...head,
    object: 'text_completion',
    choices,
    ...more,
  });
  return {
    whole: (head, choices, usage) =>
      object(
        head,
        choices.map(({ delta, finish }, index) => one(index, before(index), delta, finish)),
        { usage: usageObject(usage) },
      ),
    first: (head, index) =>
      before(index) === '' ? null : object(head, [one(index, before(index), null, null)]),
    pieces: (head, index, delta) =>
      delta.content === '' && !delta.logprobs?.content.length
        ? []
        : [object(head, [one(index, '', delta, null)])],
    last: (head, index, finish) => object(head, [one(index, '', null, finish)]),
    usage: (head, usage) => object(head, [], { usage: usageObject(usage) }),
  };
}

function legacyLogprobs(entries: readonly TokenLogprob[], start: number): object {
  let offset = start;
  const offsets = entries.map(({ token }) => {
    const at = offset;
    offset += token.length;
    return at;
  });
  return {
    tokens: entries.map((e) => e.token),
    token_logprobs: entries.map((e) => e.logprob),
    top_logprobs: entries.map((e) => Object.fromEntries(e.top_logprobs.map((t) => [t.token, t.logprob]))),
    text_offset: offsets,
  };
}
