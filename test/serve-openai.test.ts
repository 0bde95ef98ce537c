// The official openai package against the server: chat, streams, reasoning, log-probabilities, n, stop, tools, errors.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import OpenAI from 'openai';
import { readUsage } from '../src/serve/usage-log.js';
import { serveCountdown, serveScripts, type TestServer } from './support/server.js';

/** DeepSeek's field, which the package's types do not know. */
type WithReasoning<T> = T & { reasoning_content?: string };

type Logprobs = OpenAI.ChatCompletion.Choice['logprobs'];
type DeepSeekLogprobs = (Logprobs & { reasoning_content?: NonNullable<Logprobs>['content'] }) | null;

const question = (content: string) => [{ role: 'user' as const, content }];
const PROBLEM = question('3 7 12=43?');

describe('a reasoning model, sampled', () => {
  let server: TestServer;
  let client: OpenAI;
  before(async () => {
    server = await serveCountdown();
    client = new OpenAI({ baseURL: server.base, apiKey: 'none', maxRetries: 0 });
  });
  after(() => server.end());

  test('chat: reasoning apart from the answer, usage, the same for the same seed', async () => {
    const ask = { model: 'countdown', messages: PROBLEM, seed: 5 };
    const one = await client.chat.completions.create(ask);
    const two = await client.chat.completions.create(ask);
    const message: WithReasoning<(typeof one.choices)[0]['message']> = one.choices[0].message;
    assert.match(message.reasoning_content ?? '', /^[\d+\-*/=,<>:();]+$/);
    assert.match(message.content ?? '', /^<answer>.*<\/answer>$/);
    assert.deepEqual(two.choices, one.choices);
    const usage = one.usage as NonNullable<typeof one.usage>;
    assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
    assert.ok((usage.completion_tokens_details?.reasoning_tokens ?? 0) > 0);
    assert.ok((usage.completion_tokens_details?.reasoning_tokens ?? 0) < usage.completion_tokens);
    assert.match(one.id, /^chatcmpl-/);
    assert.equal(one.system_fingerprint, two.system_fingerprint);
  });

  test('streams say what the whole answer says', async () => {
    const ask = { model: 'countdown', messages: PROBLEM, n: 3, logprobs: true, top_logprobs: 2 };
    for (let seed = 0; seed < 5; seed++) {
      const whole = await client.chat.completions.create({ ...ask, seed });
      const stream = await client.chat.completions.create({
        ...ask,
        ...{ seed, stream: true as const, stream_options: { include_usage: true } },
      });
      const choices = [0, 1, 2].map(() => ({ reasoning: '', content: '', finish: '', tokens: '' }));
      let usage: unknown;
      for await (const chunk of stream) {
        assert.ok(chunk.usage !== undefined && (chunk.usage === null) === chunk.choices.length > 0);
        if (chunk.usage) usage = chunk.usage;
        for (const { index, delta, finish_reason, logprobs } of chunk.choices) {
          const choice = choices[index];
          choice.reasoning += (delta as WithReasoning<typeof delta>).reasoning_content ?? '';
          choice.content += delta.content ?? '';
          choice.finish += finish_reason ?? '';
          choice.tokens += (logprobs?.content ?? []).map((t) => t.token).join('');
        }
      }
      assert.deepEqual(usage, whole.usage);
      whole.choices.forEach(({ message, finish_reason, logprobs }, i) => {
        assert.equal(choices[i].reasoning, (message as WithReasoning<typeof message>).reasoning_content);
        assert.equal(choices[i].content, message.content);
        assert.equal(choices[i].finish, finish_reason);
        assert.equal(choices[i].tokens, logprobs?.content?.map((t) => t.token).join(''));
        assert.equal(choices[i].tokens, message.content);
      });
      assert.ok(new Set(choices.map((c) => c.reasoning + c.content)).size > 1, 'samples differ');
    }
  });

  test('log-probabilities: of the token and of the likeliest beside it', async () => {
    const { choices } = await client.chat.completions.create({
      ...{ model: 'countdown', messages: PROBLEM, seed: 1, temperature: 0, logprobs: true, top_logprobs: 4 },
    });
    const logprobs: DeepSeekLogprobs = choices[0].logprobs;
    const entries = [...(logprobs?.reasoning_content ?? []), ...(logprobs?.content ?? [])];
    assert.ok(entries.length > 10);
    for (const { token, logprob, bytes, top_logprobs: top } of entries) {
      assert.equal(Buffer.from(bytes ?? []).toString(), token);
      assert.equal(top.length, 4);
      // Greedy: the token is the likeliest one.
      assert.equal(top[0].token, token);
      assert.ok(Math.abs(top[0].logprob - logprob) < 1e-4);
      assert.ok(top.every((t, i) => i === 0 || t.logprob <= top[i - 1].logprob));
      const sum = top.reduce((total, t) => total + Math.exp(t.logprob), 0);
      assert.ok(sum <= 1 + 1e-5, `${sum}`);
    }
  });

  test('stop strings, limits, plain completions', async () => {
    const stopped = await client.chat.completions.create({
      ...{ model: 'countdown', messages: PROBLEM, seed: 5, stop: ['</answer>', '###'] },
    });
    assert.match(stopped.choices[0].message.content ?? '', /^<answer>[^<]*$/);
    assert.equal(stopped.choices[0].finish_reason, 'stop');
    const short = await client.chat.completions.create({
      ...{ model: 'countdown', messages: PROBLEM, seed: 5, max_completion_tokens: 3 },
    });
    assert.equal(short.choices[0].finish_reason, 'length');
    assert.equal(short.usage?.completion_tokens, 3);
    const ask = {
      model: 'countdown',
      prompt: ['3 7 12=43?<think>', '1 2 3=6?<think>'],
      n: 2,
      max_tokens: 60,
      seed: 5,
    };
    const plain = await client.completions.create({ ...ask, echo: true });
    assert.equal(plain.choices.length, 4);
    plain.choices.forEach(({ text, index }, i) => {
      assert.equal(index, i);
      assert.ok(text.startsWith(ask.prompt[Math.floor(i / 2)]));
    });
    const texts = ['', '', '', ''];
    for await (const chunk of await client.completions.create({ ...ask, stream: true }))
      for (const { index, text } of chunk.choices) texts[index] += text;
    assert.deepEqual(
      texts,
      plain.choices.map((c, i) => c.text.slice(ask.prompt[Math.floor(i / 2)].length)),
    );
    const scored = await client.completions.create({ ...ask, prompt: ask.prompt[0], n: 1, logprobs: 2 });
    const { tokens = [], text_offset: offsets = [] } = scored.choices[0].logprobs ?? {};
    assert.equal(tokens.join(''), scored.choices[0].text);
    tokens.forEach((token, i) => {
      assert.ok(scored.choices[0].text.slice(offsets[i]).startsWith(token));
    });
  });

  test('equal prompts of one request: answers of their own, unless a seed asks for the same', async () => {
    const ask = {
      model: 'countdown',
      prompt: Array(8).fill('3 7 12=43?<think>'),
      max_tokens: 40,
      temperature: 2,
    };
    const texts = async (more: object) =>
      new Set((await client.completions.create({ ...ask, ...more })).choices.map(({ text }) => text)).size;
    assert.ok((await texts({})) > 1);
    assert.equal(await texts({ seed: 5 }), 1);
  });

  test('models', async () => {
    const { data } = await client.models.list();
    assert.deepEqual(
      data.map((m) => m.id),
      ['countdown'],
    );
    assert.equal((await client.models.retrieve('countdown')).id, 'countdown');
  });

  test('errors are the typed ones of the package, and name the field', async () => {
    const ask = { model: 'countdown', messages: PROBLEM };
    await assert.rejects(
      client.chat.completions.create({ ...ask, model: 'gpt-5' }),
      (e) => e instanceof OpenAI.NotFoundError && e.code === 'model_not_found',
    );
    await assert.rejects(
      client.chat.completions.create({ ...ask, temperature: 3 }),
      (e) =>
        e instanceof OpenAI.BadRequestError &&
        e.param === 'temperature' &&
        /got 3; give at most 2/.test(e.message),
    );
    await assert.rejects(
      client.chat.completions.create({ ...ask, audio: { voice: 'x', format: 'wav' } }),
      (e) => e instanceof OpenAI.BadRequestError && e.param === 'audio',
    );
    const begun = { role: 'assistant' as const, content: '1 +' };
    for (const more of [{ prefix: true }, { function_call: { name: 'f', arguments: '{}' } }])
      await assert.rejects(
        client.chat.completions.create({ ...ask, messages: [...PROBLEM, { ...begun, ...more }] }),
        (e) => e instanceof OpenAI.BadRequestError && e.param === `messages.1.${Object.keys(more)[0]}`,
      );
    await assert.rejects(
      client.chat.completions.create({ ...ask, messages: question('é') }),
      (e) => e instanceof OpenAI.BadRequestError && /no token for a character/.test(e.message),
    );
    await assert.rejects(
      client.chat.completions.create({ ...ask, messages: question('1'.repeat(300)) }),
      (e) => e instanceof OpenAI.BadRequestError && e.code === 'context_length_exceeded',
    );
  });
});

describe('a model that says what the test wrote', () => {
  let server: TestServer;
  let client: OpenAI;
  before(async () => {
    server = await serveScripts(
      {
        'think?': { pieces: ['<think>\n', 'let me', ' see', '\n</think>', '\n\nIt is', ' 4.'] },
        'call?': {
          pieces: [
            ...[
              '<think>I should call.</think>',
              'Calling.\n',
              '<tool_call>\n{"name": "add", ',
              '"arguments": {"a": 1, "b": 2}}\n',
            ],
            ...['</tool_call>', '\n<tool_call>{"name":"sub","arguments":{"a":"x"}}</tool_call>'],
          ],
        },
        'emoji?': { pieces: ['🙂', ' né', '!!'] },
        'ever?': { pieces: ['round ', 'and '], loop: true },
      },
      { context: 4096 },
    );
    client = new OpenAI({ baseURL: server.base, apiKey: 'none', maxRetries: 0 });
  });
  after(() => server.end());

  const add = {
    type: 'function' as const,
    function: { name: 'add', parameters: { type: 'object', properties: { a: { type: 'number' } } } },
  };
  const sub = { type: 'function' as const, function: { name: 'sub' } };

  test('reasoning that the model opens itself', async () => {
    const { choices } = await client.chat.completions.create({
      model: 'scripted',
      messages: question('think?'),
    });
    const message: WithReasoning<(typeof choices)[0]['message']> = choices[0].message;
    assert.deepEqual([message.reasoning_content, message.content], ['let me see', 'It is 4.']);
  });

  test('tool calls, whole and streamed', async () => {
    const ask = { model: 'scripted', messages: question('call?'), tools: [add, sub] };
    const { choices } = await client.chat.completions.create(ask);
    assert.equal(choices[0].finish_reason, 'tool_calls');
    assert.equal(choices[0].message.content, 'Calling.');
    const calls = (choices[0].message.tool_calls ?? []).flatMap((c) =>
      c.type === 'function' ? [c.function] : [],
    );
    assert.deepEqual(calls, [
      { name: 'add', arguments: '{"a":1,"b":2}' },
      { name: 'sub', arguments: '{"a":"x"}' },
    ]);
    const final = await client.chat.completions.stream(ask).finalChatCompletion();
    const streamed = (final.choices[0].message.tool_calls ?? []).map((c) => c.function);
    assert.deepEqual(
      streamed.map(({ name, arguments: text }) => ({ name, arguments: text })),
      calls,
    );
    const one = await client.chat.completions.create({ ...ask, parallel_tool_calls: false });
    assert.equal(one.choices[0].finish_reason, 'tool_calls');
    assert.equal(one.choices[0].message.tool_calls?.length, 1);
    const ids = final.choices[0].message.tool_calls?.map((c) => c.id) ?? [];
    assert.equal(new Set(ids).size, 2);
  });

  test('without tools the same text is content', async () => {
    const ask = { model: 'scripted', messages: question('call?') };
    for (const more of [{}, { tools: [add], tool_choice: 'none' as const }]) {
      const { choices } = await client.chat.completions.create({ ...ask, ...more });
      assert.match(choices[0].message.content ?? '', /<tool_call>/);
      assert.equal(choices[0].finish_reason, 'stop');
    }
  });

  test('a client that leaves: the slot is free, the answer is not gone on with', async () => {
    const controller = new AbortController();
    const stream = await client.chat.completions.create(
      { model: 'scripted', messages: question('ever?'), stream: true },
      { signal: controller.signal },
    );
    let pieces = 0;
    await assert.rejects(async () => {
      for await (const chunk of stream) {
        pieces += chunk.choices.length;
        if (pieces > 3) controller.abort();
      }
      if (controller.signal.aborted) throw new OpenAI.APIUserAbortError();
    }, OpenAI.APIUserAbortError);
    const left = () => [...readUsage(server.folder)].find((e) => e.outcome === 'left');
    for (let tries = 0; !left(); tries++) {
      assert.ok(tries < 100, 'the log does not know of it');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.ok((left()?.completionTokens ?? 0) < 3000, 'it ran to its end');
    const running = async () =>
      Number(
        /^retort_samples_running (\d+)$/m.exec(await (await fetch(`${server.url}/metrics`)).text())?.[1],
      );
    for (let tries = 0; (await running()) > 0; tries++) {
      assert.ok(tries < 100, 'the sample still runs');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  });

  test('characters of several bytes arrive whole, their bytes are told', async () => {
    const { choices } = await client.chat.completions.create({
      ...{ model: 'scripted', messages: question('emoji?'), logprobs: true },
    });
    assert.equal(choices[0].message.content, '🙂 né!!');
    const bytes = choices[0].logprobs?.content?.flatMap((t) => t.bytes ?? []) ?? [];
    assert.equal(Buffer.from(bytes).toString(), '🙂 né!!');
  });
});
