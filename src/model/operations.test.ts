// Operations of runs by the papers' count: a hand-made sum, and its parts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LlamaConfig } from './config.js';
import {
  completionOperations,
  forwardOperations,
  trainingOperations,
  workingParameters,
} from './operations.js';

const config: LlamaConfig = {
  ...{ vocabSize: 10, hiddenSize: 8, intermediateSize: 12, numHiddenLayers: 2, numAttentionHeads: 2 },
  ...{ numKeyValueHeads: 1, headDim: 6, maxPositionEmbeddings: 64, rmsNormEps: 1e-5, ropeTheta: 10000 },
  ...{ tieWordEmbeddings: false, bosTokenId: null, eosTokenIds: [] },
};

test('a sequence costs 2 N a token and 4 d a layer for each pair of positions; training three times that', () => {
  // q 12x8, k and v 6x8, o 8x12, gate, up and down 12x8, two norms of 8; then the last norm and the head.
  const layer = 96 + 2 * 48 + 96 + 3 * 96 + 16;
  const n = 2 * layer + 8 + 80;
  assert.equal(workingParameters(config), n);
  assert.equal(workingParameters({ ...config, tieWordEmbeddings: true }), n);
  let sum = 0;
  // A token sees itself and those before it; half of itself, as the count's integral has it.
  for (let position = 0; position < 7; position++) sum += 2 * n + 4 * 2 * 12 * (position + 0.5);
  assert.equal(forwardOperations(config, 0, 7), sum);
  assert.equal(forwardOperations(config, 0, 3) + forwardOperations(config, 3, 7), sum);
  assert.equal(trainingOperations(config, [7, 7]), 6 * sum);
  const rest = forwardOperations(config, 3, 7);
  assert.equal(completionOperations(config, 3, [4, 4]), forwardOperations(config, 0, 3) + 2 * rest);
});
