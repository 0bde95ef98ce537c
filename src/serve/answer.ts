// One sample of an answer, put together from its tokens as they come: text told apart, log-probabilities, counts.
import type { TopLogprobs } from '../rollout/steer.js';
import type { TextStream } from '../text/stream.js';
import type { TokenBytes } from '../text/token-bytes.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { SampleEnd, SampleTokens } from './engine-messages.js';
import { createSplitter, partial } from './pieces.js';
import type { CallForm, ToolCall } from './tool-calls.js';

export interface TopLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
}

export interface TokenLogprob extends TopLogprob {
  readonly top_logprobs: readonly TopLogprob[];
}

/** What has become certain of a sample since the last time. */
export interface Delta {
  readonly reasoning: string;
  readonly content: string;
  readonly calls: readonly ToolCall[];
  /** Of the tokens of the reasoning and of the content; null where none were asked for. */
  readonly logprobs: { readonly reasoning: TokenLogprob[]; readonly content: TokenLogprob[] } | null;
}

export interface AnswerOptions {
  readonly tokenizer: Tokenizer;
  readonly tokens: TokenBytes;
  readonly thinking: boolean;
  readonly calls: CallForm | null;
  readonly tools: ReadonlySet<string>;
  readonly stop: readonly string[];
  readonly logprobs: boolean;
  /** Whether text is told apart; a plain completion is content throughout. */
  readonly plain?: boolean;
}

export interface Answer {
  /** @returns null where nothing new is certain */
  push(news: SampleTokens): Delta | null;
  finish(end: SampleEnd): Delta;
  readonly reasoningTokens: number;
  readonly calls: number;
}

interface Waiting {
  readonly entry: TokenLogprob;
  readonly reasoning: boolean;
  /** Where its text begins in the whole. */
  readonly start: number;
}

const CLOSE = '</think>';

export function createAnswer(options: AnswerOptions): Answer {
  const { tokenizer, tokens, stop, thinking, calls: form, tools } = options;
  const ends = new Set(tokenizer.eosTokenIds);
  const splitter = options.plain ? null : createSplitter({ thinking, calls: form, tools });
  const stream: TextStream = tokenizer.stream({ skipSpecialTokens: true });
  const waiting: Waiting[] = [];
  /** Text that may be the beginning of a stop string. */
  let held = '';
  /** Text handed to the splitter. */
  let passed = 0;
  let tail = '';
  /** Tokens whose text is not known yet, or not whole: whether they are reasoning shows with it. */
  let unread: number[] = [];
  let reasoningTokens = 0;
  let callCount = 0;

  /** Hands on the text that no stop string can begin in, and reads what it is. */
  function pass(text: string, delta: Draft): void {
    held += text;
    const sure = Math.min(held.length, ...stop.map((s) => mayBegin(held, s)));
    give(held.slice(0, sure), delta);
    held = held.slice(sure);
  }

  function give(text: string, delta: Draft): void {
    if (text === '') return;
    passed += text.length;
    if (!splitter) {
      delta.content += text;
      return;
    }
    for (const piece of splitter.push(text)) put(piece, delta);
    tail = (tail + text).slice(-CLOSE.length);
  }

  function put(piece: ReturnType<NonNullable<typeof splitter>['push']>[number], delta: Draft): void {
    if (piece.kind === 'call') {
      delta.calls.push(piece.call);
      callCount++;
    } else delta[piece.kind] += piece.text;
  }

  /** All tokens at once: decoding one by one costs ten times as much. */
  function pushAll(ids: readonly number[], delta: Draft): void {
    unread.push(...ids);
    const text = stream.push(...ids);
    if (text !== '') countReasoning(() => pass(text, delta));
  }

  /** Counts the tokens of the text that `read` hands on, as far as they are reasoning. */
  function countReasoning(read: () => void): void {
    const before = splitter?.reasoning;
    const earlier = tail + held;
    read();
    if (before) reasoningTokens += splitter?.reasoning ? unread.length : tokensUntilClose(earlier, unread);
    unread = [];
  }

  function tokensUntilClose(earlier: string, ids: readonly number[]): number {
    for (let count = 1; count < ids.length; count++)
      if ((earlier + tokenizer.decode(ids.slice(0, count))).includes(CLOSE)) return count;
    return ids.length;
  }

  function pushOne(id: number, logprob: number, top: TopLogprobs, delta: Draft): void {
    const reasoning = splitter?.reasoning ?? false;
    if (reasoning) reasoningTokens++;
    const start = passed + held.length;
    waiting.push({ entry: entryOf(id, logprob, top), reasoning, start });
    pass(stream.push(id), delta);
  }

  function entryOf(id: number, logprob: number, top: TopLogprobs): TokenLogprob {
    const one = (id: number, logprob: number) => ({
      token: tokenizer.decode([id]),
      // The protocol's least value: JSON has no infinity.
      logprob: Math.max(logprob, -9999),
      bytes: [...tokens.bytes(id)],
    });
    return { ...one(id, logprob), top_logprobs: top.map(([id, logprob]) => one(id, logprob)) };
  }

  /** Tokens whose text has been handed out, or begins before `limit` once the end is known. */
  function release(limit: number, delta: Draft): void {
    while (waiting.length > 0 && waiting[0].start < limit) {
      const { entry, reasoning } = waiting.shift() as Waiting;
      delta.logprobs?.[reasoning ? 'reasoning' : 'content'].push(entry);
    }
  }

  const draft = (): Draft => ({
    reasoning: '',
    content: '',
    calls: [],
    logprobs: options.logprobs ? { reasoning: [], content: [] } : null,
  });

  return {
    push({ ids, logprobs, top }) {
      const delta = draft();
      const count = ids.length > 0 && ends.has(ids[ids.length - 1]) ? ids.length - 1 : ids.length;
      if (!options.logprobs) pushAll(ids.slice(0, count), delta);
      else for (let i = 0; i < count; i++) pushOne(ids[i], logprobs[i], top[i] ?? [], delta);
      release(passed, delta);
      return isEmpty(delta) ? null : delta;
    },
    finish({ cutText }) {
      const delta = draft();
      // What was held up to a stop string is text after all.
      const rest = cutText === null ? held + stream.end() : cutText.slice(passed);
      countReasoning(() => give(rest, delta));
      release(cutText === null ? Number.POSITIVE_INFINITY : cutText.length, delta);
      for (const piece of splitter?.end() ?? []) put(piece, delta);
      return delta;
    },
    get reasoningTokens() {
      return reasoningTokens;
    },
    get calls() {
      return callCount;
    },
  };
}

/** Where a stop string begins in the text, or may begin at its end. */
function mayBegin(text: string, stop: string): number {
  const at = text.indexOf(stop);
  return at >= 0 ? at : text.length - partial(text, stop);
}

interface Draft extends Delta {
  reasoning: string;
  content: string;
  calls: ToolCall[];
}

function isEmpty({ reasoning, content, calls, logprobs }: Delta): boolean {
  const entries = logprobs ? logprobs.reasoning.length + logprobs.content.length : 0;
  return reasoning === '' && content === '' && calls.length === 0 && entries === 0;
}
