// Rollouts: the same completion alone and in any batch, agreement with a full forward pass, limits, stops, memory.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { noStories, stories } from '../../test/support/shared.js';
import { tinyKinds, tinyPolicy, tinyPolicyOf } from '../../test/support/tiny.js';
import { createDevice } from '../compute/device/device.js';
import { RetortError } from '../errors.js';
import type { LlamaConfig } from '../model/config.js';
import { packedLogprobs, packSequences } from '../model/llama.js';
import { loadPolicy, type Policy } from '../train/policy.js';
import { createEngine } from './engine.js';
import { generateAll } from './generate.js';
import type { Completion, GenerateRequest } from './request.js';

/** Requests of many kinds; every fifth prompt is long enough for two blocks. */
function mixedRequests(count: number, n: number): GenerateRequest[] {
  return Array.from({ length: count }, (_, i) => ({
    promptIds: Array.from({ length: 1 + (i % 5 === 0 ? 35 : i % 18) }, (_, j) => (i * 7 + j * 3) % 23),
    n,
    maxTokens: 3 + (i % 29),
    temperature: i % 6 === 5 ? 0 : 0.7 + (i % 3) / 3,
    topK: i % 4 === 1 ? 5 : 0,
    topP: i % 4 === 2 ? 0.8 : 1,
    minP: i % 4 === 3 ? 0.05 : 0,
    seed: 11,
    problem: i,
  }));
}

async function complete(
  policy: Policy,
  requests: readonly GenerateRequest[],
  maxSequences: number,
): Promise<Completion[][]> {
  const engine = createEngine(policy, { maxSequences, prefillTokens: 64 });
  try {
    return await generateAll(engine, requests);
  } finally {
    engine.close();
  }
}

const essence = ({ ids, logprobs, samplingLogprobs, finishReason }: Completion) => ({
  ids,
  logprobs,
  samplingLogprobs,
  finishReason,
});

test('steps run launch by launch and steps run again from a recording give the same', async () => {
  const device = createDevice({ threads: 2 });
  const policy = tinyPolicy(device);
  const engine = createEngine(policy, { maxSequences: 8 });
  const seen: ReturnType<typeof essence>[][] = [];
  for (const stepwise of [true, false, false, true, false]) {
    device.stepwise = stepwise;
    const all = await generateAll(engine, mixedRequests(8, 1));
    seen.push(all.flat().map(essence));
  }
  for (const later of seen.slice(1)) assert.deepEqual(later, seen[0]);
  engine.close();
  await device.close();
});

test('a completion is the same alone, in a batch of 256, as a later sample, and for any number of threads', async () => {
  const requests = mixedRequests(64, 4);
  let together: Completion[][] | null = null;
  for (const threads of [1, 2, 4]) {
    const device = createDevice({ threads });
    const policy = tinyPolicy(device);
    const all = await complete(policy, requests, 256);
    if (together)
      assert.deepEqual(
        all.map((r) => r.map(essence)),
        together.map((r) => r.map(essence)),
        `${threads} threads`,
      );
    together = all;
    if (threads === 2) {
      for (const i of [0, 5, 13, 31, 63]) {
        for (const sample of [0, 3]) {
          const [[alone]] = await complete(policy, [{ ...requests[i], n: 1, firstSample: sample }], 1);
          assert.deepEqual(essence(alone), essence(all[i][sample]), `request ${i}, sample ${sample}`);
        }
      }
      const narrow = await complete(policy, requests, 7);
      assert.deepEqual(
        narrow.map((r) => r.map(essence)),
        all.map((r) => r.map(essence)),
        'seven slots',
      );
    }
    await device.close();
  }
});

test('a short prompt joins the step of those that run, and gives what it gives by a pass of its own', async () => {
  const fresh = (i: number): GenerateRequest => ({
    promptIds: Array.from({ length: 2 + i }, (_, j) => (i * 5 + j * 3) % 23),
    maxTokens: 9,
    seed: 3,
    problem: i,
  });
  for (const threads of [1, 2, 3]) {
    const device = createDevice({ threads });
    const policy = tinyPolicy(device);
    const engine = createEngine(policy, { maxSequences: 40 });
    for (const r of mixedRequests(24, 1)) engine.submit({ ...r, maxTokens: 60 });
    const ended = new Map<number, Completion>();
    const step = () => {
      const result = engine.step();
      for (const c of result.finished) ended.set(c.request, c);
      return result;
    };
    step();
    const requests = new Map<number, number>();
    for (let i = 0; i < 6; i++) {
      const request = engine.submit(fresh(i));
      requests.set(request, i);
      const launches = device.launches;
      const { tokens } = step();
      assert.ok(tokens.some((t) => t.request === request));
      // One forward pass, where it is not a recording that runs again.
      const passed = device.launches - launches;
      device.stepwise = true;
      const before = device.launches;
      step();
      assert.ok(passed <= device.launches - before, `${passed} launches`);
      device.stepwise = false;
    }
    while (engine.busy) step();
    engine.close();
    for (const [request, i] of requests) {
      const [[alone]] = await complete(policy, [{ ...fresh(i), n: 2 }], 2);
      assert.deepEqual(essence(ended.get(request) as Completion), essence(alone), `${threads} threads, ${i}`);
    }
    await device.close();
  }
});

for (const [name, kind] of Object.entries(tinyKinds))
  test(`${name}: log-probabilities agree with a full forward pass, at temperature 1 and at the sampling temperature`, () =>
    checkLogprobs(kind));

async function checkLogprobs(kind: Partial<LlamaConfig>): Promise<void> {
  const device = createDevice({ threads: 2 });
  const policy = tinyPolicyOf(device, kind);
  const all = (await complete(policy, mixedRequests(32, 2), 16)).flat();
  let worst = 0;
  for (const c of all) {
    const { temperature = 1 } = mixedRequests(32, 2)[c.request];
    const mark = device.mark();
    const rows = c.ids.map((_, i) => c.promptIds.length - 1 + i);
    for (const [t, given] of [
      [1, c.logprobs],
      [temperature || 1, c.samplingLogprobs],
    ] as const) {
      const batch = packSequences(policy.llama, [[...c.promptIds, ...c.ids]]);
      const context = { device, tape: null };
      const { logprob } = packedLogprobs(context, policy.llama, batch, c.ids, { rows, temperature: t });
      device.floats(logprob).forEach((x, i) => {
        worst = Math.max(worst, Math.abs(x - given[i]));
      });
    }
    device.rewind(mark);
  }
  assert.ok(worst <= 1e-4, `differs by ${worst}`);
  await device.close();
}

test('a pretrained model writes its published text', { skip: noStories }, async () => {
  const device = createDevice({ threads: 2 });
  const policy = loadPolicy(stories as string, device, { trainable: false });
  const [[c]] = await complete(
    policy,
    [{ promptIds: [1], maxTokens: 250, temperature: 0, seed: 0, problem: 0 }],
    4,
  );
  assert.ok(
    c.text.startsWith(
      'Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, ' +
        'red ball. She wanted to play with it, but it was too high.\nLily\'s mom said, "Lily, let\'s go to the park." Lily was sad',
    ),
    c.text,
  );
  const stop = ['big, red'];
  const [[cut]] = await complete(
    policy,
    [{ promptIds: [1], maxTokens: 250, temperature: 0, stop, seed: 0, problem: 0 }],
    4,
  );
  assert.ok(cut.text.endsWith('she saw a '), cut.text);
  assert.equal(cut.finishReason, 'stop');
  await device.close();
});

test('limits: most tokens, the context, the end of sequence', async () => {
  const device = createDevice({ threads: 1 });
  const policy = tinyPolicy(device);
  const base = { promptIds: [1, 2, 3], temperature: 1, seed: 3, problem: 0 };
  const [long] = await complete(policy, [{ ...base, n: 30, maxTokens: 1000 }], 30);
  const context = policy.llama.config.maxPositionEmbeddings;
  const end = policy.tokenizer.eosTokenIds[0];
  for (const c of long) {
    const ended = c.ids.at(-1) === end;
    assert.equal(c.finishReason, ended ? 'stop' : 'length');
    assert.equal(c.ids.indexOf(end), ended ? c.ids.length - 1 : -1);
    if (!ended) assert.equal(c.promptIds.length + c.ids.length, context);
  }
  assert.ok(long.some((c) => c.finishReason === 'stop') && long.some((c) => c.finishReason === 'length'));
  const [[one]] = await complete(policy, [{ ...base, maxTokens: 1 }], 1);
  assert.equal(one.ids.length, 1);
  await device.close();
});

test('a cancelled request leaves, its blocks come back, the others are what they were', async () => {
  const device = createDevice({ threads: 1 });
  const policy = tinyPolicy(device);
  const [keep, drop] = mixedRequests(2, 6);
  const [expected] = await complete(policy, [keep], 8);
  const engine = createEngine(policy, { maxSequences: 8 });
  const kept = engine.submit(keep);
  const dropped = engine.submit(drop);
  const finished: Completion[] = [];
  for (let step = 0; engine.busy; step++) {
    if (step === 3) engine.cancel(dropped);
    finished.push(...engine.step().finished);
  }
  const mine = finished.filter((c) => c.request === kept).sort((a, b) => a.sample - b.sample);
  assert.deepEqual(mine.map(essence), expected.map(essence));
  // Everything runs again afterwards: no block was lost or freed twice.
  for (let round = 0; round < 5; round++)
    assert.equal((await generateAll(engine, mixedRequests(12, 4))).flat().length, 48);
  engine.close();
  await device.close();
});

test('requests that cannot be are refused, naming the field', async () => {
  const device = createDevice({ threads: 1 });
  const engine = createEngine(tinyPolicy(device));
  const good: GenerateRequest = { promptIds: [1], maxTokens: 5, seed: 0, problem: 0 };
  const cases: [Partial<GenerateRequest>, RegExp][] = [
    [{ promptIds: [] }, /prompt must hold at least one/],
    [{ promptIds: Array(96).fill(1) }, /the context ends at 96/],
    [{ promptIds: [999] }, /token id: got 999/],
    [{ temperature: -1 }, /temperature: got -1/],
    [{ temperature: Number.NaN }, /temperature: got NaN/],
    [{ topK: 1.5 }, /top-k: got 1.5/],
    [{ topP: 0 }, /top-p: got 0/],
    [{ minP: 2 }, /min-p: got 2/],
    [{ n: 0 }, /number of samples: got 0/],
    [{ maxTokens: 0 }, /max tokens: got 0/],
    [{ stop: [''] }, /stop string/],
  ];
  for (const [change, message] of cases) {
    assert.throws(
      () => engine.submit({ ...good, ...change }),
      (e) => e instanceof RetortError && message.test(e.message),
      `${message}`,
    );
  }
  engine.close();
  await device.close();
});

test('the JavaScript heap stays flat over 1,000 steps', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const device = createDevice({ threads: 1 });
  const policy = tinyPolicy(device);
  const engine = createEngine(policy, { maxSequences: 8 });
  let problem = 0;
  const steps = (count: number) => {
    for (let i = 0; i < count; i++) {
      if (!engine.busy)
        engine.submit({ promptIds: [1, 2], n: 8, maxTokens: 50, seed: 0, problem: problem++ });
      engine.step();
    }
    collect();
    return process.memoryUsage().heapUsed;
  };
  const before = steps(300);
  const after = steps(1000);
  assert.ok(after - before < 1 << 20, `the heap grew by ${after - before} bytes`);
  engine.close();
  await device.close();
});

test('a sequence that throws after others have ended in the same step: all can be cancelled, no block is lost', async () => {
  const device = createDevice({ threads: 1 });
  const engine = createEngine(tinyPolicy(device), { maxSequences: 3, prefixCache: true });
  const request = { promptIds: [1, 2, 3], temperature: 1, seed: 1, problem: 0, maxTokens: 1 };
  const broken = {
    adjust: () => true,
    permits: () => true,
    accept() {
      throw new Error('broken control');
    },
  };
  for (let round = 0; round < 3; round++) {
    const numbers = [
      engine.submit(request),
      engine.submit({ ...request, maxTokens: 8, control: () => broken }),
      engine.submit({ ...request, maxTokens: 8 }),
    ];
    assert.throws(() => engine.step(), /broken control/);
    for (const number of numbers) engine.cancel(number);
    assert.equal(engine.busy, false);
  }
  const [[whole]] = await generateAll(engine, [{ ...request, maxTokens: 4 }]);
  assert.ok(whole.ids.length > 0);
  engine.close();
  await device.close();
});
