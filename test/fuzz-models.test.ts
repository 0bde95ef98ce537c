// Mutated model files of every kind: a RetortError or a model, and memory that does not grow. In full: runs/fuzz-models.mjs.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzModels } from './support/fuzz-models.js';

test('1,000 mutated model files: a RetortError or a model, nothing else; memory stays flat', async () => {
  const { loaded, refused, early, late, peak } = await fuzzModels(1000, 1);
  // Both ends must be met, else the mutations test nothing.
  assert.ok(loaded > 50 && refused > 500, `${loaded} loaded, ${refused} refused`);
  assert.ok(late - early < 8 << 20, `${early} bytes in use after a tenth of the files, ${late} after all`);
  assert.ok(peak < 256 << 20, `${peak} bytes more at the peak`);
});
