// Mutated requests: each gets an answer or a typed error, the server stays alive and its memory flat.
import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type Random, randomSchema, seeded } from './support/schemas.js';
import { serveScripts } from './support/server.js';

/** 20,000 in runs/serve.sh. */
const REQUESTS = Number(process.env.RETORT_REQUESTS ?? 1500);

const pick = <T>(random: Random, list: readonly T[]): T => list[Math.floor(random() * list.length)];

const CHAT = {
  model: 'scripted',
  messages: [
    { role: 'system', content: 'be brief' },
    { role: 'user', content: [{ type: 'text', text: 'hello?' }] },
    {
      role: 'assistant',
      content: null,
      reasoning_content: 'hm',
      tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: '{"a":1}' } }],
    },
    { role: 'tool', tool_call_id: 'c', content: '4' },
    { role: 'user', content: 'hello?', name: 'me' },
  ],
  temperature: 0.7,
  top_p: 0.9,
  top_k: 40,
  min_p: 0.01,
  frequency_penalty: 0.5,
  presence_penalty: -0.5,
  n: 2,
  seed: 3,
  stop: ['x', '</s>'],
  logit_bias: { 65: -10 },
  logprobs: true,
  top_logprobs: 2,
  max_tokens: 4,
  max_completion_tokens: 5,
  stream: true,
  stream_options: { include_usage: true },
  tools: [
    {
      type: 'function',
      function: {
        name: 'f',
        description: 'd',
        parameters: { type: 'object', properties: { a: { type: 'integer' } } },
        strict: false,
      },
    },
  ],
  tool_choice: 'auto',
  parallel_tool_calls: true,
  response_format: { type: 'text' },
  enable_thinking: true,
  thinking_budget: 3,
  user: 'someone',
  metadata: { a: 'b' },
};
const COMPLETION = {
  model: 'scripted',
  prompt: ['hello?', 'x'],
  max_tokens: 3,
  temperature: 0,
  n: 2,
  logprobs: 2,
  echo: false,
  stop: 'q',
  stream: false,
};

const WEIRD: readonly unknown[] = [
  ...[
    null,
    true,
    false,
    0,
    -1,
    1,
    0.5,
    1e308,
    -1e308,
    2 ** 53,
    1e-320,
    '',
    'x',
    '\0',
    '\ud800',
    '🙂'.repeat(20),
    'a'.repeat(3000),
  ],
  ...[
    [],
    {},
    [null],
    [[[[]]]],
    { a: { b: {} } },
    ['x', 1],
    [{ type: 'text', text: 'hi' }],
    { type: 'function' },
  ],
  ...[
    '<|end|>',
    '<think>',
    '</think>',
    '<tool_call>',
    '{{ messages }}',
    '{% raw %}',
    'NaN',
    '__proto__',
    'constructor',
  ],
];

/** Changes one place in a copy. */
function mutate(random: Random, value: unknown): unknown {
  if (Array.isArray(value) && value.length > 0 && random() < 0.8) {
    const copy = [...value];
    const at = Math.floor(random() * copy.length);
    const kind = random();
    if (kind < 0.2) copy.splice(at, 1);
    else if (kind < 0.35) copy.splice(at, 0, copy[at]);
    else copy[at] = mutate(random, copy[at]);
    return copy;
  }
  if (typeof value === 'object' && value !== null && random() < 0.9) {
    const copy: Record<string, unknown> = { ...value };
    const key = pick(random, [...Object.keys(copy), 'extra']);
    if (random() < 0.15) delete copy[key];
    else if (random() < 0.1) copy[String(pick(random, WEIRD)).slice(0, 20)] = copy[key];
    else copy[key] = mutate(random, copy[key]);
    return copy;
  }
  if (typeof value === 'string' && random() < 0.3) return value + pick(random, WEIRD);
  return pick(random, WEIRD);
}

/** A few of the fields of a valid request. */
function some(random: Random, whole: Record<string, unknown>): Record<string, unknown> {
  const kept = Object.entries(whole).filter(
    ([name]) => /^(model|messages|prompt)$/.test(name) || random() < 0.25,
  );
  return Object.fromEntries(kept);
}

function randomBody(random: Random): { path: string; body: string } {
  const chat = random() < 0.75;
  let body: unknown = some(random, chat ? CHAT : COMPLETION);
  if (chat && random() < 0.15) {
    const schema = randomSchema(random);
    const broken = random() < 0.5 ? mutate(random, schema) : schema;
    Object.assign(body as object, {
      response_format: { type: 'json_schema', json_schema: { name: 's', schema: broken } },
    });
  }
  for (let changes = Math.floor(random() * 3); changes > 0; changes--) body = mutate(random, body);
  let text = JSON.stringify(body) ?? '';
  if (random() < 0.1) {
    const at = Math.floor(random() * text.length);
    text =
      text.slice(0, at) +
      pick(random, ['', '"', '}', '\\', '\0', ',', '1e999', '\u2028']) +
      text.slice(at + 1);
  }
  return { path: chat ? '/v1/chat/completions' : '/v1/completions', body: text };
}

function send(
  url: string,
  path: string,
  body: string,
  leave: boolean,
): Promise<{ status: number; text: string } | null> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json' };
    const request = httpRequest(url + path, { method: 'POST', headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      response.on('error', () => resolve(null));
    });
    request.on('error', (error) => (leave ? resolve(null) : reject(error)));
    request.end(body);
    if (leave) setTimeout(() => request.destroy(), 2);
  });
}

test(`${REQUESTS} mutated requests: an answer or a typed error each, nobody dies, memory stays flat`, async (t) => {
  const faults: string[] = [];
  const server = await serveScripts(
    { 'hello?': { pieces: ['<think>so', '</think>', 'hi ', 'there'] } },
    { say: (line) => faults.push(line), queue: 100_000 },
  );
  t.after(() => server.end());
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const random = seeded(20);
  const statuses = new Map<number, number>();
  const one = async () => {
    const { path, body } = randomBody(random);
    const answer = await send(server.url, path, body, random() < 0.03);
    if (!answer) return;
    const { status, text } = answer;
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
    const of = `${status} ${text.slice(0, 300)} for ${body.slice(0, 6000)}`;
    if (status === 200) return;
    assert.ok(status === 400 || status === 404, of);
    const { error } = JSON.parse(text) as { error: { type: string; message: string } };
    assert.equal(error.type, status === 400 ? 'invalid_request_error' : 'not_found_error', of);
    assert.ok(error.message.length > 5 && !/undefined is|Cannot read|\n/.test(error.message), of);
  };
  const run = async (count: number) => {
    for (let done = 0; done < count; done += 16) await Promise.all(Array.from({ length: 16 }, one));
    collect();
    return process.memoryUsage();
  };
  const first = await run(REQUESTS / 3);
  const second = await run((2 * REQUESTS) / 3);
  assert.deepEqual(faults, []);
  assert.ok((statuses.get(200) ?? 0) > REQUESTS / 10, JSON.stringify([...statuses]));
  assert.ok((statuses.get(400) ?? 0) > REQUESTS / 10, JSON.stringify([...statuses]));
  const grown = (second.heapUsed - first.heapUsed) / 2 ** 20;
  assert.ok(grown < 8, `the heap grew by ${grown.toFixed(1)} MiB`);
  t.diagnostic(
    `${[...statuses].map(([s, n]) => `${n} of status ${s}`).join(', ')}; heap ${grown.toFixed(2)} MiB more, resident ${((second.rss - first.rss) / 2 ** 20).toFixed(0)} MiB more`,
  );
  const health = await fetch(`${server.url}/health`);
  assert.equal(health.status, 200);
});
