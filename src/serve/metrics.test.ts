// Metrics between two messages of the engine's thread.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EngineClient } from './engine-client.js';
import { createMetrics } from './metrics.js';

test('samples whose clients have left do not make the number of waiting ones negative', async () => {
  const busyness = { running: 5, waiting: 0, generatedTokens: 0, bytes: 0 };
  const metrics = createMetrics({ outstanding: 2, busyness } as EngineClient);
  assert.match(await metrics.text(), /^retort_samples_waiting 0$/m);
});
