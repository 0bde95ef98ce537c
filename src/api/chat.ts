// A client of any OpenAI-compatible chat API, for teachers and judges: few calls at a time, retries, a budget that is never
// passed, and a file of answers, so that nothing is paid twice.
import { setTimeout as sleep } from 'node:timers/promises';
import type { z } from 'zod';
import { RetortError, refuse } from '../errors.js';
import { AttemptError, type ChatMessage, type ChatParameters, openAttempts, type Reply } from './call.js';
import {
  type ApiAnswer,
  type ApiTotals,
  type BilledTokens,
  keyOf,
  type Ledger,
  mostCostOf,
  openLedger,
} from './ledger.js';
import { type ApiSettings, type apiOptions, settleApiOptions } from './options.js';

export type { ChatMessage } from './call.js';
export type { ApiAnswer, ApiTotals } from './ledger.js';

export interface ChatQuestion {
  readonly model: string;
  readonly messages: readonly ChatMessage[];
  /** Most tokens of the answer, its thought included. */
  readonly maxTokens: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly stop?: readonly string[];
  /** Further parameters, `response_format` for instance, as the API takes them. */
  readonly more?: ChatParameters;
  /** Tells apart several answers to one question. Default 0. */
  readonly sample?: number;
}

export interface ChatApiInput extends z.input<typeof apiOptions> {
  /** File of answers, made where there is none. */
  readonly answers: string;
  /** No further call begins once it is aborted; those under way are paid for and end. */
  readonly signal?: AbortSignal;
  readonly warn?: (message: string) => void;
  /** Where the key is looked up. Default: the process's. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** Seconds before the second attempt; doubled for each further one, up to a minute. Default 1. */
  readonly backoff?: number;
}

export interface ChatApi {
  /**
   * The answer to a question: from the file where it is there, else from the API.
   * @param signal once it is aborted, a call that failed is not made again; unlike the client's, it lets a first one begin
   * @throws RetortError network where the API fails or refuses; budget where a further call could pass it; interrupted;
   * bad-data where the API answers under another model name than before. Whatever was answered stays in the file.
   */
  ask(question: ChatQuestion, signal?: AbortSignal): Promise<ApiAnswer>;
  /** Of the whole file. */
  totals(): ApiTotals;
  /** Lets calls under way end, then closes the file. */
  close(): Promise<void>;
}

/** The longest that a `Retry-After` is heeded, and the longest pause of our own, in seconds. */
const LONGEST_WAIT = 600;
const LONGEST_BACKOFF = 60;

/**
 * Opens a client.
 * @throws RetortError bad-input for wrong options, a missing key or a missing budget, before any call
 * @example
 * const api = openChatApi({ endpoint: 'http://localhost:8000/v1', answers: 'answers.jsonl' });
 * const { content, reasoning } = await api.ask({ model: 'm', messages: [{ role: 'user', content: '1+1=?' }], maxTokens: 64 });
 * await api.close();
 */
export function openChatApi(input: ChatApiInput): ChatApi {
  const {
    answers,
    signal,
    warn = (m: string) => process.emitWarning(m),
    environment,
    backoff = 1,
    ...rest
  } = input;
  const settings = settleApiOptions(rest, environment);
  const ledger = openLedger(answers, settings.prices);
  const attempt = openAttempts(settings);
  const gate = openGate(settings, ledger, answers);
  const pending = new Map<string, Promise<ApiAnswer>>();
  const told = new Set<string>();
  /** Set by what ends every call: no further one begins, and none waits for its next attempt. */
  let failure: unknown = null;
  const over = new AbortController();
  const end = (error: unknown) => {
    failure ??= error;
    over.abort();
  };

  const interrupted = () => new RetortError('interrupted', `stopped; what was answered is in ${answers}`);
  const stopped = () => (signal?.aborted ? interrupted() : failure);

  async function call(
    key: string,
    question: ChatQuestion,
    parameters: ChatParameters,
    patience: AbortSignal | undefined,
  ): Promise<ApiAnswer> {
    const most = mostOf(question);
    const pauses = AbortSignal.any([over.signal, signal, patience].filter((s) => s !== undefined));
    for (let tried = 0; ; tried++) {
      if (tried > 0 && patience?.aborted) throw interrupted();
      const begun = await gate.enter(most, () => stopped(), key);
      let wait: number;
      try {
        const reply = await attempt(question.model, question.messages, parameters);
        const answer = answerOf(reply, question, parameters);
        ledger.answered(begun, key, answer);
        checkUsage(answer, most);
        checkModel(answer);
        return answer;
      } catch (error) {
        try {
          wait = afterFailure(begun, error, tried);
        } catch (last) {
          // Before the gate lets the next call in.
          end(last);
          throw last;
        }
      } finally {
        gate.leave();
      }
      await sleep(1000 * wait, undefined, { signal: pauses }).catch(() => {});
    }
  }

  /** Records a failed attempt and gives the seconds until the next one. @throws what ends all calls */
  function afterFailure(begun: number, error: unknown, tried: number): number {
    if (!(error instanceof AttemptError)) throw error;
    ledger.failed(begun, error.billed, error.message);
    const wait = pause(error, tried);
    warn(`${settings.endpoint}: ${error.message}; attempt ${tried + 2} in ${wait.toFixed(1)} s`);
    return wait;
  }

  /** Seconds until the next attempt: what the API asks, or ever longer, with a random part so that calls spread. */
  function pause(error: AttemptError, tried: number): number {
    const give = (why: string) =>
      new RetortError(
        'network',
        `${settings.endpoint}: ${error.message}; ${why}; what was answered is in ${answers}: begin again with that file, and it is not asked twice`,
      );
    if (!error.again) throw give('the API refuses the call: correct what it names');
    if (tried >= settings.apiRetries) throw give(`gave up after ${tried + 1} attempts`);
    if (error.retryAfter !== null) {
      if (error.retryAfter > LONGEST_WAIT) throw give(`it asks to wait ${Math.round(error.retryAfter)} s`);
      return error.retryAfter + 0.1 * Math.random() * backoff;
    }
    return Math.min(LONGEST_BACKOFF, backoff * 2 ** tried) * (0.5 + Math.random());
  }

  function answerOf(reply: Reply, question: ChatQuestion, parameters: ChatParameters): ApiAnswer {
    return {
      ...reply,
      endpoint: settings.endpoint,
      requestedModel: question.model,
      date: new Date().toISOString(),
      parameters,
    };
  }

  /** The budget rests on the most that a call can cost. */
  function checkUsage({ usage }: ApiAnswer, most: BilledTokens): void {
    if (!usage || (usage.input <= most.input && usage.output <= most.output)) return;
    throw new RetortError(
      'budget',
      `${settings.endpoint} billed ${usage.input} input and ${usage.output} output tokens for a call that allowed at most ${most.input} and ${most.output}: its limit of tokens does not hold, so no budget can; see maxTokensName`,
    );
  }

  /** Of answers from the file too: a run that goes on must not mix what the run before it refused to mix. */
  function checkModel({ requestedModel, model, date }: ApiAnswer): void {
    const first = ledger.firstModel(settings.endpoint, requestedModel);
    if (first === model) return;
    const what = `${settings.endpoint} answered as ${JSON.stringify(model)} at ${date}, at first as ${JSON.stringify(first)}`;
    if (settings.allowModelChange) {
      if (!told.has(model)) warn(`${what}; going on, as allowModelChange says`);
      told.add(model);
    } else
      throw new RetortError(
        'bad-data',
        `${what}: the model changed in the middle; give allowModelChange to mix them, or begin anew with another file of answers`,
      );
  }

  return {
    async ask(question, patience) {
      checkQuestion(question);
      const parameters = parametersOf(question, settings);
      const { model, messages, sample = 0 } = question;
      const key = keyOf([settings.endpoint, model, messages, parameters, sample]);
      const known = ledger.find(key);
      if (known) {
        checkModel(known);
        return known;
      }
      const same = pending.get(key);
      if (same) return same;
      const answer = call(key, question, parameters, patience).catch((error: unknown) => {
        end(error);
        throw error;
      });
      pending.set(key, answer);
      try {
        return await answer;
      } finally {
        pending.delete(key);
      }
    },
    totals: () => ledger.totals(),
    async close() {
      end(new RetortError('interrupted', 'the client of the API is closed'));
      await Promise.allSettled(pending.values());
      ledger.close();
    },
  };
}

/** Lets calls in: so many at a time, and only what the budget can pay for at the worst. First come, first served. */
function openGate(
  { concurrency, maxCost, maxApiTokens, prices }: ApiSettings,
  ledger: Ledger,
  answers: string,
): {
  /** Resolves to the number of the call in the ledger. */
  enter(most: BilledTokens, stopped: () => unknown, key: string): Promise<number>;
  leave(): void;
} {
  let running = 0;
  const waiting: (() => void)[] = [];
  const affords = (most: BilledTokens) => {
    const spent = ledger.spent();
    if (maxApiTokens !== undefined && spent.tokens + most.input + most.output > maxApiTokens) return false;
    return maxCost === undefined || !prices || spent.cost + mostCostOf(most, prices) <= maxCost * 1e6;
  };
  const wake = () => {
    // All of them look again: a smaller call may fit where the first does not.
    for (const go of waiting.splice(0)) go();
  };
  return {
    async enter(most, stopped, key) {
      for (;;) {
        const why = stopped();
        if (why) throw why;
        if (running < concurrency) {
          if (affords(most)) {
            const call = ledger.begin(key, most);
            running++;
            return call;
          }
          // Calls under way may cost less than their most.
          if (running === 0) throw spentError();
        }
        await new Promise<void>((go) => waiting.push(go));
      }
    },
    leave() {
      running--;
      wake();
    },
  };

  function spentError(): RetortError {
    const { tokens, cost } = ledger.spent();
    const parts = [
      maxCost === undefined ? null : `${cost / 1e6} of ${maxCost} spent`,
      maxApiTokens === undefined ? null : `${tokens} of ${maxApiTokens} tokens used`,
    ];
    return new RetortError(
      'budget',
      `the budget does not allow a further call: ${parts.filter(Boolean).join(', ')}; give a larger one with the same file of answers (${answers}), and nothing is paid twice; a run goes on with: retort resume RUN --max-cost or --max-api-tokens`,
    );
  }
}

/** What a server may put around messages: role marks, a system prompt of its own. */
const MOST_OVERHEAD = 256;
const OVERHEAD_OF_MESSAGE = 16;

/** The most tokens that a question can cost: a token is a byte at least. */
export function mostOf({ messages, maxTokens, more }: ChatQuestion): BilledTokens {
  const bytes = messages.reduce((n, m) => n + Buffer.byteLength(m.content) + OVERHEAD_OF_MESSAGE, 0);
  const extra = more ? Buffer.byteLength(JSON.stringify(more)) : 0;
  return { input: bytes + extra + MOST_OVERHEAD, cachedInput: 0, output: maxTokens };
}

function parametersOf(q: ChatQuestion, { maxTokensName }: ApiSettings): ChatParameters {
  return {
    [maxTokensName]: q.maxTokens,
    ...(q.temperature === undefined ? {} : { temperature: q.temperature }),
    ...(q.topP === undefined ? {} : { top_p: q.topP }),
    ...(q.stop?.length ? { stop: [...q.stop] } : {}),
    ...q.more,
  };
}

const SET_HERE = [
  ...['model', 'messages', 'n', 'stream', 'stream_options', 'max_tokens', 'max_completion_tokens'],
];

function checkQuestion({ messages, maxTokens, more }: ChatQuestion): void {
  if (!(Number.isInteger(maxTokens) && maxTokens >= 1))
    throw refuse('bad-input', 'maxTokens of a question', maxTokens, 'give a whole number of at least 1');
  if (messages.length === 0)
    throw refuse('bad-input', 'messages of a question', messages, 'give one at least');
  for (const name of SET_HERE)
    if (more && name in more)
      throw refuse('bad-input', `parameter ${name}`, more[name], 'the client sets it: leave it out');
}
