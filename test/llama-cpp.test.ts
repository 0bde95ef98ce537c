// llama.cpp as the judge of exported GGUF files: logits, greedy decoding, tokens. Skipped where it is not installed.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { writeModelFolder } from '../src/checkpoint/folder.js';
import { openGguf, writeGguf } from '../src/checkpoint/gguf.js';
import { createDevice, type Device } from '../src/compute/device/device.js';
import { elementCount, type LlamaConfig, parameterShapes } from '../src/model/config.js';
import { freeLlama, packedLogits, packSequences } from '../src/model/llama.js';
import { exportModel } from '../src/publish/export.js';
import { createEngine } from '../src/rollout/engine.js';
import { generateAll } from '../src/rollout/generate.js';
import { buildCharTokenizer } from '../src/text/char-tokenizer.js';
import { chatRenderer, type Message } from '../src/text/chat.js';
import { tokenizerMetadata } from '../src/text/gguf-tokenizer.js';
import { createTokenizer, loadTokenizer, type Tokenizer } from '../src/text/tokenizer.js';
import { loadPolicy, type Policy } from '../src/train/policy.js';
import { trainBpe } from './support/bpe.js';
import { bundle, type Judge, type JudgedModel, noLlamaCpp, openJudge } from './support/llama-cpp.js';
import { mixedTexts } from './support/mixed-text.js';
import { noise } from './support/op.js';
import { noStories, stories } from './support/shared.js';
import { sentencePieceLike } from './support/tokenizers.js';

const scratch = fs.mkdtempSync(join(tmpdir(), 'retort-judge-'));
after(() => fs.rmSync(scratch, { recursive: true, force: true }));

const base = {
  hiddenSize: 48,
  intermediateSize: 76,
  numHiddenLayers: 3,
  numAttentionHeads: 6,
  numKeyValueHeads: 2,
  headDim: 10,
  maxPositionEmbeddings: 512,
  rmsNormEps: 1e-5,
  ropeTheta: 500000,
  tieWordEmbeddings: false,
};
const llama3 = { factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositionEmbeddings: 8192 };
const chatSpecials = ['<|begin_of_text|>', '<|im_end|>', '<|endoftext|>', '<think>', '</think>'];

interface Case {
  readonly name: string;
  /** Gives the folder of the model. */
  readonly make: () => string;
  readonly skip?: string | false;
  /** As texts are before they are compared: llama.cpp does not normalise. */
  readonly normalize?: (text: string) => string;
}

/** Random weights; attention sharp enough that greedy decoding does not only repeat one token. */
function randomModel(name: string, tokenizer: Tokenizer, extra: Partial<LlamaConfig>): string {
  const dir = join(scratch, name);
  const { bosTokenId, eosTokenIds, vocabSize } = tokenizer;
  const config: LlamaConfig = { ...base, bosTokenId, eosTokenIds, vocabSize: vocabSize + 3, ...extra };
  const tensors = parameterShapes(config).map(({ name, shape }, i) => {
    const scale = shape.length === 1 ? 0.5 : name.includes('embed') ? 1 : 3 / Math.sqrt(shape[1]);
    const shift = name.includes('norm') ? 1 : 0;
    const values = noise(elementCount(shape), i + 1, scale).map((x) => x + shift);
    return { name, shape, data: new Float32Array(values) };
  });
  writeModelFolder(dir, { config, tensors, tokenizer });
  return dir;
}

const cases: Case[] = [
  { name: 'stories260K', make: () => stories as string, skip: noStories },
  {
    name: 'llama3',
    make: () =>
      randomModel('llama3', trainBpe('llama-bpe', 300, chatSpecials), { headDim: 32, ropeScaling: llama3 }),
  },
  {
    name: 'qwen2',
    make: () =>
      randomModel('qwen2', trainBpe('qwen2', 300, chatSpecials), {
        headDim: 8,
        qkvBias: true,
        rmsNormEps: 1e-6,
      }),
    normalize: (text) => text.normalize('NFC'),
  },
  {
    name: 'qwen3',
    make: () =>
      randomModel('qwen3', trainBpe('smollm', 300, chatSpecials), {
        qkNorm: true,
        headDim: 22,
        tieWordEmbeddings: true,
      }),
  },
  {
    name: 'sentencepiece',
    make: () =>
      randomModel('sentencepiece', createTokenizer(sentencePieceLike(), { source: 'x' }), {
        numKeyValueHeads: 3,
      }),
  },
];

/** Differences of logits that llama.cpp's other order of summing may make, and that greedy decoding may turn at. */
const CLOSE = 1e-3;

describe('llama.cpp', { skip: noLlamaCpp }, () => {
  let judge: Judge;
  let device: Device;
  before(async () => {
    judge = await openJudge();
    device = createDevice();
  });
  after(async () => {
    await judge?.close();
    await device?.close();
  });

  for (const { name, make, skip, normalize = (text: string) => text } of cases)
    describe(name, { skip: skip ?? false }, () => {
      let judged: JudgedModel;
      let policy: Policy;
      let ids: number[];
      before(async () => {
        const model = make();
        const out = join(scratch, `${name}.gguf`);
        exportModel({ model, out, format: 'gguf' });
        judged = await judge.open(out);
        policy = loadPolicy(model, device, { trainable: false });
        const { config } = policy.llama;
        ids = [...noise(100, 3)].map((x) => Math.floor(((x + 1) / 2) * config.vocabSize));
      });
      after(async () => {
        await judged?.close();
        if (policy) freeLlama(policy.llama);
      });

      test('logits of 100 tokens', async (t) => {
        const theirs = await judged.logits(ids);
        const mark = device.mark();
        const ours = device.floats(
          packedLogits({ device, tape: null }, policy.llama, packSequences(policy.llama, [ids])),
        );
        const { vocabSize } = policy.llama.config;
        let worst = 0;
        theirs.forEach((logits, row) => {
          assert.equal(logits.size, vocabSize);
          for (const [id, logit] of logits)
            worst = Math.max(worst, Math.abs(logit - ours[row * vocabSize + id]!));
        });
        device.rewind(mark);
        t.diagnostic(`they differ by at most ${worst}`);
        assert.ok(worst <= CLOSE, `logits differ by ${worst}`);
      });

      test('100 greedy tokens', async (t) => {
        const prompt = ids.slice(0, 7);
        const theirs = await judged.greedy(prompt, 100);
        const ours: number[] = [];
        // Ends of sequence do not end it there, so they are gone on from here.
        while (ours.length < 100) {
          const engine = createEngine(policy, { maxSequences: 1 });
          const request = {
            promptIds: [...prompt, ...ours],
            temperature: 0,
            maxTokens: 100 - ours.length,
            seed: 0,
            problem: 0,
          };
          const [[{ ids: more }]] = await generateAll(engine, [request]);
          engine.close();
          ours.push(...more);
        }
        t.diagnostic(`${new Set(ours).size} different ones`);
        assert.ok(new Set(ours).size >= 10, `only the tokens ${[...new Set(ours)]}`);
        const turn = theirs.findIndex(({ id }, i) => id !== ours[i]);
        if (turn >= 0)
          assert.ok(theirs[turn]!.lead <= CLOSE, `token ${turn} differs, ahead by ${theirs[turn]!.lead}`);
      });

      test('tokens of 1,000 mixed texts', () => {
        const { tokenizer } = policy;
        compareTokens(tokenizer, judged, mixedTexts(1000, 5).map(normalize));
        const theirs = loadTokenizer(join(scratch, `${name}.gguf`));
        for (const text of mixedTexts(200, 6)) assert.deepEqual(theirs.encode(text), tokenizer.encode(text));
      });
    });

  test('the characters of a tokenizer without merges', async () => {
    const model = randomModel('chars', buildCharTokenizer({ characters: ' 0123456789+-*/=<>abcé世\n' }), {});
    const out = join(scratch, 'chars.gguf');
    exportModel({ model, out, format: 'gguf' });
    const judged = await judge.open(out);
    const texts = ['<think>1+1=2</think><answer>2</answer>', 'a é 世\n\n  <<>>', 'cab<|endoftext|>12 '];
    compareTokens(loadTokenizer(model), judged, texts);
    await judged.close();
  });

  test('F16 and Q8_0 load, and their logits are near', async () => {
    const model = randomModel('narrow', trainBpe('qwen2', 100, chatSpecials), {
      hiddenSize: 64,
      headDim: 10,
    });
    const ids = Array.from({ length: 30 }, (_, i) => (i * 37) % 300);
    const logits: Record<string, number[]> = {};
    for (const type of ['F32', 'F16', 'Q8_0'] as const) {
      const out = join(scratch, `narrow-${type}.gguf`);
      exportModel({ model, out, format: 'gguf', type });
      const judged = await judge.open(out);
      logits[type] = (await judged.logits(ids)).flatMap((row) =>
        [...row].sort(([a], [b]) => a - b).map(([, logit]) => logit),
      );
      await judged.close();
    }
    const distance = (type: string) => {
      const differences = logits[type]!.map((x, i) => (x - logits.F32![i]!) ** 2);
      const norm = Math.sqrt(logits.F32!.reduce((sum, x) => sum + x * x, 0));
      return Math.sqrt(differences.reduce((sum, x) => sum + x, 0)) / norm;
    };
    assert.ok(distance('F16') < 0.01, `F16: ${distance('F16')}`);
    assert.ok(distance('Q8_0') < 0.1, `Q8_0: ${distance('Q8_0')}`);
  });

  /** A file of llama.cpp's repository. */
  const published = (path: string) => git('show', `FETCH_HEAD:models/${path}`);
  const git = (...args: string[]) => {
    const repository = join(scratch, 'llama.cpp');
    const run = (...words: string[]) =>
      execFileSync('git', ['-C', repository, ...words], {
        maxBuffer: 2 ** 26,
        stdio: ['ignore', 'pipe', 'ignore'],
      });
    if (!fs.existsSync(repository)) {
      fs.mkdirSync(repository);
      run('init', '--quiet', '--bare');
      run('fetch', '--quiet', bundle, 'HEAD');
    }
    return run(...args);
  };

  test('vocabularies of published models, from the files of llama.cpp: tokens of 1,000 mixed texts each', async () => {
    for (const [name, size, normalize] of [
      ['llama-bpe', 128256, (text: string) => text],
      // </s> is an ordinary token there, and llama.cpp takes it for an end.
      ['qwen2', 151936, (text: string) => text.normalize('NFC').replaceAll('</s>', '')],
      ['llama-spm', 32000, (text: string) => text],
      ['gpt-2', 50257, (text: string) => text],
    ] as const) {
      const path = join(scratch, `${name}.gguf`);
      fs.writeFileSync(path, published(`ggml-vocab-${name}.gguf`));
      const tokenizer = loadTokenizer(path);
      assert.equal(tokenizer.vocabSize, size);
      const judged = await judge.open(path, { vocabularyOnly: true });
      const texts = mixedTexts(1000, 7).map(normalize);
      compareTokens(tokenizer, judged, texts);
      await judged.close();
      // Written by us: as one that came in a Hugging Face folder would be.
      const file = openGguf(path);
      const ours = new Map([...file.metadata].filter(([key]) => !key.startsWith('tokenizer.')));
      file.close();
      for (const [key, value] of tokenizerMetadata(tokenizer, size)) ours.set(key, value);
      writeGguf(path, ours, []);
      const written = await judge.open(path, { vocabularyOnly: true });
      compareTokens(tokenizer, written, texts);
      await written.close();
    }
  });

  test('chat templates of published models are rendered as by llama.cpp', () => {
    const add = {
      name: 'add',
      description: 'adds "two" numbers',
      parameters: { type: 'object', properties: { a: { type: 'number' }, b: { type: 'number' } } },
    };
    const tools = [{ type: 'function', function: add }];
    const call = { id: 'c1', type: 'function', function: { name: 'add', arguments: { a: 1, b: 2 } } };
    const conversations: Message[][] = [
      [{ role: 'user', content: 'Hello <b> "x" é 世界\n' }],
      [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'Hi' },
        { role: 'assistant', content: '<think>\nhm\n</think>\n\nHello.' },
        { role: 'user', content: 'Again' },
      ],
      [
        { role: 'user', content: '1+2?' },
        { role: 'assistant', content: '', tool_calls: [call] },
        { role: 'tool', name: 'add', tool_call_id: 'c1', content: '3' },
      ],
    ];
    const variables = [{}, { tools }, { enable_thinking: false }, { enable_thinking: true, tools }];
    const tokens = { bos_token: '<s>', eos_token: '</s>' };
    const rendered = new Map<string, Set<string>>();
    for (const name of [
      ...['3.1-8B', '3.2-3B', '3.3-70B'].map((size) => `meta-llama-Llama-${size}-Instruct`),
      ...['Qwen2.5-7B-Instruct', 'Qwen3-0.6B', 'QwQ-32B'].map((model) => `Qwen-${model}`),
      ...['Llama-8B', 'Qwen-32B'].map((model) => `deepseek-ai-DeepSeek-R1-Distill-${model}`),
    ]) {
      const template = published(`templates/${name}.jinja`).toString();
      const render = chatRenderer(
        createTokenizer({ ...sentencePieceLike(), 'chat_template.jinja': template }, { source: name }),
      );
      const texts = new Set<string>();
      for (const messages of conversations)
        for (const more of variables)
          for (const add_generation_prompt of [true, false]) {
            const given = { date_string: '26 Jul 2024', ...more };
            const text = render(messages, add_generation_prompt, given);
            assert.equal(
              text,
              judge.render(template, { messages, add_generation_prompt, ...given, ...tokens }),
            );
            texts.add(text);
          }
      rendered.set(name, texts);
    }
    // The variables reach the template: without thinking Qwen3's prompt ends with thoughts that are empty.
    const qwen3 = [...rendered.get('Qwen-Qwen3-0.6B')!];
    assert.ok(qwen3.some((text) => text.endsWith('<think>\n\n</think>\n\n')));
    assert.ok(qwen3.some((text) => text.includes('adds \\"two\\" numbers')));
  });
});

function compareTokens(tokenizer: Tokenizer, judged: JudgedModel, texts: readonly string[]): void {
  for (const text of texts) {
    const ids = tokenizer.encode(text);
    assert.deepEqual(judged.tokenize(text), ids, JSON.stringify(text));
  }
}
