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

test('news of many samples: in order for each, and the event loop has turns between them', async () => {
  const engine = startEngine({ threads: 1, maxSequences: 32, maxKvBytes: 2 ** 24 });
  const { handle } = await engine.load(COUNTDOWN_BASE);
  let turns = 0;
  let before = 0;
  let told = 0;
  let most = 0;
  let counting = true;
  const turn = () => {
    turns++;
    if (counting) setImmediate(turn);
  };
  turn();
  // Each takes 3 ms to tell of, longer than a stretch.
  const take = () => {
    told = turns === before ? told + 1 : 1;
    before = turns;
    most = Math.max(most, told);
    for (const until = performance.now() + 3; performance.now() < until; );
  };
  const order = { handle, lane: 'a', promptIds: [1, 5], n: 1, maxTokens: 8, stop: [], topLogprobs: null };
  const counts = await Promise.all(
    Array.from(
      { length: 32 },
      (_, seed) =>
        new Promise<[number, number]>((resolve, reject) => {
          let tokens = 0;
          engine.submit(
            { ...order, seed, control: null },
            {
              onTokens: ({ ids }) => {
                take();
                tokens += ids.length;
              },
              onEnd: (end) => {
                take();
                resolve([tokens, end.tokens]);
              },
              onFailed: (why) => reject(why instanceof Error ? why : new Error(why)),
            },
          );
        }),
    ),
  );
  counting = false;
  // Every token was told before the end of its sample.
  for (const [tokens, inAll] of counts) assert.equal(tokens, inAll);
  // Told of all at once, 32 would follow one another.
  assert.ok(most < 8, `${most} without a turn`);
  await engine.close();
});
