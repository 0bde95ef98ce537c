// The engine against golden files from PyTorch, tensor by tensor: norm of the difference over norm at most 1e-4.
import { after, describe, test } from 'node:test';
import { packedLogits, packSequences } from '../src/model/llama.js';
import {
  assertGradients,
  assertMoves,
  goldenLlama,
  goldenOptimizer,
  nextTokenLoss,
  targets,
} from './golden-engine.js';
import { assertClose, readIndex, readTensors, tensor } from './golden-files.js';

const index = readIndex();
const files = { a: readTensors('a.safetensors'), b: readTensors('b.safetensors') };
const steps = readTensors('adamw.safetensors');

for (const target of targets)
  describe(target.name, () => {
    const device = target.open();
    after(() => device.close());

    for (const name of ['a', 'b'] as const) {
      const { config, sequences, loss } = index[name];
      const llama = goldenLlama(device, config, files[name]);

      test(`${name}: logits`, () => {
        const mark = device.mark();
        const logits = packedLogits({ device, tape: null }, llama, packSequences(llama, sequences));
        assertClose(device.floats(logits), tensor(files[name], 'logits').data, 'logits');
        device.rewind(mark);
      });

      test(`${name}: loss and every gradient`, () => {
        assertClose([nextTokenLoss(llama, sequences)], [loss], 'loss');
        assertGradients(llama, files[name], 'gradient:');
      });
    }

    test('ten AdamW steps', () => {
      const { options, losses, gradNorms } = index.adamw;
      const llama = goldenLlama(device, index.a.config, files.a);
      const optimizer = goldenOptimizer(llama, options);
      for (let step = 1; step <= options.steps; step++) {
        assertClose([nextTokenLoss(llama, index.a.sequences)], [losses[step - 1]], `loss of step ${step}`);
        const gradNorm = optimizer.step(options.learningRate);
        assertClose([gradNorm], [gradNorms[step - 1]], `gradient norm of step ${step}`);
        if (step === 1) assertMoves(llama, files.a, steps, 'step1:');
      }
      assertMoves(llama, files.a, steps, 'step10:');
    });
  });
