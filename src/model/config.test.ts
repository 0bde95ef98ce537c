// Configuration checks and the list of parameters, against the published sizes of stories260K.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetortError } from '../errors.js';
import { type LlamaConfig, parameterCount, parameterShapes, validateConfig } from './config.js';

const stories: LlamaConfig = {
  vocabSize: 512,
  hiddenSize: 64,
  intermediateSize: 172,
  numHiddenLayers: 5,
  numAttentionHeads: 8,
  numKeyValueHeads: 4,
  headDim: 8,
  maxPositionEmbeddings: 512,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  tieWordEmbeddings: true,
  bosTokenId: 1,
  eosTokenIds: [2],
};

test('the parameters of stories260K', () => {
  assert.equal(validateConfig(stories), stories);
  assert.equal(parameterCount(stories), 260032);
  const names = parameterShapes(stories).map((p) => p.name);
  assert.equal(new Set(names).size, names.length);
  assert.equal(names.includes('lm_head.weight'), false);
  const untied = parameterShapes({ ...stories, tieWordEmbeddings: false });
  assert.deepEqual(untied.at(-1), { name: 'lm_head.weight', shape: [512, 64] });
});

test('each bad field is named', () => {
  const cases: Array<[Partial<LlamaConfig>, RegExp]> = [
    [{ hiddenSize: 0 }, /hiddenSize.*got 0/],
    [{ vocabSize: 1.5 }, /vocabSize.*got 1.5/],
    [{ numHiddenLayers: 5000 }, /numHiddenLayers.*5000/],
    [{ numKeyValueHeads: 3 }, /numKeyValueHeads.*got 3.*numAttentionHeads \(8\)/],
    [{ headDim: 7 }, /headDim.*got 7.*even/],
    [{ rmsNormEps: 0 }, /rmsNormEps/],
    [{ ropeTheta: Number.NaN }, /ropeTheta.*NaN/],
    [{ eosTokenIds: [2, 512] }, /eosTokenIds.*512.*0 to 511/],
    [{ bosTokenId: -1 }, /bosTokenId.*-1/],
  ];
  for (const [change, message] of cases)
    assert.throws(
      () => validateConfig({ ...stories, ...change }),
      (error: unknown) =>
        error instanceof RetortError && error.code === 'bad-model' && message.test(error.message),
    );
});
