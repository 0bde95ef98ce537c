// One attempt at a call of a chat API: a streamed answer, put together, or a failure that says what to do about it.
import { z } from 'zod';
import { systemCode } from '../checkpoint/files.js';
import type { ApiSettings } from './options.js';

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

/** What is sent beside model and messages, by the names of the OpenAI API. */
export type ChatParameters = Readonly<Record<string, unknown>>;

/** The answer of one attempt. */
export interface Reply {
  readonly content: string;
  readonly reasoning: string | null;
  readonly finishReason: string;
  readonly model: string;
  readonly systemFingerprint: string | null;
  readonly usage: { readonly input: number; readonly cachedInput: number; readonly output: number } | null;
}

/** Why an attempt failed. */
export class AttemptError extends Error {
  /** Whether another attempt may do better. */
  readonly again: boolean;
  /** `no`: the API refused before it worked. Else it may have billed what was lost. */
  readonly billed: 'no' | 'perhaps';
  /** What the API asked to wait, in seconds. */
  readonly retryAfter: number | null;

  constructor(
    message: string,
    {
      again,
      billed,
      retryAfter = null,
    }: { again: boolean; billed: 'no' | 'perhaps'; retryAfter?: number | null },
  ) {
    super(message);
    this.again = again;
    this.billed = billed;
    this.retryAfter = retryAfter;
  }
}

const count = z.number().int().min(0);
const usageSchema = z.object({
  prompt_tokens: count,
  completion_tokens: count,
  prompt_tokens_details: z.object({ cached_tokens: count.nullish() }).nullish(),
  /** DeepSeek's name for the same. */
  prompt_cache_hit_tokens: count.nullish(),
});

const chunkSchema = z.object({
  model: z.string().nullish(),
  system_fingerprint: z.string().nullish(),
  choices: z
    .array(
      z.object({
        delta: z
          .object({
            content: z.string().nullish(),
            reasoning_content: z.string().nullish(),
            /** The same by the name that some servers use. */
            reasoning: z.string().nullish(),
          })
          .nullish(),
        finish_reason: z.string().nullish(),
      }),
    )
    .nullish(),
  usage: z.unknown().optional(),
});

/** Makes attempts at one API. */
export type Attempt = (
  model: string,
  messages: readonly ChatMessage[],
  parameters: ChatParameters,
) => Promise<Reply>;

/** The client behind an API's settings. Its own retries are off: whoever calls it counts what each attempt may cost. */
export function openAttempts(settings: ApiSettings): Attempt {
  const { endpoint, key, idleTimeout, requestTimeout } = settings;
  return async (model, messages, parameters) => {
    // Not before it is needed: most commands call no API, and loading the library takes as long as starting Node.
    const openai = await import('openai');
    const ends = new AbortController();
    let ended: string | null = null;
    const end = (why: string) => {
      ended ??= why;
      ends.abort();
    };
    const whole = setTimeout(() => end(`no whole answer within ${requestTimeout} s`), 1000 * requestTimeout);
    let idle: NodeJS.Timeout | undefined;
    const heard = () => {
      clearTimeout(idle);
      idle = setTimeout(() => end(`nothing came for ${idleTimeout} s`), 1000 * idleTimeout);
    };
    const client = new openai.default({
      baseURL: endpoint,
      apiKey: key ?? 'none',
      // What else the library would take from the environment is not meant for any endpoint that is named here.
      ...{ organization: null, project: null, adminAPIKey: null, webhookSecret: null },
      ...(key === null ? { defaultHeaders: { Authorization: null } } : {}),
      ...{ maxRetries: 0, timeout: 1000 * requestTimeout, logLevel: 'off' },
      fetch: async (input, init) => watched(await fetch(input, init), heard),
    });
    heard();
    try {
      const stream = await client.chat.completions.create(
        {
          ...(parameters as object),
          model,
          messages: [...messages],
          stream: true,
          stream_options: { include_usage: true },
        },
        { signal: ends.signal },
      );
      return await collect(stream as AsyncIterable<unknown>, () => ended);
    } catch (error) {
      const failure = ended
        ? new AttemptError(ended, { again: true, billed: 'perhaps' })
        : failureOf(error, openai);
      if (key) failure.message = failure.message.replaceAll(key, '***');
      throw failure;
    } finally {
      clearTimeout(whole);
      clearTimeout(idle);
      // A stream that was left half read holds its connection.
      ends.abort();
    }
  };
}

/** Tells of every byte that comes, comments that keep the connection alive included. */
function watched(response: Response, heard: () => void): Response {
  heard();
  if (!response.body) return response;
  const body = response.body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(bytes, controller) {
        heard();
        controller.enqueue(bytes);
      },
    }),
  );
  return new Response(body, {
    status: response.status,
    statusText: response.statusText,
    headers: response.headers,
  });
}

/** Ends that are none: DeepSeek's where its machines are busy, and that of gateways for a fault behind them. */
const BROKEN_OFF: readonly string[] = ['insufficient_system_resource', 'error'];

async function collect(stream: AsyncIterable<unknown>, ended: () => string | null): Promise<Reply> {
  let content = '';
  let reasoning: string | null = null;
  let finishReason: string | null = null;
  let model: string | null = null;
  let systemFingerprint: string | null = null;
  let usage: Reply['usage'] = null;
  try {
    for await (const value of stream) {
      const parsed = chunkSchema.safeParse(value);
      if (!parsed.success)
        throw broken(`a piece of the answer is not what the API promises: ${short(value)}`);
      const chunk = parsed.data;
      model = chunk.model || model;
      systemFingerprint = chunk.system_fingerprint ?? systemFingerprint;
      usage = usageOf(chunk.usage) ?? usage;
      const choice = chunk.choices?.[0];
      const thought = choice?.delta?.reasoning_content ?? choice?.delta?.reasoning;
      if (thought) reasoning = (reasoning ?? '') + thought;
      content += choice?.delta?.content ?? '';
      finishReason = choice?.finish_reason ?? finishReason;
    }
  } catch (error) {
    // An answer that is whole but for its usage is kept: it is paid for.
    if (finishReason === null || model === null) throw error;
  }
  if (finishReason === null) throw broken(ended() ?? 'the answer broke off before its end');
  if (BROKEN_OFF.includes(finishReason))
    throw broken(`the API broke its answer off (finish_reason ${finishReason})`);
  if (model === null) throw broken('the answer names no model');
  return { content, reasoning, finishReason, model, systemFingerprint, usage };
}

function usageOf(value: unknown): Reply['usage'] {
  const parsed = usageSchema.safeParse(value);
  if (!parsed.success) return null;
  const { prompt_tokens: input, completion_tokens: output, ...more } = parsed.data;
  const cached = more.prompt_tokens_details?.cached_tokens ?? more.prompt_cache_hit_tokens ?? 0;
  return { input, cachedInput: Math.min(input, cached), output };
}

function broken(message: string): AttemptError {
  return new AttemptError(message, { again: true, billed: 'perhaps' });
}

/** Refusals that come before any work: a limit, a fault of the server itself. Gateways (502, 504) cannot know. */
const UNBILLED = [500, 503, 529];
/** Of the refusals below 500, those that pass. */
const PASSING = [408, 409, 425, 429];
/** The request never left. */
const UNSENT = ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'];

function failureOf(error: unknown, { APIConnectionError, APIError }: typeof import('openai')): AttemptError {
  if (error instanceof AttemptError) return error;
  if (error instanceof APIConnectionError) {
    const code = codeOf(error);
    const billed = code !== null && UNSENT.includes(code) ? 'no' : 'perhaps';
    return new AttemptError(`no connection (${code ?? error.message})`, { again: true, billed });
  }
  if (error instanceof APIError && typeof error.status === 'number') {
    const { status } = error;
    const again = status >= 500 || PASSING.includes(status);
    const billed = status < 500 || UNBILLED.includes(status) ? 'no' : 'perhaps';
    return new AttemptError(short(error.message), { again, billed, retryAfter: retryAfterOf(error.headers) });
  }
  if (error instanceof SyntaxError) return broken(`a piece of the answer is not JSON (${error.message})`);
  return broken(short(error instanceof Error ? error.message : String(error)));
}

/** The system's code of a failed connection, from wherever it lies in the chain of causes. */
function codeOf(error: unknown): string | null {
  for (let at = error; at instanceof Error; at = at.cause) {
    const code = systemCode(at);
    if (code) return code;
  }
  return null;
}

/** Seconds that the API asks to wait, from a number of them or a date. */
function retryAfterOf(headers: Headers | undefined): number | null {
  const milliseconds = Number(headers?.get('retry-after-ms') || Number.NaN);
  if (milliseconds >= 0) return milliseconds / 1000;
  const text = headers?.get('retry-after');
  if (!text) return null;
  const seconds = Number(text);
  if (seconds >= 0) return seconds;
  const date = Date.parse(text);
  return Number.isNaN(date) ? null : Math.max(0, (date - Date.now()) / 1000);
}

function short(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return text.length > 300 ? `${text.slice(0, 297)}...` : text;
}
