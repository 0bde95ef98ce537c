// The models that `retort bench train` and `decode` run: a plain decoder, its operations a token, one unit of work.
import { Tape } from '../compute/autograd.js';
import type { Device } from '../compute/device/device.js';
import type { Dtype } from '../compute/kernel/bfloat16.js';
import type { LlamaConfig } from '../model/config.js';
import { createLlama, freeLlama, initLlama, packedLogprobs, packSequences } from '../model/llama.js';
import { forwardOperations, trainingOperations } from '../model/operations.js';
import { createEngine } from '../rollout/engine.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { createOptimizer } from '../train/optimizer.js';

const VOCABULARY = 64;
const LAYERS = 4;
const HEADS = 4;

/** Vocabulary 64, 4 layers, 4 heads, SwiGLU of 8/3 d up to a multiple of 32, untied head. */
export function benchConfig(dModel: number, context: number): LlamaConfig {
  return {
    vocabSize: VOCABULARY,
    hiddenSize: dModel,
    intermediateSize: Math.ceil((8 * dModel) / 3 / 32) * 32,
    numHiddenLayers: LAYERS,
    numAttentionHeads: HEADS,
    numKeyValueHeads: HEADS,
    headDim: dModel / HEADS,
    maxPositionEmbeddings: context,
    rmsNormEps: 1e-5,
    ropeTheta: 10000,
    tieWordEmbeddings: false,
    bosTokenId: null,
    eosTokenIds: [],
  };
}

/** Ids without texts, of which none ends a sequence. */
export const benchTokenizer: Tokenizer = {
  vocabSize: VOCABULARY,
  bosTokenId: null,
  eosTokenIds: [],
  encode: () => [],
  decode: () => '',
  stream: () => ({ push: () => '', end: () => '' }),
  files: {},
  chatTemplate: null,
};

/** Operations of a trained token: those of a whole sequence, shared out. */
export function trainFlops(config: LlamaConfig, sequence: number): number {
  return trainingOperations(config, [sequence]) / sequence;
}

/** Operations of a decoded token, by the same count: a third of a trained one's. */
export function decodeFlops(config: LlamaConfig, sequence: number): number {
  return forwardOperations(config, 0, sequence) / sequence;
}

/** Makes a model to train and gives `use` one training step: forward, backward, AdamW. */
export function withTraining<T>(
  device: Device,
  dModel: number,
  { batch, sequence }: { batch: number; sequence: number },
  use: (step: () => void) => T,
): T {
  const config = benchConfig(dModel, sequence);
  const llama = createLlama(device, config, { trainable: true });
  initLlama(llama, 0);
  const optimizer = createOptimizer(llama, {
    beta1: 0.9,
    beta2: 0.999,
    adamEpsilon: 1e-8,
    weightDecay: 0.1,
    maxGradNorm: 1e9,
  });
  const token = (s: number, t: number) => (s * 31 + t * t * 7 + t) % VOCABULARY;
  const ids = Array.from({ length: batch }, (_, s) =>
    Array.from({ length: sequence }, (_, t) => token(s, t)),
  );
  const targets = ids.flatMap((_, s) => Array.from({ length: sequence }, (_, t) => token(s, t + 1)));
  const step = () => {
    const mark = device.mark();
    const tape = new Tape(device);
    const { logprob } = packedLogprobs({ device, tape }, llama, packSequences(llama, ids), targets);
    device.fill(tape.contribute(logprob).tensor, -1 / targets.length);
    tape.backward();
    device.rewind(mark);
    optimizer.step(1e-3);
  };
  try {
    return use(step);
  } finally {
    optimizer.free();
    freeLlama(llama);
  }
}

/**
 * Makes a model and gives `use` one round: `tokens` tokens for each of `batch` sequences, sampled at temperature 1.
 * Matrices, keys and values are kept as `dtype`.
 */
export function withDecoding<T>(
  device: Device,
  dModel: number,
  { batch, tokens, dtype = 'float32' }: { batch: number; tokens: number; dtype?: Dtype },
  use: (round: () => void) => T,
): T {
  const llama = createLlama(device, benchConfig(dModel, tokens + 1), { trainable: false, dtype });
  initLlama(llama, 0);
  const engine = createEngine(
    { llama, tokenizer: benchTokenizer },
    { maxSequences: batch, kvCacheDtype: dtype },
  );
  let seed = 0;
  const round = () => {
    for (let problem = 0; problem < batch; problem++) {
      engine.submit({ promptIds: [problem % VOCABULARY], maxTokens: tokens, seed, problem });
    }
    seed++;
    while (engine.busy) engine.step();
  };
  try {
    return use(round);
  } finally {
    engine.close();
    freeLlama(llama);
  }
}
