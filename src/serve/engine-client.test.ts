// The engine's thread seen from the server: when it dies, nobody waits for it, and its end can be waited for.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COUNTDOWN_BASE } from '../../test/support/cli.js';
import { startEngine, type WorkListener } from './engine-client.js';

test('a thread that has died: what waits fails, what comes is refused, closing ends', {
  timeout: 60_000,
}, async () => {
  const engine = startEngine({ threads: 1, maxSequences: 4, maxKvBytes: 2 ** 24 });
  const { handle } = await engine.load(COUNTDOWN_BASE);
  const order = {
    ...{ handle, lane: 'a', promptIds: [1], maxTokens: 1, stop: [], seed: 0 },
    ...{ topLogprobs: null, control: null },
  };
  const listener: WorkListener = { onTokens() {}, onEnd() {}, onFailed() {} };
  // More samples than a list can have: the server never lets so many in.
  const failed = new Promise((onFailed) =>
    engine.submit({ ...order, n: 2 ** 33 }, { ...listener, onFailed }),
  );
  assert.match((await engine.died).message, /array length/);
  assert.match(String(await failed), /array length/);
  assert.equal(engine.outstanding, 0);
  assert.throws(() => engine.submit({ ...order, n: 1 }, listener), /array length/);
  await assert.rejects(engine.load(COUNTDOWN_BASE), /array length/);
  await engine.close();
});
