// A client of the API for conversations: one streamed answer at a time, thoughts apart from the answer.
import { RetortError, refuse } from '../errors.js';

export interface ChatTurn {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

export interface ChatOptions {
  readonly temperature?: number;
  readonly maxTokens?: number;
}

export interface ChatClient {
  readonly model: string;
  /**
   * Streams an answer; `onText` gets its pieces.
   * @returns the answer without thoughts, and what it took
   * @throws RetortError bad-input with the server's words; network where the answer breaks off; interrupted where the
   * signal is aborted
   */
  answer(
    turns: readonly ChatTurn[],
    options: ChatOptions,
    onText: (text: string, thought: boolean) => void,
    signal: AbortSignal,
  ): Promise<ChatAnswer>;
}

export interface ChatAnswer {
  readonly content: string;
  readonly finish: string;
  readonly tokens: number;
  readonly seconds: number;
}

interface Chunk {
  readonly error?: { readonly message: string };
  readonly choices?: readonly {
    readonly delta: { readonly content?: string | null; readonly reasoning_content?: string | null };
    readonly finish_reason: string | null;
  }[];
  readonly usage?: { readonly completion_tokens: number } | null;
}

/**
 * Connects to a server.
 * @param base its address, with or without /v1
 * @param options.model name of the model; default: the first that the server names
 */
export async function connectChat(
  base: string,
  options: { readonly model?: string; readonly key?: string },
): Promise<ChatClient> {
  const root = `${base.replace(/\/+$/, '').replace(/\/v1$/, '')}/v1`;
  const headers: Record<string, string> = options.key ? { authorization: `Bearer ${options.key}` } : {};
  const model = options.model ?? (await firstModel(root, headers));
  return {
    model,
    async answer(turns, { temperature, maxTokens }, onText, signal) {
      const began = performance.now();
      const body = JSON.stringify({
        ...{ model, messages: turns, temperature, max_tokens: maxTokens },
        ...{ stream: true, stream_options: { include_usage: true } },
      });
      let content = '';
      let finish = '';
      let tokens = 0;
      try {
        const response = await call(`${root}/chat/completions`, {
          ...{ method: 'POST', body, signal },
          headers: { ...headers, 'content-type': 'application/json' },
        });
        for await (const data of eventsOf(response)) {
          if (data === '[DONE]') break;
          const { error, choices = [], usage } = JSON.parse(data) as Chunk;
          if (error) throw new RetortError('bad-input', error.message);
          if (usage) tokens = usage.completion_tokens;
          for (const { delta, finish_reason } of choices) {
            if (delta.reasoning_content) onText(delta.reasoning_content, true);
            if (delta.content) onText(delta.content, false);
            content += delta.content ?? '';
            finish = finish_reason ?? finish;
          }
        }
      } catch (error) {
        if (signal.aborted) throw new RetortError('interrupted', 'the answer was interrupted');
        if (error instanceof RetortError) throw error;
        const { message, cause } = error as Error;
        const why = cause instanceof Error ? cause.message : message;
        throw new RetortError('network', `the answer broke off: ${why}; ask again`, { cause: error });
      }
      return { content, finish, tokens, seconds: (performance.now() - began) / 1000 };
    },
  };
}

async function firstModel(root: string, headers: Record<string, string>): Promise<string> {
  const list = (await (await call(`${root}/models`, { headers })).json()) as { data?: { id: string }[] };
  const id = list.data?.[0]?.id;
  if (id === undefined)
    throw refuse('bad-input', `models of ${root}`, list, 'the server has none for this key');
  return id;
}

/** A request whose refusal becomes an error with the server's words. */
async function call(url: string, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, init);
  } catch (cause) {
    if (init.signal?.aborted) throw cause;
    const why =
      (cause as Error).cause instanceof Error ? ((cause as Error).cause as Error).message : 'no answer';
    throw new RetortError(
      'bad-input',
      `cannot reach ${url}: ${why}; start the server or correct the address`,
      { cause },
    );
  }
  if (response.ok) return response;
  const text = await response.text();
  let message = text.slice(0, 200);
  try {
    message = (JSON.parse(text) as { error?: { message?: string } }).error?.message ?? message;
  } catch {
    // What is no JSON is shown as it came.
  }
  throw new RetortError('bad-input', `the server refused (${response.status}): ${message}`);
}

/** The data of server-sent events. */
async function* eventsOf({ body }: Response): AsyncGenerator<string> {
  if (!body) return;
  let held = '';
  const decoder = new TextDecoder();
  for await (const part of body) {
    held += decoder.decode(part as Uint8Array, { stream: true });
    const events = held.split(/\r?\n\r?\n/);
    held = events.pop() as string;
    for (const event of events) {
      const lines = event.split(/\r?\n/).filter((line) => line.startsWith('data:'));
      if (lines.length > 0) yield lines.map((line) => line.slice('data:'.length).trimStart()).join('\n');
    }
  }
}
