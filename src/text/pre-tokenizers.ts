// The byte-level BPE pre-tokenizers that GGUF files know by a name, each with the tokenizer.json that it stands for.
// Names: tokenizer.ggml.pre in llama.cpp's llama-vocab.cpp; expressions: the tokenizer.json of the models named.
import type { TokenizerJson } from './tokenizer-json.js';

type Component = TokenizerJson['pre_tokenizer'];

interface PreTokenizer {
  /** `tokenizer.ggml.pre`; where several are alike the first is written. */
  readonly names: readonly string[];
  readonly preTokenizer: Component;
  readonly normalizer: Component;
  readonly ignoreMerges: boolean;
  /** Whether texts begin with the beginning-of-sequence token where a file does not say. */
  readonly addBos: boolean;
}

const byteLevel = (useRegex: boolean) => ({
  type: 'ByteLevel',
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: useRegex,
});

/** GPT-4's expression, with at most `digits` of a number together. */
const words = (digits: string) => ({
  type: 'Split',
  pattern: {
    Regex:
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" +
      `${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
  },
  behavior: 'Isolated',
  invert: false,
});

const sequence = (...pretokenizers: Component[]): Component => ({ type: 'Sequence', pretokenizers });

const llama3 = sequence(words('\\p{N}{1,3}'), byteLevel(false));
const qwen2 = sequence(words('\\p{N}'), byteLevel(false));
const smollm = sequence({ type: 'Digits', individual_digits: true }, byteLevel(true));

const known: readonly PreTokenizer[] = [
  {
    names: ['llama-bpe', 'llama3', 'llama-v3'],
    preTokenizer: llama3,
    normalizer: null,
    ignoreMerges: true,
    addBos: true,
  },
  {
    names: ['smaug-bpe', 'dbrx'],
    preTokenizer: llama3,
    normalizer: null,
    ignoreMerges: false,
    addBos: false,
  },
  { names: ['qwen2'], preTokenizer: qwen2, normalizer: { type: 'NFC' }, ignoreMerges: false, addBos: false },
  { names: ['deepseek-r1-qwen'], preTokenizer: qwen2, normalizer: null, ignoreMerges: false, addBos: false },
  { names: ['smollm'], preTokenizer: smollm, normalizer: null, ignoreMerges: false, addBos: false },
  { names: ['gpt-2'], preTokenizer: byteLevel(true), normalizer: null, ignoreMerges: false, addBos: false },
];

/** Every name that `preTokenizerNamed` knows. */
export const preTokenizerNames: readonly string[] = known.flatMap(({ names }) => names);

export function preTokenizerNamed(name: string): PreTokenizer | undefined {
  return known.find(({ names }) => names.includes(name));
}

/** The name under which llama.cpp splits texts as this tokenizer does, if there is one. */
export function nameOfPreTokenizer({ pre_tokenizer, normalizer, model }: TokenizerJson): string | undefined {
  const key = (one: Component, normal: Component, ignoreMerges: boolean) =>
    JSON.stringify([steps(one), steps(normal), ignoreMerges]);
  const ignoreMerges = model.type === 'BPE' && model.ignore_merges === true;
  const wanted = key(pre_tokenizer, normalizer, ignoreMerges);
  return known.find((one) => key(one.preTokenizer, one.normalizer, one.ignoreMerges) === wanted)?.names[0];
}

/** What a pre-tokenizer or normalizer does, one step after the other, without fields that change no token. */
function steps(component: Component): unknown[] {
  if (component === null) return [];
  const inner = component.pretokenizers ?? component.normalizers;
  if (component.type === 'Sequence') return (inner as Component[] | undefined)?.flatMap(steps) ?? [];
  const { type, pattern, behavior, invert, individual_digits, add_prefix_space, use_regex } = component;
  if (type === 'ByteLevel')
    return [{ type, add_prefix_space: add_prefix_space ?? true, use_regex: use_regex ?? true }];
  if (type === 'Digits') return [{ type, individual_digits: individual_digits ?? false }];
  if (type === 'Split') return [{ type, pattern, behavior, invert: invert ?? false }];
  return [component];
}
