// A real model folder that says what a test wrote: each token has one successor, so the prompt's last token decides.
import { writeModelFolder } from '../../src/checkpoint/folder.js';
import { parameterShapes } from '../../src/model/config.js';
import { byteCharacters } from '../../src/text/byte-level.js';
import { createTokenizer } from '../../src/text/tokenizer.js';

const END = '<|end|>';
const ROLES = ['<|system|>', '<|user|>', '<|assistant|>', '<|tool|>'];

export interface Script {
  /** What the answer is made of, one token each; a piece may be in one script only. */
  readonly pieces: readonly string[];
  /** Goes round for ever instead of ending. */
  readonly loop?: boolean;
}

/** Shows roles, tools and whether thinking is on, then the last message again: the trigger. */
const TEMPLATE = `{%- if tools %}<|system|>{{ tools | tojson }}{% endif -%}
{%- for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.reasoning_content %}[{{ m.reasoning_content }}]{% endif %}{% if m.tool_calls %}{{ m.tool_calls | tojson }} for <tool_call>{% endif %}{% endfor -%}
{%- if enable_thinking is defined and not enable_thinking %}(no thoughts){% endif -%}
<|assistant|>{{ messages[-1].content }}`;

/**
 * Writes the folder of a model that answers `trigger` by its script.
 * @param scripts by trigger, which is a token too
 * @param options.context longest sequence
 */
export function writeScriptedModel(
  dir: string,
  scripts: Readonly<Record<string, Script>>,
  options: { readonly context?: number; readonly template?: string } = {},
): void {
  const words = Object.entries(scripts).flatMap(([trigger, { pieces }]) => [trigger, ...pieces]);
  const added = [END, ...ROLES, ...new Set(words)].map((content, i) => ({
    ...{ id: byteCharacters.length + i, content, single_word: false, lstrip: false, rstrip: false },
    ...{ normalized: false, special: content === END || ROLES.includes(content) },
  }));
  const idOf = new Map(added.map(({ content, id }) => [content, id]));
  const end = idOf.get(END) as number;
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  const tokenizer = createTokenizer(
    {
      'tokenizer.json': JSON.stringify({
        ...{ version: '1.0', truncation: null, padding: null, normalizer: null, post_processor: null },
        ...{ added_tokens: added, pre_tokenizer: byteLevel, decoder: byteLevel },
        model: {
          ...{ type: 'BPE', dropout: null, unk_token: null, byte_fallback: false, merges: [] },
          vocab: Object.fromEntries(byteCharacters.map((c, id) => [c, id])),
        },
      }),
      'tokenizer_config.json': JSON.stringify({
        ...{ bos_token: END, eos_token: END, chat_template: options.template ?? TEMPLATE },
      }),
    },
    { source: 'scripted' },
  );
  const next = new Map<number, number>();
  for (const [trigger, { pieces, loop }] of Object.entries(scripts)) {
    const ids = [trigger, ...pieces].map((word) => idOf.get(word) as number);
    ids.forEach((id, i) => {
      const follows = ids[i + 1] ?? (loop ? ids[1] : end);
      if (next.has(id) && next.get(id) !== follows)
        throw new Error(`a piece of ${trigger} is in two scripts`);
      next.set(id, follows);
    });
  }
  const { vocabSize } = tokenizer;
  const config = {
    ...{ vocabSize, hiddenSize: vocabSize, intermediateSize: 32, numHiddenLayers: 1 },
    ...{
      numAttentionHeads: 1,
      numKeyValueHeads: 1,
      headDim: 16,
      maxPositionEmbeddings: options.context ?? 512,
    },
    ...{ rmsNormEps: 1e-5, ropeTheta: 10000, tieWordEmbeddings: false, bosTokenId: end, eosTokenIds: [end] },
  };
  const tensors = parameterShapes(config).map(({ name, shape }) => {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    if (name.endsWith('norm.weight')) data.fill(1);
    // Embeddings are the axes; the head turns each into its successor. Attention and feed-forward add nothing.
    for (let id = 0; id < vocabSize; id++) {
      if (name === 'model.embed_tokens.weight') data[id * vocabSize + id] = 1;
      if (name === 'lm_head.weight') data[(next.get(id) ?? end) * vocabSize + id] = 2;
    }
    return { name, shape, data };
  });
  writeModelFolder(dir, { config, tensors, tokenizer });
}
