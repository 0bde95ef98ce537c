// Answers put together from tokens: the same counts however many of them come at once.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from '../../test/support/cli.js';
import { writeScriptedModel } from '../../test/support/scripted.js';
import { tokenBytes } from '../text/token-bytes.js';
import { loadTokenizer } from '../text/tokenizer.js';
import { createAnswer } from './answer.js';

test('tokens of the reasoning, cut within the closing tag, a character and what may be a stop string', (t) => {
  const dir = join(temporaryFolder(t), 'model');
  writeScriptedModel(dir, {});
  const tokenizer = loadTokenizer(dir);
  const options = { tokenizer, tokens: tokenBytes(tokenizer), thinking: true, calls: null };
  // A token is a byte here.
  const ids = tokenizer.encode('aé</think>é4</answer>');
  const expected = new TextEncoder().encode('aé</think>').length;
  const stop = ['</answer>'];
  const count = (parts: readonly (readonly number[])[], logprobs: boolean) => {
    const answer = createAnswer({ ...options, tools: new Set(), stop, logprobs });
    for (const part of parts) {
      const zeros = part.map(() => 0);
      answer.push({ id: 0, sample: 0, ids: [...part], logprobs: zeros, top: zeros.map(() => []), cached: 0 });
    }
    const { content } = answer.finish({
      ...{ id: 0, sample: 0, finishReason: 'stop', cutText: 'aé</think>é4', tokens: ids.length },
    });
    assert.ok('é4'.endsWith(content));
    return answer.reasoningTokens;
  };
  assert.equal(count([ids], false), expected);
  for (let first = 0; first <= ids.length; first++)
    for (let second = first; second <= ids.length; second++) {
      const parts = [ids.slice(0, first), ids.slice(first, second), ids.slice(second)];
      assert.equal(count(parts, false), expected, `cut at ${first} and ${second}`);
      assert.equal(count(parts, true), expected);
    }
});
