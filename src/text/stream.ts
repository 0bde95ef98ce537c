// Incremental decoding: hands out text as tokens arrive and holds back half a UTF-8 character.

/** Turns ids into text as they come; the pushes and the end joined are `decode` of all ids. */
export interface TextStream {
  /** The text that the ids complete; empty while the last one leaves a character unfinished. */
  push(...ids: readonly number[]): string;
  /** What was held back, an unfinished character as U+FFFD; the stream can be used anew after it. */
  end(): string;
}

/**
 * A stream over any `decode`. It decodes only a window: the last token whose text was handed out, whose own text is
 * known and cut off, and those after it. That is exact because a decoder's text for a token depends on no more than
 * whether it is the first, and on unfinished bytes before it; a window closes only where no byte is unfinished.
 */
export function streamText(
  decode: (ids: readonly number[]) => string,
  isSkipped: (id: number) => boolean,
): TextStream {
  let anchor: number[] = [];
  let anchorLength = 0;
  let pending: number[] = [];
  const fresh = () => decode([...anchor, ...pending]).slice(anchorLength);
  return {
    push(...ids) {
      const heard = ids.filter((id) => !isSkipped(id));
      if (heard.length === 0) return '';
      pending.push(...heard);
      const text = fresh();
      if (text.endsWith('\uFFFD')) return '';
      anchor = pending.slice(-1);
      anchorLength = decode(anchor).length;
      pending = [];
      return text;
    },
    end() {
      const text = pending.length > 0 ? fresh() : '';
      anchor = [];
      anchorLength = 0;
      pending = [];
      return text;
    },
  };
}
