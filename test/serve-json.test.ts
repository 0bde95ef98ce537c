// Structured answers: whatever a model of random weights says at a high temperature, it is JSON of the schema.
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createDeepSeek } from '@ai-sdk/deepseek';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, jsonSchema, Output } from 'ai';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import OpenAI from 'openai';
import { writeRandomModel } from './support/random-model.js';
import { randomSchema, seeded } from './support/schemas.js';
import { serve, type TestServer } from './support/server.js';

const ajv = new Ajv2020({ strict: false, ownProperties: true });
addFormats.default(ajv);
const SCHEMAS = Number(process.env.RETORT_SCHEMAS ?? 120);

const dir = mkdtempSync(join(tmpdir(), 'retort-json-'));
let server: TestServer;
let client: OpenAI;
before(async () => {
  await writeRandomModel(join(dir, 'model'), { seed: 3, context: 1024 });
  server = await serve({ models: [{ name: 'noise', dir: join(dir, 'model') }] });
  client = new OpenAI({ baseURL: server.base, apiKey: 'none', maxRetries: 0 });
});
after(async () => {
  await server.end();
  rmSync(dir, { recursive: true, force: true });
});

const messages = [{ role: 'user' as const, content: 'go' }];
const ask = { model: 'noise', messages, temperature: 1.5 };
const formatOf = (schema: unknown) => ({
  type: 'json_schema' as const,
  json_schema: { name: 'answer', schema: schema as Record<string, unknown> },
});

function parse(text: string | null, of: string): unknown {
  try {
    return JSON.parse(text ?? '') as unknown;
  } catch (error) {
    assert.fail(`${(error as Error).message}: ${of}`);
  }
}

test('deep schemas in bodies that the thread of prompts takes: answered, or refused', async () => {
  const description = 'x'.repeat(5000);
  const create = (schema: object) =>
    client.chat.completions.create({
      ...ask,
      max_tokens: 3,
      response_format: formatOf({ ...schema, description }),
    });
  for (const schema of [{ type: 'string', maxLength: 512 }, { prefixItems: Array(512).fill({}) }])
    assert.ok((await create(schema)).choices[0].message.content);
  // Also where nothing of the schema's own is deep.
  for (const levels of [600, 3000, 100_000]) {
    const deep = `${'['.repeat(levels)}${']'.repeat(levels)}`;
    const body = JSON.stringify({ ...ask, response_format: formatOf({ enum: ['DEEP'] }) });
    const response = await fetch(`${server.base}/chat/completions`, {
      ...{ method: 'POST', headers: { 'content-type': 'application/json' } },
      body: body.replace('"DEEP"', deep),
    });
    assert.equal(response.status, 400, `${levels} levels`);
    assert.match(await response.text(), /more than 512 levels deep/);
  }
  const pattern = `^${'(a|b'.repeat(800)}${')'.repeat(800)}$`;
  for (const schema of [{ prefixItems: Array(1000).fill({}) }, { type: 'string', pattern }])
    await assert.rejects(create(schema), (e) => e instanceof OpenAI.BadRequestError);
});

test(`${SCHEMAS} random schemas at temperature 1.5: every finished answer is one that ajv takes`, async (t) => {
  const random = seeded(2026);
  const schemas = Array.from({ length: SCHEMAS }, () => randomSchema(random));
  let finished = 0;
  let next = 0;
  const worker = async () => {
    for (let i = next++; i < schemas.length; i = next++) {
      const schema = schemas[i];
      const answer = await client.chat.completions.create({
        ...ask,
        seed: i,
        n: 2,
        response_format: formatOf(schema),
      });
      for (const { finish_reason, message } of answer.choices) {
        if (finish_reason !== 'stop') continue;
        finished++;
        const of = `${message.content}, schema ${i} ${JSON.stringify(schema)}`;
        const value = parse(message.content, of);
        assert.ok(ajv.validate(schema as object, value), `${ajv.errorsText()}: ${of}`);
      }
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  t.diagnostic(`${finished} of ${2 * SCHEMAS} answers finished, ajv took each`);
  assert.ok(finished > 1.5 * SCHEMAS, `only ${finished} answers finished`);
});

test('any JSON object', async () => {
  const { choices } = await client.chat.completions.create({
    ...{ ...ask, n: 8, seed: 1, max_tokens: 900, response_format: { type: 'json_object' } },
  });
  let finished = 0;
  for (const { finish_reason, message } of choices) {
    assert.ok(message.content?.startsWith('{'));
    if (finish_reason !== 'stop') continue;
    finished++;
    assert.equal(typeof JSON.parse(message.content ?? ''), 'object');
  }
  assert.ok(finished > 0, 'none finished');
});

const person = {
  type: 'object',
  properties: { name: { type: 'string', maxLength: 8 }, age: { type: 'integer', minimum: 0, maximum: 150 } },
  required: ['name', 'age'],
  additionalProperties: false,
};

test('after the reasoning, which is free and ends when its budget does', async () => {
  for (const budget of [0, 5, 20]) {
    const { choices, usage } = await client.chat.completions.create({
      ...{
        ...ask,
        seed: 9,
        response_format: formatOf(person),
        chat_template_kwargs: { enable_thinking: true },
      },
      thinking_budget: budget,
    } as OpenAI.ChatCompletionCreateParamsNonStreaming);
    assert.equal(choices[0].finish_reason, 'stop');
    assert.ok(
      ajv.validate(person, JSON.parse(choices[0].message.content ?? '')),
      choices[0].message.content ?? '',
    );
    const { reasoning_tokens: reasoned = 0 } = usage?.completion_tokens_details ?? {};
    // The closing tag counts, and the line break before it.
    assert.ok(reasoned >= budget && reasoned <= budget + 2, `${reasoned} tokens of reasoning for ${budget}`);
  }
});

test("log-probabilities are the model's own, also of tokens that a grammar forced", async () => {
  const { choices } = await client.chat.completions.create({
    ...{ ...ask, seed: 2, response_format: formatOf({ const: 'the' }), logprobs: true, top_logprobs: 1 },
  });
  assert.equal(choices[0].message.content, '"the"');
  for (const { logprob } of choices[0].logprobs?.content ?? []) assert.ok(logprob < -2, `${logprob}`);
});

test('biases and penalties', async () => {
  const forced = await client.chat.completions.create({
    ...ask,
    temperature: 0,
    max_tokens: 6,
    logit_bias: { 65: 100 },
  });
  assert.equal(forced.choices[0].message.content, 'AAAAAA');
  const both = await client.chat.completions.create({
    ...{ ...ask, temperature: 0, max_tokens: 4, logit_bias: { 65: 50, 66: 49 }, presence_penalty: 2 },
  });
  assert.equal(both.choices[0].message.content, 'ABAA');
  const often = await client.chat.completions.create({
    ...{ ...ask, temperature: 0, max_tokens: 6, logit_bias: { 65: 50, 66: 49 }, frequency_penalty: 2 },
  });
  assert.equal(often.choices[0].message.content, 'ABABAB');
});

test('a repetition penalty: of the request, and of the folder where it has one', async (t) => {
  const careful = join(dir, 'careful');
  cpSync(join(dir, 'model'), careful, { recursive: true });
  writeFileSync(join(careful, 'generation_config.json'), JSON.stringify({ repetition_penalty: 1.5 }));
  const other = await serve({ models: [{ name: 'noise', dir: careful }] });
  t.after(() => other.end());
  const text = async (baseURL: string, more: object = {}) => {
    const body = { ...ask, temperature: 0, max_tokens: 40, ...more };
    const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });
    return (await client.chat.completions.create(body)).choices[0].message.content;
  };
  const free = await text(server.base);
  const penalised = await text(server.base, { repetition_penalty: 1.5 });
  assert.notEqual(penalised, free);
  assert.equal(await text(other.base), penalised);
  assert.equal(await text(other.base, { repetition_penalty: 1 }), free);
});

test('the ai package: objects by both providers, streamed too', async () => {
  const schema = jsonSchema<{ name: string; age: number }>(person as never);
  const models = [
    createOpenAICompatible({ name: 'retort', baseURL: server.base, supportsStructuredOutputs: true })(
      'noise',
    ),
    createDeepSeek({ baseURL: server.base, apiKey: 'none' })('noise'),
  ];
  const { output } = await generateText({
    ...{
      model: models[0],
      prompt: 'go',
      temperature: 1.5,
      seed: 4,
      output: Output.object({ schema }),
      maxRetries: 0,
    },
  });
  assert.ok(ajv.validate(person, output), JSON.stringify(output));
  // DeepSeek's API knows no schemas: its provider asks for any object.
  const { text } = await generateText({
    ...{
      model: models[1],
      prompt: 'go',
      temperature: 0,
      output: Output.json(),
      maxRetries: 0,
      maxOutputTokens: 40,
    },
  }).catch((error: { text?: string }) => ({ text: error.text ?? '' }));
  assert.match(text, /^\{/);
});

test('a tool call that is asked for is one of the tools, its arguments held to their schema', async () => {
  const tools = [
    { type: 'function' as const, function: { name: 'greet', parameters: person } },
    { type: 'function' as const, function: { name: 'stop' } },
  ];
  const names = new Set<string>();
  for (let seed = 0; seed < 6; seed++) {
    const { choices } = await client.chat.completions.create({
      ...ask,
      seed,
      n: 4,
      tools,
      tool_choice: 'required',
    });
    for (const { finish_reason, message } of choices) {
      if (finish_reason === 'length') continue;
      assert.equal(finish_reason, 'tool_calls');
      const [call] = message.tool_calls ?? [];
      assert.ok(call?.type === 'function' && message.content === null);
      names.add(call.function.name);
      const value = JSON.parse(call.function.arguments) as unknown;
      if (call.function.name === 'greet') assert.ok(ajv.validate(person, value), call.function.arguments);
    }
  }
  assert.deepEqual([...names].sort(), ['greet', 'stop']);
  const { choices } = await client.chat.completions.create({
    ...{ ...ask, seed: 1, tools, tool_choice: { type: 'function', function: { name: 'greet' } } },
  });
  const [call] = choices[0].message.tool_calls ?? [];
  assert.ok(call?.type === 'function' && call.function.name === 'greet');
});

test('tools beside a response_format: the answer is a call or the JSON', async () => {
  const tools = [{ type: 'function' as const, function: { name: 'greet', parameters: person } }];
  const format = formatOf({ type: 'array', items: { type: 'boolean' }, maxItems: 4 });
  const seen = new Set<string>();
  for (let seed = 0; seed < 12; seed++) {
    const asked = { ...ask, seed, n: 4, tools, response_format: format };
    const { choices } = await client.chat.completions.create(asked);
    for (const { finish_reason, message } of choices) {
      if (finish_reason === 'length') continue;
      seen.add(finish_reason);
      const [call] = message.tool_calls ?? [];
      if (!call) assert.ok(Array.isArray(JSON.parse(message.content ?? '')), message.content ?? '');
      else if (call.type === 'function')
        assert.ok(ajv.validate(person, JSON.parse(call.function.arguments)), call.function.arguments);
    }
    const none = await client.chat.completions.create({ ...asked, tool_choice: 'none' });
    for (const { finish_reason } of none.choices) assert.notEqual(finish_reason, 'tool_calls');
  }
  assert.deepEqual([...seen].sort(), ['stop', 'tool_calls']);
});

test('a prompt that takes the tokenizer long keeps nobody waiting', async () => {
  let answered = false;
  const long = client.chat.completions
    .create({ ...ask, messages: [{ role: 'user', content: 'the name 🙂 '.repeat(90_000) }] })
    .catch((error: unknown) => {
      answered = true;
      return error;
    });
  for (let i = 0; i < 5; i++) assert.equal((await fetch(`${server.url}/health`)).status, 200);
  assert.equal(answered, false, 'the long prompt came first');
  const error = await long;
  assert.ok(error instanceof OpenAI.BadRequestError && error.code === 'context_length_exceeded');
});

test('a schema that is not supported is a 400 that names the keyword', async () => {
  await assert.rejects(
    client.chat.completions.create({ ...ask, response_format: formatOf({ type: 'integer', multipleOf: 3 }) }),
    (e) =>
      e instanceof OpenAI.BadRequestError &&
      e.param === 'response_format.json_schema.schema' &&
      /multipleOf is not supported/.test(e.message),
  );
});
