// What the text of an answer is made of, told apart while it streams: reasoning, content and tool calls.
import {
  type CallForm,
  CLOSE_CALL,
  OPEN_CALL,
  PYTHON_TAG,
  readBareCalls,
  readTaggedCall,
  type ToolCall,
} from './tool-calls.js';

export type Piece =
  | { readonly kind: 'reasoning' | 'content'; readonly text: string }
  | { readonly kind: 'call'; readonly call: ToolCall };

/** Cuts text into pieces as it arrives; what may be the beginning of a tag is held back. */
export interface Splitter {
  push(text: string): Piece[];
  /** The answer is over. */
  end(): Piece[];
  /** Whether the text so far ends inside the reasoning. */
  readonly reasoning: boolean;
}

const OPEN = '<think>';
const CLOSE = '</think>';

/** Length of the longest end of the text that may be the beginning of the marker. */
export function partial(text: string, marker: string): number {
  for (let length = Math.min(text.length, marker.length - 1); length > 0; length--)
    if (text.endsWith(marker.slice(0, length))) return length;
  return 0;
}

/**
 * @param options.thinking whether the prompt has opened the reasoning; else an answer may open it at its beginning
 * @param options.calls the form of tool calls, null where none were offered
 * @param options.tools names of the tools that were offered
 */
export function createSplitter(options: {
  readonly thinking: boolean;
  readonly calls: CallForm | null;
  readonly tools: ReadonlySet<string>;
}): Splitter {
  const content = options.calls === null ? plainContent() : callContent(options.calls, options.tools);
  let state: 'start' | 'reasoning' | 'content' = options.thinking ? 'reasoning' : 'start';
  /** Whether nothing but spaces has come since the state began. */
  let fresh = true;
  let held = '';

  function begin(pieces: Piece[]): void {
    const text = held.trimStart();
    if (text.startsWith(OPEN)) {
      held = text.slice(OPEN.length);
      state = 'reasoning';
      reason(pieces);
    } else if (!OPEN.startsWith(text)) {
      state = 'content';
      fresh = false;
      answer(pieces);
    }
  }

  function reason(pieces: Piece[]): void {
    const at = held.indexOf(CLOSE);
    const found = at >= 0;
    const beforeTag = found ? held.slice(0, at) : held.slice(0, held.length - partial(held, CLOSE));
    // Spaces at the end wait: before the closing tag they are no part of the reasoning.
    let text = beforeTag.trimEnd();
    const rest = held.slice(text.length);
    if (fresh) text = text.trimStart();
    if (text !== '') {
      pieces.push({ kind: 'reasoning', text });
      fresh = false;
    }
    held = rest;
    if (!found) return;
    held = held.slice(held.indexOf(CLOSE) + CLOSE.length);
    state = 'content';
    fresh = true;
    answer(pieces);
  }

  function answer(pieces: Piece[]): void {
    const text = fresh ? held.trimStart() : held;
    held = '';
    if (text === '') return;
    fresh = false;
    pieces.push(...content.push(text));
  }

  return {
    push(text) {
      const pieces: Piece[] = [];
      held += text;
      if (state === 'start') begin(pieces);
      else if (state === 'reasoning') reason(pieces);
      else answer(pieces);
      return pieces;
    },
    end() {
      const pieces: Piece[] = [];
      if (state === 'reasoning') {
        // Cut off while thinking: the half of a tag that was held is text like any other.
        const text = (fresh ? held.trimStart() : held).trimEnd();
        if (text !== '') pieces.push({ kind: 'reasoning', text });
      } else if (held !== '') pieces.push(...content.push(held));
      held = '';
      pieces.push(...content.end());
      return pieces;
    },
    get reasoning() {
      return state === 'reasoning';
    },
  };
}

type Content = Pick<Splitter, 'push' | 'end'>;

function plainContent(): Content {
  return { push: (text) => [{ kind: 'content', text }], end: () => [] };
}

function callContent(form: CallForm, tools: ReadonlySet<string>): Content {
  return form === 'tags' ? taggedContent() : bareContent(tools);
}

/** Content with calls between tags; what is between tags and no call stays content. */
function taggedContent(): Content {
  let held = '';
  let inside = false;
  let called = false;
  /** Spaces before the tag: no part of anything if a call follows, else text like the rest. */
  let gap = '';
  const emit = (pieces: Piece[], text: string) => {
    if (text !== '') pieces.push({ kind: 'content', text });
  };

  /** Up to the next tag. */
  function outside(pieces: Piece[], ended: boolean): void {
    const at = held.indexOf(OPEN_CALL);
    if (at >= 0) {
      const text = held.slice(0, at).trimEnd();
      emit(pieces, text);
      gap = held.slice(text.length, at);
      held = held.slice(at + OPEN_CALL.length);
      inside = true;
      return;
    }
    const sure = ended ? held : held.slice(0, held.length - partial(held, OPEN_CALL)).trimEnd();
    if (!ended || !called || sure.trim() !== '') emit(pieces, sure);
    held = held.slice(sure.length);
  }

  /** A call that the end of the answer cut off may be whole but for its closing tag. */
  function within(pieces: Piece[], ended: boolean): void {
    const at = held.indexOf(CLOSE_CALL);
    if (at < 0 && !ended) return;
    const body = at < 0 ? held : held.slice(0, at);
    const call = readTaggedCall(body);
    if (call) pieces.push({ kind: 'call', call });
    else emit(pieces, `${gap}${OPEN_CALL}${body}${at < 0 ? '' : CLOSE_CALL}`);
    called ||= call !== null;
    held = at < 0 ? '' : held.slice(at + CLOSE_CALL.length);
    inside = false;
  }

  function take(ended: boolean): Piece[] {
    const pieces: Piece[] = [];
    for (let before = -1; before !== held.length && held !== ''; ) {
      before = held.length;
      if (inside) within(pieces, ended);
      else outside(pieces, ended);
    }
    return pieces;
  }
  return {
    push(text) {
      held += text;
      return take(false);
    },
    end: () => take(true),
  };
}

/** An answer that begins like a call waits for its end, when it shows whether it is one. */
function bareContent(tools: ReadonlySet<string>): Content {
  let held: string | null = '';
  const mayBegin = (text: string) =>
    text === '' ||
    text.startsWith('{') ||
    text.startsWith('[') ||
    PYTHON_TAG.startsWith(text.slice(0, PYTHON_TAG.length));
  return {
    push(text) {
      if (held === null) return [{ kind: 'content', text }];
      held += text;
      if (mayBegin(held.trimStart())) return [];
      const all = held;
      held = null;
      return [{ kind: 'content', text: all }];
    },
    end() {
      if (held === null || held === '') return [];
      const calls = readBareCalls(held, tools);
      const pieces: Piece[] = calls
        ? calls.map((call) => ({ kind: 'call', call }))
        : [{ kind: 'content', text: held }];
      held = null;
      return pieces;
    },
  };
}
