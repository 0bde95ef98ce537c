// Mutated model files: each must load, or end in a RetortError. Used by a test, and by runs/fuzz-models.mjs in full.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { writeModelFolder } from '../../src/checkpoint/folder.js';
import { openModel } from '../../src/checkpoint/open-model.js';
import { RetortError } from '../../src/errors.js';
import { elementCount, type LlamaConfig, parameterShapes } from '../../src/model/config.js';
import { exportModel } from '../../src/publish/export.js';
import { philox } from '../../src/random.js';
import { buildCharTokenizer } from '../../src/text/char-tokenizer.js';
import { createTokenizer, loadTokenizer, type Tokenizer } from '../../src/text/tokenizer.js';
import { noise } from './op.js';
import { sentencePieceLike } from './tokenizers.js';

export interface FuzzResult {
  readonly files: number;
  readonly loaded: number;
  readonly refused: number;
  /** Bytes in use after collecting garbage, after a tenth of the files and at the end. */
  readonly early: number;
  readonly late: number;
  /** Most memory of the process beyond that at the beginning, in bytes. */
  readonly peak: number;
}

/** Loads `files` mutated files. @throws where one ends otherwise than in a model or a RetortError */
export async function fuzzModels(files: number, seed: number): Promise<FuzzResult> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const inUse = async () => {
    // What memory outside the heap belonged to is told in the next turn of the event loop.
    collect();
    await setImmediate();
    collect();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const dir = fs.mkdtempSync(join(tmpdir(), 'retort-fuzz-'));
  const { warn } = console;
  const printed: string[] = [];
  console.warn = (...words) => printed.push(words.join(' '));
  try {
    const sources = makeSources(dir);
    const before = process.resourceUsage().maxRSS;
    let [loaded, early] = [0, 0];
    for (let i = 0; i < files; i++) {
      if (i === Math.ceil(files / 10)) early = await inUse();
      const source = sources[i % sources.length]!;
      const random = (n: number, below: number) => philox(seed, i, n, 0xf522)[0] % below;
      fs.writeFileSync(source.file, mutate(source.content, source.hot, random));
      try {
        loadEverything(source.model);
        loaded++;
      } catch (error) {
        assert.ok(error instanceof RetortError, `file ${i} (${source.file}): ${(error as Error).stack}`);
      }
      // The other files of the folder must be whole when their turn comes.
      fs.writeFileSync(source.file, source.content);
    }
    assert.deepEqual(printed, [], 'a library printed warnings');
    const late = await inUse();
    const peak = (process.resourceUsage().maxRSS - before) * 1024;
    return { files, loaded, refused: files - loaded, early, late, peak };
  } finally {
    console.warn = warn;
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

function loadEverything(path: string): void {
  const model = openModel(path);
  try {
    for (const { name, shape } of model.parameters) {
      const values = new Float32Array(elementCount(shape));
      model.read(name, values);
      assert.ok(values.every(Number.isFinite));
    }
  } finally {
    model.close();
  }
  const tokenizer = loadTokenizer(path);
  const ids = tokenizer.encode('on 12 a');
  assert.equal(typeof tokenizer.decode(ids), 'string');
}

interface Source {
  readonly model: string;
  readonly file: string;
  readonly content: Buffer;
  /** The first bytes, which most mutations go to. */
  readonly hot: number;
}

function makeSources(dir: string): Source[] {
  const sources: Source[] = [];
  const spm = createTokenizer(sentencePieceLike(), { source: 'fuzz' });
  const chars = buildCharTokenizer({ characters: 'on 12a' });
  const add = (model: string, file: string, hot = Number.POSITIVE_INFINITY) => {
    const content = fs.readFileSync(file);
    sources.push({ model, file, content, hot: Math.min(hot, content.length) });
  };
  const features: [name: string, tokenizer: Tokenizer, features: Partial<LlamaConfig>][] = [
    [
      'spm',
      spm,
      {
        ropeScaling: { factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositionEmbeddings: 8192 },
      },
    ],
    ['chars', chars, { qkNorm: true }],
  ];
  for (const [name, tokenizer, extra] of features) {
    const config = smallConfig(tokenizer.vocabSize, extra);
    const folder = join(dir, name);
    const tensors = parameterShapes(config).map(({ name, shape }, i) => ({
      name,
      shape,
      data: new Float32Array(noise(elementCount(shape), i)),
    }));
    writeModelFolder(folder, { config, tensors, tokenizer, sampling: { temperature: 0.6 }, dtype: 'BF16' });
    for (const file of ['config.json', 'generation_config.json', 'tokenizer_config.json'])
      add(folder, join(folder, file));
    add(folder, join(folder, 'tokenizer.json'), 3000);
    add(folder, join(folder, 'model.safetensors'), 2000);
    for (const type of ['F32', 'F16', 'Q8_0'] as const) {
      const out = join(dir, `${name}-${type}.gguf`);
      exportModel({ model: folder, out, format: 'gguf', type });
      const whole = fs.statSync(out).size;
      add(out, out, whole - 2 * elementCount([tokenizer.vocabSize, 32]));
    }
  }
  return sources;
}

function smallConfig(vocabSize: number, extra: Partial<LlamaConfig>): LlamaConfig {
  return {
    vocabSize,
    hiddenSize: 32,
    intermediateSize: 48,
    numHiddenLayers: 1,
    numAttentionHeads: 2,
    numKeyValueHeads: 1,
    headDim: 16,
    maxPositionEmbeddings: 64,
    rmsNormEps: 1e-5,
    ropeTheta: 500000,
    tieWordEmbeddings: true,
    bosTokenId: null,
    eosTokenIds: [2],
    ...extra,
  };
}

/** Changes a file in one to three places: bits, whole numbers, cuts, repeats, parts moved. */
function mutate(content: Buffer, hot: number, random: (n: number, below: number) => number): Buffer {
  let bytes = Buffer.from(content);
  const changes = 1 + random(0, 3);
  for (let change = 1; change <= changes; change++) {
    const at = random(
      10 * change,
      random(10 * change + 1, 8) === 0 ? bytes.length : Math.min(hot, bytes.length),
    );
    const other = random(10 * change + 2, bytes.length);
    const length = 1 + random(10 * change + 3, 24);
    const value = interesting[random(10 * change + 4, interesting.length)]!;
    const room = Math.min(at, bytes.length - 8);
    switch (random(10 * change + 5, 7)) {
      case 0:
        bytes[at] ^= 1 << random(10 * change + 6, 8);
        break;
      case 1:
        bytes[at] = random(10 * change + 6, 256);
        break;
      case 2:
        if (room >= 0) bytes.writeBigUInt64LE(value, room);
        break;
      case 3:
        if (room >= 0) bytes.writeUInt32LE(Number(value & 0xffffffffn), room);
        break;
      case 4:
        bytes = bytes.subarray(0, at);
        break;
      case 5:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
        break;
      default:
        bytes = Buffer.concat([
          bytes.subarray(0, at),
          bytes.subarray(other, other + length),
          bytes.subarray(at),
        ]);
    }
    if (bytes.length === 0) break;
  }
  return bytes;
}

const interesting = [
  0n,
  1n,
  2n,
  7n,
  255n,
  65536n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
];
