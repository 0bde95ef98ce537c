// Model folders with random weights over a byte-level vocabulary: every byte, pieces of JSON, halves of characters.
import { writeModelFolder } from '../../src/checkpoint/folder.js';
import { createDevice } from '../../src/compute/device/device.js';
import { byteCharacters, byteLevelCharacters } from '../../src/text/byte-level.js';
import { createTokenizer, type Tokenizer } from '../../src/text/tokenizer.js';
import { newModelConfig } from '../../src/train/new-model.js';
import { newPolicy, policyFiles } from '../../src/train/policy.js';

const PIECES = [
  '{"',
  '": ',
  '", "',
  '"}',
  ' [',
  '], ',
  'true',
  'false',
  'null',
  ' the',
  'name',
  '00',
  '12',
  '.5',
  '\\u',
  '\\n',
  '🙂',
  'é',
  '日',
];

const TEMPLATE = `{%- if tools %}<|system|>{{ tools | tojson }} in <tool_call>{% endif %}{%- for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>{% if enable_thinking %}<think>{% endif %}`;

/** A BPE tokenizer whose merges spell the pieces; some end inside a UTF-8 character. */
export function pieceTokenizer(): Tokenizer {
  const vocab = new Map(byteCharacters.map((c, id) => [c, id]));
  const merges: [string, string][] = [];
  for (const piece of PIECES) {
    const bytes = byteLevelCharacters(piece);
    for (let i = 1; i < bytes.length; i++) {
      const left = bytes.slice(0, i).join('');
      if (vocab.has(left + bytes[i])) continue;
      vocab.set(left + bytes[i], vocab.size);
      merges.push([left, bytes[i]]);
    }
  }
  const added = ['<|end|>', '<|user|>', '<|assistant|>', '<|system|>', '<think>', '</think>'].map(
    (content, i) => ({
      ...{ id: vocab.size + i, content, single_word: false, lstrip: false, rstrip: false, normalized: false },
      special: content.startsWith('<|'),
    }),
  );
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  return createTokenizer(
    {
      'tokenizer.json': JSON.stringify({
        ...{ version: '1.0', truncation: null, padding: null, normalizer: null, post_processor: null },
        ...{ added_tokens: added, pre_tokenizer: byteLevel, decoder: byteLevel },
        model: {
          ...{ type: 'BPE', dropout: null, unk_token: null, byte_fallback: false, merges },
          vocab: Object.fromEntries(vocab),
        },
      }),
      'tokenizer_config.json': JSON.stringify({ eos_token: '<|end|>', chat_template: TEMPLATE }),
    },
    { source: 'pieces' },
  );
}

/** Writes a model of random weights. */
export async function writeRandomModel(
  dir: string,
  options: { seed: number; context: number },
): Promise<void> {
  const device = createDevice({ threads: 1 });
  const tokenizer = pieceTokenizer();
  const sizes = {
    dModel: 32,
    layers: 2,
    heads: 2,
    context: options.context,
    tieEmbeddings: false,
    ropeTheta: 10_000,
  };
  const policy = newPolicy(newModelConfig(sizes, tokenizer), tokenizer, device, options.seed);
  writeModelFolder(dir, policyFiles(policy));
  await device.close();
}
