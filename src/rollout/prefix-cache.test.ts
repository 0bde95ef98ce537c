// The prefix cache: completions are bit for bit the same with and without hits, blocks are given up and never lost.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { tinyPolicy } from '../../test/support/tiny.js';
import { createDevice } from '../compute/device/device.js';
import { BLOCK } from '../compute/op/attention/layout.js';
import { RetortError } from '../errors.js';
import { createEngine, type Engine, type EngineOptions } from './engine.js';
import { generateAll } from './generate.js';
import { blockBytes, blocksFor } from './kv-cache.js';
import { createPrefixTree } from './prefix-tree.js';
import type { Completion, GenerateRequest } from './request.js';

const CONTEXT = 160;
const essence = ({ ids, logprobs, samplingLogprobs, finishReason }: Completion) => ({
  ids,
  logprobs,
  samplingLogprobs,
  finishReason,
});

/** Prompts that share beginnings of several lengths. */
function prompt(i: number): number[] {
  const length = [3, 17, 33, 48, 49, 64, 90][i % 7];
  return Array.from({ length }, (_, j) => (j < 40 ? (j * 5 + (i % 2)) % 23 : (j * 7 + i) % 23));
}

function request(i: number): GenerateRequest {
  const sampling = i % 3 === 0 ? { temperature: 0 } : { temperature: 0.9, topP: 0.9 };
  return { promptIds: prompt(i), n: 1 + (i % 3), maxTokens: 4 + (i % 40), seed: 5, problem: i, ...sampling };
}

async function run(engine: Engine, requests: readonly GenerateRequest[]): Promise<Completion[][]> {
  try {
    return await generateAll(engine, requests);
  } finally {
    engine.close();
  }
}

test('the same bits with hits and without, one after another, together, and with few blocks', async () => {
  const device = createDevice({ threads: 2 });
  const policy = tinyPolicy(device, 1, CONTEXT);
  const requests = Array.from({ length: 40 }, (_, i) => request(i));
  const plain = await run(createEngine(policy, { maxSequences: 16 }), requests);
  const few = (blocksFor(CONTEXT) + 6) * blockBytes(policy.llama, 'float32');
  const kinds: EngineOptions[] = [
    { maxSequences: 1, prefixCache: true },
    { maxSequences: 16, prefixCache: true, prefillTokens: 64 },
    { maxSequences: 4, prefixCache: true, maxKvBytes: few },
  ];
  for (const options of kinds) {
    const cached = await run(createEngine(policy, options), requests);
    assert.deepEqual(
      cached.map((r) => r.map(essence)),
      plain.map((r) => r.map(essence)),
      JSON.stringify(options),
    );
    const hits = cached.flat().filter((c) => c.cachedTokens > 0);
    assert.ok(hits.length > 10, `${hits.length} hits with ${JSON.stringify(options)}`);
    for (const { cachedTokens, promptIds } of hits)
      assert.ok(cachedTokens % BLOCK === 0 && cachedTokens < promptIds.length);
  }
  assert.ok(plain.flat().every((c) => c.cachedTokens === 0));
  await device.close();
});

test('a conversation goes on from what was generated: a hit, and the bits of a fresh engine', async () => {
  const device = createDevice({ threads: 1 });
  const policy = tinyPolicy(device, 2, CONTEXT);
  const engine = createEngine(policy, { maxSequences: 4, prefixCache: true });
  let promptIds = prompt(1);
  for (let turn = 0; turn < 3; turn++) {
    const ask = { promptIds, maxTokens: 30, temperature: 0.8, seed: 9, problem: turn };
    const [[warm]] = await generateAll(engine, [ask]);
    const [[cold]] = await run(createEngine(policy, { maxSequences: 4 }), [ask]);
    assert.deepEqual(essence(warm), essence(cold), `turn ${turn}`);
    if (turn > 0)
      assert.ok(warm.cachedTokens > prompt(1).length, `turn ${turn}: ${warm.cachedTokens} tokens`);
    promptIds = [...promptIds, ...warm.ids, 3, 1, 4];
  }
  engine.close();
  await device.close();
});

test('cancelling at any step loses no block', async () => {
  const device = createDevice({ threads: 1 });
  const policy = tinyPolicy(device, 1, CONTEXT);
  const maxKvBytes = (blocksFor(CONTEXT) + 4) * blockBytes(policy.llama, 'float32');
  const engine = createEngine(policy, { maxSequences: 4, prefixCache: true, maxKvBytes });
  for (let round = 0; round < 60; round++) {
    const number = engine.submit(request(round));
    for (let step = 0; step < round % 6; step++) engine.step();
    engine.cancel(number);
  }
  // A sequence of the whole context needs every block that there is.
  const all = { promptIds: prompt(6), maxTokens: CONTEXT, temperature: 0, seed: 0, problem: 0 };
  const [[last]] = await run(engine, [all]);
  assert.ok(last.ids.length > 0);
  await device.close();
});

test('too few bytes for one sequence are refused, with what it takes', async () => {
  const device = createDevice({ threads: 1 });
  const policy = tinyPolicy(device, 1, CONTEXT);
  assert.throws(
    () => createEngine(policy, { maxKvBytes: 1000 }),
    (e) => e instanceof RetortError && /one sequence of 160 tokens takes \d+ MiB/.test(e.message),
  );
  await device.close();
});

test('the tree: finds what was remembered, forgets the oldest unused leaf first', () => {
  const chunk = fc.constantFrom(0, 1, 2);
  const sequence = fc.array(chunk, { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(fc.array(fc.tuple(sequence, fc.boolean()), { maxLength: 30 }), (steps) => {
      const tree = createPrefixTree();
      const held = new Map<number, string>();
      let next = 0;
      for (const [chunks, forgets] of steps) {
        const ids = chunks.flatMap((c) => Array.from({ length: BLOCK }, () => c));
        const known = tree.find(ids, chunks.length);
        known.forEach((block, i) => {
          assert.equal(held.get(block), chunks.slice(0, i + 1).join());
        });
        const table = [...known, ...chunks.slice(known.length).map(() => next++)];
        tree.remember(ids, table);
        table.forEach((block, i) => {
          held.set(block, chunks.slice(0, i + 1).join());
        });
        assert.deepEqual(tree.find(ids, chunks.length), table);
        assert.deepEqual(tree.find([...ids, 7], chunks.length + 1), table);
        if (!forgets) continue;
        const gone = tree.forget(() => false);
        const path = held.get(gone as number) as string;
        // Nothing that is held comes after it.
        assert.ok([...held.values()].every((other) => !other.startsWith(`${path},`)));
        held.delete(gone as number);
        assert.ok(!tree.has(gone as number));
      }
    }),
  );
});
