// The ai package with its DeepSeek and its OpenAI-compatible provider against the server, unmodified.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { createDeepSeek } from '@ai-sdk/deepseek';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, jsonSchema, type LanguageModel, streamText, tool } from 'ai';
import { readUsage } from '../src/serve/usage-log.js';
import { serveCountdown, serveScripts, type TestServer } from './support/server.js';

const providers: Readonly<Record<string, (baseURL: string) => (model: string) => LanguageModel>> = {
  '@ai-sdk/deepseek': (baseURL) => createDeepSeek({ baseURL, apiKey: 'none' }),
  '@ai-sdk/openai-compatible': (baseURL) =>
    createOpenAICompatible({ name: 'retort', baseURL, includeUsage: true }),
};

for (const [name, connect] of Object.entries(providers))
  describe(name, () => {
    let countdown: TestServer;
    let scripted: TestServer;
    let sampled: LanguageModel;
    let written: LanguageModel;
    before(async () => {
      countdown = await serveCountdown();
      scripted = await serveScripts(
        {
          'think?': { pieces: ['<think>\n', 'let me', ' see', '\n</think>', '\n\nIt is', ' 4.'] },
          'call?': {
            pieces: [
              '<think>hm</think>',
              '<tool_call>\n{"name": "add", ',
              '"arguments": {"a": 1, "b": 2}}\n',
              '</tool_call>',
            ],
          },
          'ever?': { pieces: ['round ', 'and '], loop: true },
        },
        { context: 4096 },
      );
      sampled = connect(countdown.base)('countdown');
      written = connect(scripted.base)('scripted');
    });
    after(async () => {
      await countdown.end();
      await scripted.end();
    });

    test('text and reasoning, usage', async () => {
      const ask = { model: sampled, prompt: '3 7 12=43?', temperature: 0, maxRetries: 0 };
      const one = await generateText(ask);
      assert.match(one.text, /^<answer>.*<\/answer>$/);
      assert.match(one.reasoningText ?? '', /^\d/);
      assert.equal(one.finishReason, 'stop');
      assert.ok((one.usage.inputTokens ?? 0) > 0 && (one.usage.outputTokens ?? 0) > 0);
      const stream = streamText(ask);
      assert.equal(await stream.text, one.text);
      assert.equal(await stream.reasoningText, one.reasoningText);
      assert.equal((await stream.usage).outputTokens, one.usage.outputTokens);
    });

    test('a stream tells reasoning and text apart, in order', async () => {
      const kinds: string[] = [];
      let text = '';
      for await (const part of streamText({ model: written, prompt: 'think?', maxRetries: 0 }).fullStream) {
        if (part.type === 'error') throw part.error;
        if (kinds.at(-1) !== part.type) kinds.push(part.type);
        if (part.type === 'text-delta' || part.type === 'reasoning-delta') text += part.text;
      }
      assert.equal(text, 'let me seeIt is 4.');
      assert.ok(kinds.indexOf('reasoning-delta') < kinds.indexOf('text-delta'), kinds.join());
    });

    test('tools', async () => {
      const add = tool({
        description: 'adds',
        inputSchema: jsonSchema<{ a: number; b: number }>({
          ...{ type: 'object', properties: { a: { type: 'number' }, b: { type: 'number' } } },
          required: ['a', 'b'],
        }),
      });
      const { toolCalls, finishReason } = await generateText({
        ...{ model: written, prompt: 'call?', tools: { add }, maxRetries: 0 },
      });
      assert.equal(finishReason, 'tool-calls');
      assert.deepEqual(
        toolCalls.map(({ toolName, input }) => ({ toolName, input })),
        [{ toolName: 'add', input: { a: 1, b: 2 } }],
      );
      const stream = streamText({ model: written, prompt: 'call?', tools: { add }, maxRetries: 0 });
      assert.deepEqual(
        (await stream.toolCalls).map(({ input }) => input),
        [{ a: 1, b: 2 }],
      );
    });

    test('stop strings, limits and errors', async () => {
      const ask = { model: written, prompt: 'think?', maxRetries: 0 };
      assert.equal((await generateText({ ...ask, stopSequences: [' is'] })).text, 'It');
      assert.equal((await generateText({ ...ask, maxOutputTokens: 2 })).finishReason, 'length');
      await assert.rejects(generateText({ ...ask, temperature: 7 }), /temperature: got 7/);
    });

    test('abort frees the slot', async () => {
      const controller = new AbortController();
      const stream = streamText({
        ...{ model: written, prompt: 'ever?', maxRetries: 0, abortSignal: controller.signal },
      });
      let parts = 0;
      for await (const part of stream.fullStream)
        if (part.type === 'text-delta' && ++parts === 2) controller.abort();
      const left = () => [...readUsage(scripted.folder)].find((e) => e.outcome === 'left');
      for (let tries = 0; !left(); tries++) {
        assert.ok(tries < 100, 'the log does not know of it');
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      assert.ok((left()?.completionTokens ?? 0) < 3000);
    });
  });
