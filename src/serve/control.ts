// What guides a sample's tokens: biases, penalties, a limit on thinking, a grammar for the answer.
import { repetitionPenalty } from '../rollout/repetition.js';
import type { TokenControl } from '../rollout/steer.js';
import { limitThinking } from '../rollout/thinking.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { Grammar } from './constrain/expression.js';
import type { Matcher } from './constrain/grammar.js';

/** How the samples of a request are guided. */
export interface ControlSpec {
  readonly bias: readonly (readonly [id: number, bias: number])[];
  /** Taken off a token's logit for each time that the sample has it, and once where it has it. */
  readonly frequencyPenalty: number;
  readonly presencePenalty: number;
  /** On tokens of the prompt and of the sample, each once; 1 is none. */
  readonly repetitionPenalty: number;
  /** Whether the prompt has opened the reasoning. */
  readonly thinking: boolean;
  /** Most tokens of reasoning; then `close` is written for the model. */
  readonly thinkingBudget: number | null;
  readonly close: readonly number[];
  /** Of the answer after any reasoning. */
  readonly grammar: Grammar | null;
}

export interface SampleControl extends TokenControl {
  /** Whether the mask must be refreshed before the next token. */
  readonly stale: boolean;
  refresh(): Promise<void>;
  close(): void;
}

/** Whether a request's samples need to be guided at all. */
export function needsControl(c: ControlSpec): boolean {
  return (
    c.bias.length > 0 ||
    c.frequencyPenalty !== 0 ||
    c.presencePenalty !== 0 ||
    c.repetitionPenalty !== 1 ||
    c.thinkingBudget !== null ||
    c.grammar !== null
  );
}

export function createControl(
  spec: ControlSpec,
  promptIds: readonly number[],
  tokenizer: Tokenizer,
  matcher: Matcher | null,
): SampleControl {
  const { frequencyPenalty, presencePenalty, thinkingBudget: budget } = spec;
  const penalised = frequencyPenalty !== 0 || presencePenalty !== 0;
  const counts = new Map<number, number>();
  const repetition =
    spec.repetitionPenalty === 1 ? null : repetitionPenalty(spec.repetitionPenalty, promptIds);
  const follows = budget !== null || (spec.thinking && matcher !== null);
  const limits = { opened: spec.thinking, most: budget, close: spec.close, least: 0, wait: [], stops: [] };
  const thought = follows ? limitThinking(limits, tokenizer) : null;
  let stale = false;

  /** Whether the next token belongs to the answer that the grammar is of. */
  const answering = () => !thought?.forcing && !(spec.thinking && thought?.thinking);

  return {
    get stale() {
      return stale;
    },
    adjust(logits) {
      if (thought?.forcing) return thought.adjust(logits);
      repetition?.adjust(logits);
      for (const [id, bias] of spec.bias) logits[id] += bias;
      if (penalised)
        for (const [id, count] of counts) logits[id] -= presencePenalty + count * frequencyPenalty;
      return !matcher || !answering() || allowMasked(logits, matcher.mask);
    },
    permits: (id) => !matcher || !answering() || matcher.permits(id),
    accept(id) {
      repetition?.accept(id);
      if (penalised) counts.set(id, (counts.get(id) ?? 0) + 1);
      if (matcher && answering()) {
        matcher.accept(id);
        stale = true;
      }
      thought?.accept(id);
    },
    async refresh() {
      stale = false;
      await matcher?.refresh();
    },
    close: () => matcher?.close(),
  };
}

function allowMasked(logits: Float32Array, mask: Int32Array | null): boolean {
  if (!mask) return false;
  let possible = false;
  for (let word = 0; word < mask.length; word++) {
    const bits = mask[word];
    if (bits !== 0) possible = true;
    if (bits === -1) continue;
    const end = Math.min(logits.length, 32 * word + 32);
    for (let id = 32 * word; id < end; id++)
      if (((bits >>> (id & 31)) & 1) === 0) logits[id] = Number.NEGATIVE_INFINITY;
  }
  return possible;
}
