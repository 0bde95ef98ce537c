// Shared rewards: think format, tag count, soft overlong punishment.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetortError } from '../errors.js';
import { softOverlong, tagCount, thinkFormat } from './shared.js';

test('think format: with or without the opening tag, nothing before, between or behind', () => {
  const { score } = thinkFormat();
  for (const good of [
    '<think>a</think><answer>b</answer>',
    'a</think>\n<answer>b</answer>\n',
    '<think></think><answer></answer>',
    ' <think>a\n<b></think> <answer>c</answer><eos>',
    '<think>a</think><answer>b</answer><|im_end|>',
    `<think>${'x'.repeat(1_000_000)}</think><answer>b</answer>`,
  ]) {
    assert.equal(score(null, good, {}), 1, good.slice(0, 60));
  }
  for (const bad of [
    '',
    'b',
    '<answer>b</answer>',
    '<think>a<answer>b</answer>',
    '<think>a</think><answer>b',
    '<think>a</think>b',
    'x<think>a</think><answer>b</answer>',
    '<think>a</think>x<answer>b</answer>',
    '<think>a</think><answer>b</answer>x',
    '<think>a</think><answer>b</answer><answer>c</answer>',
    '<think><think>a</think><answer>b</answer>',
    '<answer>b</answer><think>a</think>',
    '<think>a</think></answer>b<answer>',
  ]) {
    assert.equal(score(null, bad, {}), 0, bad);
  }
});

test('tag count: a quarter for each tag that is there exactly once', () => {
  const { score } = tagCount();
  assert.equal(score(null, '<think>a</think><answer>b</answer>', {}), 1);
  assert.equal(score(null, '<answer>b</answer>', {}), 0.5);
  assert.equal(score(null, '<answer>b</answer></answer>', {}), 0.25);
  assert.equal(score(null, '', {}), 0);
});

test('soft overlong punishment: 0, then falling, then -1', () => {
  const { score } = softOverlong({ maxTokens: 100, buffer: 20 });
  const at = (tokenCount: number) => score(null, '', { tokenCount });
  assert.deepEqual(
    [at(10), at(80), at(85), at(90), at(100), at(120)].map(Number),
    [-0, -0, -0.25, -0.5, -1, -1].map(Number),
  );
  assert.throws(() => softOverlong({ maxTokens: 100, buffer: 0 }), RetortError);
  assert.throws(() => softOverlong({ maxTokens: 100, buffer: 101 }), RetortError);
  assert.throws(() => score(null, '', {}), RetortError);
});
