// A job whose engine or listener fails: it ends once, with an error, and lets go of what it began.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COUNTDOWN_BASE } from '../../test/support/cli.js';
import { loadTokenizer } from '../text/tokenizer.js';
import type { EngineClient, WorkListener } from './engine-client.js';
import type { ApiError } from './errors.js';
import { type Ask, type JobListener, startJob } from './job.js';
import type { ServedModel } from './model.js';

const tokenizer = loadTokenizer(COUNTDOWN_BASE);
const prompt = { ids: [1, 2], thinking: false, calls: null, grammar: null };
const ask = (prompts: number): Ask => ({
  ...{ model: { tokenizer } as ServedModel, prompts: Array(prompts).fill(prompt), lane: 'a', n: 1 },
  ...{
    maxTokens: 4,
    stop: [],
    seed: 0,
    topLogprobs: null,
    sampling: {},
    tools: new Set<string>(),
    openEnded: false,
    plain: true,
  },
  control: {
    ...{ bias: [], frequencyPenalty: 0, presencePenalty: 0, repetitionPenalty: 1 },
    ...{ thinkingBudget: null, close: [] },
  },
});

/** An engine that hands out its listeners, and throws at the `broken`-th request. */
function fakeEngine(broken?: number) {
  const listeners: WorkListener[] = [];
  let cancelled = 0;
  const submit: EngineClient['submit'] = (_, listener) => {
    if (listeners.length === broken) throw new Error('cannot be sent');
    listeners.push(listener);
    return () => cancelled++;
  };
  return { engine: { submit } as EngineClient, listeners, cancelled: () => cancelled };
}

function hear(more: Partial<JobListener> = {}) {
  const errors: ApiError[] = [];
  const listener: JobListener = {
    ...{ onDelta() {}, onFinish() {}, onDone() {}, onError: (error) => errors.push(error) },
    ...more,
  };
  return { listener, errors };
}

const token = { id: 0, sample: 0, logprobs: [], top: [], cached: 0 };
const end = { id: 0, sample: 0, finishReason: 'length', cutText: null, tokens: 1 } as const;

test('a request that cannot be sent is an error, and those before it are cancelled', () => {
  const { engine, cancelled } = fakeEngine(2);
  const { listener, errors } = hear();
  startJob(engine, ask(3), listener);
  assert.deepEqual(
    errors.map(({ status }) => status),
    [500],
  );
  assert.match(String(errors[0].cause), /cannot be sent/);
  assert.equal(cancelled(), 2);
});

test('tokens that cannot be read, and a listener that throws at its end', () => {
  for (const ids of [[-1], [3]]) {
    const { engine, listeners, cancelled } = fakeEngine();
    const { listener, errors } = hear({
      onDone() {
        throw new Error('full disk');
      },
    });
    startJob(engine, ask(1), listener);
    listeners[0].onTokens({ ...token, ids });
    listeners[0].onEnd(end);
    listeners[0].onFailed(new Error('too late'));
    assert.equal(errors.length, 1);
    assert.equal(cancelled(), 1);
  }
});

test('a request that is left: cached tokens are those of the prompts that have begun', () => {
  const { engine, listeners } = fakeEngine();
  const job = startJob(engine, ask(2), hear().listener);
  assert.equal(job.cancel().cachedTokens, 0);
  const begun = startJob(engine, ask(2), hear().listener);
  listeners[2].onTokens({ ...token, ids: [3], cached: 1 });
  const { promptTokens, cachedTokens, completionTokens } = begun.cancel();
  assert.deepEqual(
    { promptTokens, cachedTokens, completionTokens },
    { promptTokens: 4, cachedTokens: 1, completionTokens: 1 },
  );
});
