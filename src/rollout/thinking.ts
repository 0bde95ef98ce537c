// How long a sample thinks: a budget after which the thought is closed for it, and a least length before which it may
// not stop; then a text such as "Wait" stands in place of the stop (s1, arXiv 2501.19393, section 3.1).
import { RetortError, refuse } from '../errors.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { allowOnly, type TokenControl } from './steer.js';

const OPEN = '<think>';
const CLOSE = '</think>';

/** Whether a text that is written ends inside a thought. */
export interface ThoughtTracker {
  push(text: string): void;
  readonly thinking: boolean;
}

/** @param opened whether the prompt has opened the thought; else an answer may open it at its beginning */
export function trackThought(opened: boolean): ThoughtTracker {
  let state: 'start' | 'thinking' | 'over' = opened ? 'thinking' : 'start';
  let held = '';
  return {
    push(text) {
      if (state === 'over') return;
      held += text;
      if (state === 'start') {
        const begin = held.trimStart();
        if (begin.startsWith(OPEN)) {
          state = 'thinking';
          held = begin.slice(OPEN.length);
        } else if (!OPEN.startsWith(begin)) state = 'over';
      }
      if (state !== 'thinking') return;
      if (held.includes(CLOSE)) state = 'over';
      // As much as may be the beginning of the tag.
      held = held.slice(1 - CLOSE.length);
    },
    get thinking() {
      return state === 'thinking';
    },
  };
}

/** Limits on a thought, in tokens. */
export interface ThinkingLimits {
  /** Whether the prompt has opened the thought. */
  readonly opened: boolean;
  /** Most tokens; then `close` is written for the model. null: no limit. */
  readonly most: number | null;
  readonly close: readonly number[];
  /** Fewest tokens; a stop before is replaced by `wait`, or only forbidden where that is empty. */
  readonly least: number;
  readonly wait: readonly number[];
  /** Tokens that stop a thought: its closing tag and the ends of a sequence. */
  readonly stops: readonly number[];
}

export interface ThinkingControl extends TokenControl {
  /** Whether the text so far ends inside the thought. */
  readonly thinking: boolean;
  /** Whether the next token is given. */
  readonly forcing: boolean;
  /** Tokens of the thought, its closing tag included. */
  readonly tokens: number;
  /** Whether the budget has ended the thought. */
  readonly cut: boolean;
  /** Stops that were replaced. */
  readonly waits: number;
}

/** Holds one sample's thought within limits. */
export function limitThinking(limits: ThinkingLimits, tokenizer: Tokenizer): ThinkingControl {
  const { most, close, least, wait } = limits;
  const stops = new Set(limits.stops);
  const tracker = trackThought(limits.opened);
  const stream = tokenizer.stream();
  let forced: number[] = [];
  let tokens = 0;
  let spent = false;
  /** Once the closing text is written: a sequence may end with the last token of its budget. */
  let cut = false;
  let waits = 0;
  let waiting = false;

  function checkBudget(): void {
    if (most === null || spent || !tracker.thinking || tokens < most) return;
    spent = true;
    forced = [...close];
  }
  const tooEarly = (id: number) => tracker.thinking && tokens < least && stops.has(id);

  checkBudget();
  return {
    adjust(logits) {
      if (forced.length > 0) allowOnly(logits, forced[0]);
      return true;
    },
    instead(id) {
      waiting = forced.length === 0 && wait.length > 0 && tooEarly(id);
      return waiting ? wait[0] : id;
    },
    permits: (id) => forced.length > 0 || waiting || !tooEarly(id),
    accept(id) {
      if (waiting) {
        waits++;
        forced = wait.slice(1);
      } else if (forced.length > 0) {
        forced.shift();
        if (spent) cut = true;
      }
      waiting = false;
      if (tracker.thinking) tokens++;
      tracker.push(stream.push(id));
      if (forced.length === 0) checkBudget();
    },
    get thinking() {
      return tracker.thinking;
    },
    get forcing() {
      return forced.length > 0;
    },
    get tokens() {
      return tokens;
    },
    get cut() {
      return cut;
    },
    get waits() {
      return waits;
    },
  };
}

/** Limits as a user gives them. */
export interface ThinkingOptions {
  readonly budget: number | null;
  /** Written where the budget is spent: closes the thought and may begin the answer. */
  readonly close: string;
  readonly least: number;
  readonly wait: string;
}

/**
 * Limits as token ids.
 * @param ends tokens that end a sequence
 * @throws RetortError bad-input for texts that the vocabulary cannot spell, and for limits that contradict each other
 */
export function thinkingLimits(
  o: ThinkingOptions,
  tokenizer: Tokenizer,
  opened: boolean,
  ends: readonly number[],
): ThinkingLimits {
  const { budget: most, least } = o;
  if (most !== null && least > most)
    throw refuse('bad-input', 'least tokens of a thought', least, `the budget is ${most}: give at most that`);
  const close = most === null ? [] : idsOf(tokenizer, o.close, 'text that closes a thought');
  if (most !== null && !o.close.includes(CLOSE))
    throw refuse('bad-input', 'text that closes a thought', o.close, `it must hold ${CLOSE}`);
  const tag = least > 0 ? idsOf(tokenizer, CLOSE, 'closing tag of a thought') : [];
  if (tag.length > 1) {
    const remedy = `a thought can be held open only where ${CLOSE} is one token of the vocabulary: use a model made for it`;
    throw refuse('bad-input', `tokens of ${CLOSE}`, tag.length, remedy);
  }
  const wait = least > 0 && o.wait !== '' ? idsOf(tokenizer, o.wait, 'text in place of a stop') : [];
  const stops = [...tag, ...ends];
  if (wait.some((id) => stops.includes(id)))
    throw refuse('bad-input', 'text in place of a stop', o.wait, 'it stops the thought itself: give another');
  return { opened, most, close, least, wait, stops };
}

function idsOf(tokenizer: Tokenizer, text: string, what: string): number[] {
  try {
    return tokenizer.encode(text);
  } catch (error) {
    if (!(error instanceof RetortError)) throw error;
    throw new RetortError('bad-input', `${what}, ${JSON.stringify(text)}: ${error.message}`, {
      cause: error,
    });
  }
}
