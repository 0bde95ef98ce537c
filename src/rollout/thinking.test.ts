// Limits on thinking: where a thought is cut, where it may not stop, what is given and counted, what is refused.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { tinyPolicy } from '../../test/support/tiny.js';
import { createDevice } from '../compute/device/device.js';
import { freeLlama } from '../model/llama.js';
import { buildCharTokenizer } from '../text/char-tokenizer.js';
import { createEngine } from './engine.js';
import { generateAll } from './generate.js';
import {
  limitThinking,
  type ThinkingControl,
  type ThinkingLimits,
  type ThinkingOptions,
  thinkingLimits,
  trackThought,
} from './thinking.js';

const device = createDevice({ threads: 2 });
const policy = tinyPolicy(device);
const { tokenizer } = policy;
after(async () => {
  freeLlama(policy.llama);
  await device.close();
});
const OPTIONS: ThinkingOptions = { budget: null, close: '</think><answer>', least: 0, wait: '' };
const limits = (o: Partial<ThinkingOptions>, opened = true): ThinkingLimits =>
  thinkingLimits({ ...OPTIONS, ...o }, tokenizer, opened, tokenizer.eosTokenIds);
const one = (text: string) => tokenizer.encode(text)[0];

/** Samples of one prompt under limits, hot enough that everything happens. */
async function write(l: ThinkingLimits, prompt: string, n = 64) {
  const controls: ThinkingControl[] = [];
  const engine = createEngine(policy);
  try {
    const request = {
      ...{ promptIds: tokenizer.encode(prompt), n, maxTokens: 60, seed: 5, problem: 0 },
      control: () => {
        controls.push(limitThinking(l, tokenizer));
        return controls[controls.length - 1];
      },
    };
    const [completions] = await generateAll(engine, [request]);
    return completions.map((completion, i) => ({ completion, control: controls[i] }));
  } finally {
    engine.close();
  }
}

test('a text that opens, keeps and closes a thought, in pieces of any size', () => {
  const after = (opened: boolean, text: string) => {
    const results = [1, 3, text.length].map((size) => {
      const tracker = trackThought(opened);
      for (let at = 0; at < text.length; at += size) tracker.push(text.slice(at, at + size));
      return tracker.thinking;
    });
    assert.equal(new Set(results).size, 1, text);
    return results[0];
  };
  assert.equal(after(true, 'working </thin'), true);
  assert.equal(after(true, 'working </think> 4'), false);
  assert.equal(after(true, '</think><think>again'), false);
  assert.equal(after(false, ' <think>working'), true);
  assert.equal(after(false, 'no <think>working'), false);
  assert.equal(after(false, '<think></think>'), false);
});

test('a budget cuts at exactly its tokens, and the answer goes on from what was forced', async () => {
  const free = await write(limits({}), '1+1=<think>');
  for (const budget of [0, 1, 7]) {
    const cut = await write(limits({ budget }), '1+1=<think>');
    const close = tokenizer.encode(OPTIONS.close);
    let closed = 0;
    for (const [i, { completion, control }] of cut.entries()) {
      const own = free[i].completion.ids;
      const stopped = own.findIndex((id) => id === one('</think>') || tokenizer.eosTokenIds.includes(id));
      const early = stopped >= 0 && stopped < budget;
      assert.equal(control.cut, !early);
      if (early) {
        assert.deepEqual(completion.ids, own);
        continue;
      }
      closed++;
      assert.deepEqual(completion.ids.slice(0, budget), own.slice(0, budget));
      assert.deepEqual(completion.ids.slice(budget, budget + close.length), close);
      // What is forced is no choice of the sampler, and what the model thinks of it is still told.
      assert.deepEqual(completion.samplingLogprobs.slice(budget, budget + close.length), [0, 0]);
      assert.ok(completion.logprobs[budget] < 0);
      assert.equal(control.tokens, budget + 1);
    }
    assert.ok(closed > 0);
  }
});

test('a thought that would stop too early waits, or only goes on', async () => {
  const stops = [one('</think>'), ...tokenizer.eosTokenIds];
  const free = await write(limits({}), '1+1=<think>');
  const early = free.filter(({ completion: { ids } }) => ids.slice(0, 20).some((id) => stops.includes(id)));
  assert.ok(early.length > 0, 'the test needs samples that stop');
  const waited = await write(limits({ least: 20, wait: '>;' }), '1+1=<think>');
  let waits = 0;
  waited.forEach(({ completion: { ids }, control }, i) => {
    assert.ok(!ids.slice(0, 20).some((id) => stops.includes(id)));
    const first = free[i].completion.ids.findIndex((id) => stops.includes(id));
    waits += control.waits;
    if (first < 0 || first >= 20) return;
    // Up to there it is the same sample; then the text stands in place of the stop.
    assert.deepEqual(ids.slice(0, first), free[i].completion.ids.slice(0, first));
    assert.deepEqual(ids.slice(first, first + 2), tokenizer.encode('>;'));
  });
  assert.ok(waits >= early.length);
  const forbidden = await write(limits({ least: 20 }), '1+1=<think>');
  for (const { completion, control } of forbidden) {
    assert.ok(!completion.ids.slice(0, 20).some((id) => stops.includes(id)));
    assert.equal(control.waits, 0);
  }
});

test('both limits together, and a thought that the model has to open itself', async () => {
  for (const { control } of await write(limits({ least: 9, budget: 9, wait: '>' }), '1+1=<think>')) {
    assert.equal(control.cut, true);
    assert.equal(control.tokens, 10);
  }
  for (const { completion, control } of await write(limits({ least: 9, budget: 9 }, false), '1+1=')) {
    const opened = completion.ids[0] === one('<think>');
    assert.equal(control.cut, opened);
    if (!opened) assert.equal(control.tokens, 0);
  }
});

test('what the vocabulary cannot spell and limits that contradict each other are refused', () => {
  assert.throws(
    () => limits({ least: 5, wait: 'Wait' }),
    /text in place of a stop, "Wait": .*character: got "W"/,
  );
  assert.throws(() => limits({ budget: 5, close: 'Final' }), /text that closes a thought, "Final": .*"F"/);
  assert.throws(
    () => limits({ budget: 5, close: '1' }),
    /text that closes a thought: got "1"; it must hold <\/think>/,
  );
  assert.throws(() => limits({ budget: 5, least: 6 }), /least tokens of a thought: got 6; the budget is 5/);
  assert.throws(() => limits({ least: 6, wait: '</think>' }), /it stops the thought itself/);
  const spelled = buildCharTokenizer({ characters: '</think>', specialTokens: [] });
  assert.throws(
    () => thinkingLimits({ ...OPTIONS, least: 5 }, spelled, true, []),
    /tokens of <\/think>: got 8/,
  );
  assert.equal(
    thinkingLimits({ ...OPTIONS, budget: 5, close: '</think>' }, spelled, true, []).close.length,
    8,
  );
});
