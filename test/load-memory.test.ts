// Memory while a model is read: at most 1.2 times its weights, whatever they are stored as.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { writeModelFolder } from '../src/checkpoint/folder.js';
import { elementCount, type LlamaConfig, parameterCount, parameterShapes } from '../src/model/config.js';
import { exportModel } from '../src/publish/export.js';
import { buildCharTokenizer } from '../src/text/char-tokenizer.js';
import { ROOT, temporaryFolder } from './support/cli.js';

const tokenizer = buildCharTokenizer({ characters: 'abc' });
const config: LlamaConfig = {
  vocabSize: tokenizer.vocabSize,
  hiddenSize: 1024,
  // One matrix is a third of the whole, so that a copy of it would show.
  intermediateSize: 16384,
  numHiddenLayers: 1,
  numAttentionHeads: 8,
  numKeyValueHeads: 1,
  headDim: 64,
  maxPositionEmbeddings: 32,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenIds: [],
};

const script = `
import { createDevice } from '${ROOT}/dist/src/compute/device/device.js';
import { loadPolicy } from '${ROOT}/dist/src/train/policy.js';
import { loadTokenizer } from '${ROOT}/dist/src/text/tokenizer.js';
const device = createDevice({ threads: 1 });
loadTokenizer(process.argv[1]).encode('abc');
const before = process.memoryUsage.rss();
loadPolicy(process.argv[1], device, { trainable: false });
console.log(1024 * process.resourceUsage().maxRSS - before);
process.exit();
`;

test('reading a model takes at most 1.2 times its weights', (t) => {
  const dir = temporaryFolder(t);
  const tensors = parameterShapes(config).map(({ name, shape }) => ({
    name,
    shape,
    data: () => new Float32Array(elementCount(shape)).fill(0.5),
  }));
  const folder = join(dir, 'model');
  writeModelFolder(folder, { config, tensors, tokenizer, dtype: 'BF16' });
  const small = join(dir, 'model.gguf');
  exportModel({ model: folder, out: small, format: 'gguf', type: 'Q8_0' });
  const weights = 4 * parameterCount(config);
  for (const model of [folder, small]) {
    const args = ['--input-type=module', '-e', script, model];
    const taken = Number(execFileSync(process.execPath, args, { encoding: 'utf8' }));
    assert.ok(
      taken >= 0.8 * weights && taken <= 1.2 * weights,
      `${model}: ${taken} bytes for ${weights} of weights`,
    );
  }
});
