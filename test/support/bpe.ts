// A small byte-level BPE tokenizer trained on the spot, with the pre-tokenizer of a published model.
import { byteCharacters, byteLevelCharacters } from '../../src/text/byte-level.js';
import { preTokenizerNamed } from '../../src/text/pre-tokenizers.js';
import { createTokenizer, type Tokenizer } from '../../src/text/tokenizer.js';

const text =
  "The quick brown fox doesn't jump over the lazy dog; it's 1984 or 2024, they'll say. I'm sure we've 3.14159 reasons! " +
  'El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia. Привет, мир! Как дела? 你好世界，今天天气很好。' +
  'こんにちは世界。 안녕하세요 세계. مرحبا بالعالم नमस्ते दुनिया 🙂🙂 🚀 👩‍👩‍👧 \n\n\tif (x == 0) { return [1, 22, 333, 4444]; }\n    else:\r\n';

/** Tokenizer files of `pre` (a name that GGUF knows), with `count` merges and these special tokens. */
export function trainBpe(pre: string, count: number, specials: readonly string[]): Tokenizer {
  const { preTokenizer, normalizer, ignoreMerges, addBos } = preTokenizerNamed(pre)!;
  // Split into words roughly as the pre-tokenizers do: what crosses a word's end would never be merged.
  const words = (text.match(/ ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+/gu) ?? []).map(byteLevelCharacters);
  const merges: [string, string][] = [];
  while (merges.length < count) {
    const pairs = new Map<string, number>();
    for (const word of words)
      for (let i = 1; i < word.length; i++) {
        const pair = `${word[i - 1]} ${word[i]}`;
        pairs.set(pair, (pairs.get(pair) ?? 0) + 1);
      }
    const best = [...pairs].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))[0];
    if (!best) break;
    const [left, right] = best[0].split(' ') as [string, string];
    merges.push([left, right]);
    for (const word of words)
      for (let i = 1; i < word.length; i++)
        if (word[i - 1] === left && word[i] === right) word.splice(i - 1, 2, left + right);
  }
  const tokens = [...new Set([...byteCharacters, ...merges.map((merge) => merge.join(''))])];
  const added = specials.map((content, i) => ({
    id: tokens.length + i,
    content,
    special: content.startsWith('<|'),
    normalized: false,
  }));
  const bos = { id: added[0]!.id, content: added[0]!.content };
  const json = {
    version: '1.0',
    added_tokens: added,
    normalizer,
    pre_tokenizer: preTokenizer,
    post_processor: addBos
      ? {
          type: 'TemplateProcessing',
          single: [{ SpecialToken: { id: bos.content, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
          pair: [],
          special_tokens: { [bos.content]: { id: bos.content, ids: [bos.id], tokens: [bos.content] } },
        }
      : null,
    decoder: { type: 'ByteLevel' },
    model: {
      type: 'BPE',
      ignore_merges: ignoreMerges,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
  const config = {
    bos_token: addBos ? bos.content : null,
    eos_token: specials[1],
    chat_template: '{{ messages[0].content }}',
  };
  return createTokenizer(
    { 'tokenizer.json': JSON.stringify(json), 'tokenizer_config.json': JSON.stringify(config) },
    { source: 'trained' },
  );
}
