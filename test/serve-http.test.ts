// The server's edges: keys and limits, sizes, hosts, a full queue, slow and leaving clients, shutdown.
import assert from 'node:assert/strict';
import { cpSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { exportModel } from '../src/publish/export.js';
import { addKey, readKeys, removeKey } from '../src/serve/keys.js';
import { startServer } from '../src/serve/server.js';
import { readUsage, sumUsage } from '../src/serve/usage-log.js';
import { COUNTDOWN_BASE, lastJson, retort, temporaryFolder } from './support/cli.js';
import { serve, serveCountdown, serveScripts } from './support/server.js';

const LOOP = { 'ever?': { pieces: ['round ', 'and '], loop: true }, 'hello?': { pieces: ['hi ', 'there'] } };
const ask = (content: string, more: object = {}) => ({
  ...{ model: 'scripted', messages: [{ role: 'user', content }] },
  ...more,
});

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: bodies of every endpoint
  readonly body: any;
}

async function post(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    body: text.startsWith('{') ? JSON.parse(text) : text,
  };
}

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

test('matrices, keys and values are kept as the server is told: each choice gives other last digits', async (t) => {
  const seen = new Set<string>();
  for (const dtype of [undefined, 'bfloat16'] as const)
    for (const kvCacheDtype of [undefined, 'bfloat16'] as const) {
      const server = await serveCountdown({ dtype, kvCacheDtype });
      t.after(() => server.end());
      const { status, body } = await post(`${server.base}/completions`, {
        ...{ model: 'countdown', prompt: '1 2 3 ', max_tokens: 8, temperature: 0, logprobs: 1 },
      });
      assert.equal(status, 200, JSON.stringify(body));
      const { token_logprobs: logprobs } = body.choices[0].logprobs;
      assert.ok(logprobs.length > 0 && logprobs.every(Number.isFinite));
      seen.add(JSON.stringify(logprobs));
    }
  assert.equal(seen.size, 4);
});

test('keys: none and wrong ones are 401, limits are 429 with Retry-After, budgets 402, models 403', async (t) => {
  const folder = temporaryFolder(t);
  const keys = {
    free: addKey(folder, 'free', {}),
    few: addKey(folder, 'few', { requestsPerMinute: 2 }),
    small: addKey(folder, 'small', { tokensPerMinute: 40 }),
    poor: addKey(folder, 'poor', { budget: 0.0005 }),
    other: addKey(folder, 'other', { models: ['another'] }),
  };
  const prices = { input: 1, cachedInput: 0.5, output: 10 };
  const server = await serveScripts(LOOP, { folder, prices });
  t.after(() => server.end());
  const url = `${server.base}/chat/completions`;
  const hello = ask('hello?');
  for (const headers of [{}, bearer('rt-wrong'), { authorization: 'Basic x' }]) {
    const { status, body, headers: got } = await post(url, hello, headers as Record<string, string>);
    assert.equal(status, 401);
    assert.equal(body.error.type, 'authentication_error');
    assert.equal(got.get('www-authenticate'), 'Bearer');
  }
  assert.equal((await fetch(`${server.url}/health`)).status, 200);
  assert.equal((await fetch(`${server.url}/metrics`)).status, 401);
  assert.equal((await post(url, hello, bearer(keys.free))).status, 200);

  for (const expected of [200, 200, 429]) {
    const { status, body, headers } = await post(url, hello, bearer(keys.few));
    assert.equal(status, expected);
    if (expected !== 429) continue;
    assert.equal(body.error.code, 'rate_limit_exceeded');
    assert.ok(Number(headers.get('retry-after')) >= 1 && Number(headers.get('retry-after')) <= 30);
  }
  const statuses: number[] = [];
  for (let i = 0; i < 4; i++)
    statuses.push((await post(url, ask('ever?', { max_tokens: 30 }), bearer(keys.small))).status);
  // The first leaves enough for the prompt of a second, not for its answer.
  assert.deepEqual(statuses, [200, 429, 429, 429]);

  const poor = await post(url, ask('ever?', { max_tokens: 40 }), bearer(keys.poor));
  assert.equal(poor.status, 200);
  const broke = await post(url, ask('ever?', { max_tokens: 40 }), bearer(keys.poor));
  assert.equal(broke.status, 402);
  assert.equal(broke.body.error.code, 'insufficient_balance');
  assert.equal((await post(url, ask('ever?', { max_tokens: 1 }), bearer(keys.poor))).status, 200);

  assert.equal((await post(url, hello, bearer(keys.other))).status, 403);
  const models = await (await fetch(`${server.base}/models`, { headers: bearer(keys.other) })).json();
  assert.deepEqual(models, { object: 'list', data: [] });

  // Keys are nowhere in the folder, and what was spent is known after a restart.
  for (const file of ['keys.json', 'usage.jsonl'])
    for (const key of Object.values(keys)) assert.ok(!readFileSync(join(folder, file), 'utf8').includes(key));
  await server.close();
  const again = await serveScripts(LOOP, { folder, prices });
  t.after(() => again.end());
  assert.equal(
    (await post(`${again.base}/chat/completions`, ask('ever?', { max_tokens: 40 }), bearer(keys.poor)))
      .status,
    402,
  );
  removeKey(folder, 'free');
  await sleep(1100);
  assert.equal((await post(`${again.base}/chat/completions`, hello, bearer(keys.free))).status, 401);
  writeFileSync(join(folder, 'keys.json'), '{"keys": [');
  await sleep(1100);
  assert.equal(
    (await post(`${again.base}/chat/completions`, ask('ever?', { max_tokens: 40 }), bearer(keys.poor)))
      .status,
    402,
  );
});

test('costs: cached input is cheaper, and the log has what clients were told', async (t) => {
  const prices = { input: 1, cachedInput: 0.25, output: 2 };
  const server = await serveScripts(LOOP, { prices });
  t.after(() => server.end());
  const url = `${server.base}/chat/completions`;
  const told: { prompt: number; hit: number; miss: number; completion: number }[] = [];
  for (let i = 0; i < 3; i++) {
    const messages = [
      { role: 'system', content: 'x'.repeat(100) },
      { role: 'user', content: 'hello?' },
    ];
    const { usage } = (await post(url, ask('', { messages }))).body;
    told.push({
      ...{ prompt: usage.prompt_tokens, completion: usage.completion_tokens },
      ...{ hit: usage.prompt_cache_hit_tokens, miss: usage.prompt_cache_miss_tokens },
    });
    assert.equal(usage.prompt_tokens_details.cached_tokens, usage.prompt_cache_hit_tokens);
  }
  assert.equal(told[0].hit, 0);
  assert.ok(told[1].hit >= 96 && told[1].hit + told[1].miss === told[1].prompt, JSON.stringify(told));
  const log = [...readUsage(server.folder)];
  const sum = [...sumUsage(log, () => '').values()][0];
  assert.equal(
    sum.promptTokens,
    told.reduce((n, x) => n + x.prompt, 0),
  );
  assert.equal(
    sum.completionTokens,
    told.reduce((n, x) => n + x.completion, 0),
  );
  const cost = told.reduce((n, x) => n + x.miss * 1 + x.hit * 0.25 + x.completion * 2, 0) / 1e6;
  assert.ok(Math.abs(sum.cost - cost) < 1e-12);
});

test('a request that is left pays for cached input what cached input costs', async (t) => {
  const prices = { input: 1, cachedInput: 0.25, output: 0 };
  const server = await serveScripts(LOOP, { prices, context: 60_000 });
  t.after(() => server.end());
  const messages = [
    { role: 'system', content: 'x'.repeat(100) },
    { role: 'user', content: 'ever?' },
  ];
  for (let i = 1; i <= 2; i++) {
    const leave = new AbortController();
    const response = await fetch(`${server.base}/chat/completions`, {
      ...{ method: 'POST', headers: { 'content-type': 'application/json' }, signal: leave.signal },
      body: JSON.stringify(ask('', { messages, stream: true })),
    });
    await response.body?.getReader().read();
    leave.abort();
    while ([...readUsage(server.folder)].length < i) await sleep(10);
  }
  const [, { outcome, promptTokens, cachedTokens, cost }] = [...readUsage(server.folder)];
  assert.equal(outcome, 'left');
  assert.ok(cachedTokens >= 96, `${cachedTokens} tokens cached`);
  assert.ok(Math.abs(cost - (promptTokens - 0.75 * cachedTokens) / 1e6) < 1e-12);
});

test('the command line: keys are made and listed, usage is summed', async (t) => {
  const cwd = temporaryFolder(t);
  const made = lastJson<{ key: string }>(
    await retort(['keys', 'add', 'me', '--budget', '1', '--json'], { cwd }),
  );
  assert.match(made.key, /^rt-[\w-]{43}$/);
  const twice = await retort(['keys', 'add', 'me'], { cwd });
  assert.equal(twice.status, 2);
  assert.match(twice.stderr, /it is taken/);
  const listed = await retort(['keys', 'list', '--json'], { cwd });
  assert.ok(!listed.stdout.includes(made.key) && !listed.stdout.includes('hash'));
  for (const [words, flag] of [
    [['list', '--budget', '1'], /--budget: got 1; retort keys list sets no limits/],
    [['remove', 'me', '--tokens-per-minute', '5'], /--tokens-per-minute: got 5; retort keys remove sets no/],
    [['remove', 'me', '--model', 'm'], /--model: got \["m"\]; retort keys remove/],
    [['list', 'me'], /name of the key: got "me"; list shows all/],
  ] as const) {
    const { status, stderr } = await retort(['keys', ...words], { cwd });
    assert.equal(status, 2);
    assert.match(stderr, flag);
  }
  const server = await serveCountdown({
    folder: join(cwd, '.retort'),
    prices: { input: 1, cachedInput: 1, output: 1 },
  });
  const chat = { model: 'countdown', messages: [{ role: 'user', content: '1 2 3=6?' }], max_tokens: 5 };
  const { body } = await post(`${server.base}/chat/completions`, chat, bearer(made.key));
  await server.end();
  const { rows, total } = lastJson<{
    rows: { name: string }[];
    total: { promptTokens: number; cost: number };
  }>(await retort(['usage', '--json'], { cwd }));
  assert.deepEqual(
    rows.map((r) => r.name),
    ['me'],
  );
  assert.equal(total.promptTokens, body.usage.prompt_tokens);
  assert.ok(Math.abs(total.cost - body.usage.total_tokens / 1e6) < 1e-12);
  assert.match((await retort(['usage', 'day'], { cwd })).stdout, /^total +1 /m);
  assert.match((await retort(['usage', 'model', '--since', '2100-01-01'], { cwd })).stdout, /no requests/);
  assert.equal((await retort(['keys', 'remove', 'me'], { cwd })).status, 0);
  assert.deepEqual(readKeys(join(cwd, '.retort')), []);
});

test('without keys: this machine alone', async (t) => {
  const folder = temporaryFolder(t);
  const models = [{ name: 'countdown', dir: COUNTDOWN_BASE }];
  await assert.rejects(
    startServer({ models, folder, host: '0.0.0.0', port: 0 }),
    /without keys the server listens on this machine alone/,
  );
  const server = await serveCountdown({ folder });
  t.after(() => server.end());
  // A page of a name that was turned to this machine.
  const status = await new Promise<number | undefined>((resolve, reject) => {
    const headers = { host: 'evil.example' };
    httpRequest(`${server.url}/v1/models`, { headers }, (r) => resolve(r.resume().statusCode))
      .on('error', reject)
      .end();
  });
  assert.equal(status, 403);
  const busy = startServer({ models, folder, port: Number(new URL(server.url).port) });
  await assert.rejects(busy, /another program listens there/);
  await assert.rejects(
    startServer({ models, folder, port: 0 }),
    /the usage log of the server's folder .* is being written by process/,
  );
  await assert.rejects(
    startServer({ models: [...models, ...models], folder: temporaryFolder(t), port: 0 }),
    /name of two models: got "countdown"; give each its own/,
  );
});

test('bodies: too large, no JSON, no object, the wrong type; paths and methods that are not there', async (t) => {
  const server = await serveScripts(LOOP);
  t.after(() => server.end());
  const url = `${server.base}/chat/completions`;
  assert.equal((await post(url, 'x'.repeat(3 << 20))).status, 413);
  const chunked = await fetch(url, {
    ...{ method: 'POST', headers: { 'content-type': 'application/json' }, duplex: 'half' },
    body: new ReadableStream({
      start(controller) {
        for (let i = 0; i < 48; i++) controller.enqueue(new Uint8Array(1 << 16).fill(32));
        controller.close();
      },
    }),
  } as RequestInit).catch(() => null);
  // The server may have closed the connection while the body still came.
  assert.ok(chunked === null || chunked.status === 413);
  assert.match((await post(url, '{')).body.error.message, /the body is not JSON/);
  assert.match((await post(url, '[]')).body.error.message, /must be a JSON object/);
  assert.equal((await post(url, ask('hello?'), { 'content-type': 'text/plain' })).status, 415);
  assert.equal((await post(`${server.base}/nothing`, {})).status, 404);
  const get = await fetch(url);
  assert.equal(get.status, 404);
  assert.equal(((await get.json()) as { error: { code: string } }).error.code, 'unknown_url');
  const long = await fetch(`${server.url}/health`, { headers: { 'x-long': 'x'.repeat(20_000) } });
  assert.equal(long.status, 431);
  assert.equal((await post(url, ask('hello?'))).status, 200);
});

test('a GGUF file is served as its folder is', async (t) => {
  const dir = temporaryFolder(t);
  const file = join(dir, 'model.gguf');
  exportModel({ model: COUNTDOWN_BASE, out: file, format: 'gguf', type: 'F32' });
  const models = [
    { name: 'folder', dir: COUNTDOWN_BASE },
    { name: 'file', dir: file },
  ];
  const server = await serve({ models, template: 'terse' });
  t.after(() => server.end());
  const answer = async (model: string) => {
    const messages = [{ role: 'user', content: '3 5 7=15?' }];
    const body = { model, messages, temperature: 0, max_tokens: 60 };
    return (await post(`${server.base}/chat/completions`, body)).body.choices[0].message.content;
  };
  assert.match(await answer('folder'), /<answer>/);
  assert.equal(await answer('file'), await answer('folder'));
  const copy = new Date();
  utimesSync(file, copy, copy);
  assert.deepEqual(await server.reload(), ['file'], 'another file by that name is another model');
});

test('a full queue is 429 with Retry-After; what was taken is answered', async (t) => {
  const server = await serveScripts(LOOP, { maxSequences: 2, queue: 2 });
  t.after(() => server.end());
  const url = `${server.base}/chat/completions`;
  const answers = await Promise.all(
    Array.from({ length: 8 }, () => post(url, ask('ever?', { max_tokens: 300 }))),
  );
  const full = answers.filter((a) => a.status === 429);
  assert.equal(full.length, 4);
  assert.ok(full.every((a) => a.headers.get('retry-after') === '1' && a.body.error.code === 'queue_full'));
  assert.ok(answers.filter((a) => a.status === 200).every((a) => a.body.usage.completion_tokens === 300));
  // Where nothing waits the queue lets in more than it holds, but not anything.
  const flood = { model: 'scripted', prompt: Array(5000).fill('x'), n: 2, max_tokens: 1 };
  const drowned = await post(`${server.base}/completions`, flood);
  assert.deepEqual([drowned.status, drowned.body.error.param], [400, 'prompt']);
  const many = await post(url, ask('hello?', { n: 3 }));
  assert.deepEqual([many.status, many.body.error.param], [400, 'n']);
});

test('a request that takes too long is ended, whole and streamed', async (t) => {
  const server = await serveScripts(LOOP, { context: 60_000, maxSequences: 2, timeLimitSeconds: 1 });
  t.after(() => server.end());
  const url = `${server.base}/chat/completions`;
  // A short one ends in time, if not while the machine is busy.
  for (let tries = 0; (await post(url, ask('hello?'))).status !== 200; tries++) assert.ok(tries < 20);
  const whole = await post(url, ask('ever?'));
  assert.deepEqual([whole.status, whole.body.error.code], [504, 'time_limit']);
  const stream = await post(url, ask('ever?', { stream: true }));
  assert.match(stream.body, /"code":"time_limit"\}\}\n\n$/);
  assert.ok(!stream.body.includes('[DONE]'));
  assert.deepEqual([...readUsage(server.folder)].map((e) => e.outcome).slice(-3), [
    'done',
    'failed',
    'failed',
  ]);
});

test('the time limit counts from the arrival of a request: waiting for its prompt is in it', async (t) => {
  const server = await serveScripts(LOOP, { timeLimitSeconds: 0.5 });
  t.after(() => server.end());
  const url = `${server.base}/chat/completions`;
  // Both take the tokenizer seconds, one after the other.
  const long = ask('a b '.repeat(500_000));
  const answers = await Promise.all([post(url, long), post(url, long)]);
  for (const { status, body } of answers) assert.deepEqual([status, body.error.code], [504, 'time_limit']);
});

test('what fails in the engine: a 500 that says nothing of it, and a line that says where', async (t) => {
  const dir = join(temporaryFolder(t), 'broken');
  cpSync(COUNTDOWN_BASE, dir, { recursive: true });
  const weights = readFileSync(join(dir, 'model.safetensors'));
  // As float32 the greatest there are: sums of them are infinite, and what is computed of these is no number.
  writeFileSync(join(dir, 'model.safetensors'), weights.fill(0x7f, weights.length - 4096));
  const lines: string[] = [];
  const server = await serveCountdown({
    models: [{ name: 'countdown', dir }],
    say: (line) => lines.push(line),
  });
  t.after(() => server.end());
  const { status, body } = await post(`${server.base}/completions`, {
    ...{ model: 'countdown', prompt: '1 2 3=6?', max_tokens: 5 },
  });
  assert.deepEqual([status, body.error.code], [500, 'internal_error']);
  assert.match(lines.join('\n'), /^cmpl-\w+: Error\n +at .*rollout\/engine\.js/);
  assert.ok(!lines.join().includes('NaN'), 'messages may hold prompts');
});

test('shutdown: what runs is finished, what comes is refused', async (t) => {
  const server = await serveScripts(LOOP, { context: 4096 });
  t.after(() => server.end());
  const url = `${server.base}/chat/completions`;
  const running = post(url, ask('ever?', { max_tokens: 2000 }));
  const stream = post(url, ask('ever?', { max_tokens: 2000, stream: true }));
  await sleep(100);
  const closed = server.close();
  await assert.rejects(post(url, ask('hello?')));
  assert.equal((await running).body.usage.completion_tokens, 2000);
  assert.match((await stream).body, /"finish_reason":"length"\}\]\}\n\ndata: \[DONE\]\n\n$/);
  await closed;
  assert.equal([...readUsage(server.folder)].filter((e) => e.outcome === 'done').length, 2);
});

test('half a request and silence: the connection is ended, the server goes on', async (t) => {
  const server = await serveScripts(LOOP);
  t.after(() => server.end());
  const { port } = new URL(server.url);
  for (const bytes of [
    'GET',
    'POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{',
    '\0\xff\r\n\r\n',
  ]) {
    const socket = connect(Number(port), '127.0.0.1');
    socket.on('error', () => {});
    socket.write(bytes, 'latin1');
    await sleep(20);
    socket.destroy();
  }
  assert.equal(
    (await post(`${server.base}/chat/completions`, ask('hello?'))).body.choices[0].message.content,
    'hi there',
  );
});

test('prompts are logged where that is asked for, streams too', async (t) => {
  const logPrompts = join(temporaryFolder(t), 'prompts.jsonl');
  const server = await serveScripts(LOOP, { logPrompts, context: 60_000, timeLimitSeconds: 2 });
  t.after(() => server.end());
  const url = `${server.base}/chat/completions`;
  const { body } = await post(url, ask('hello?'));
  await post(url, ask('hello?', { stream: true }));
  assert.equal((await post(url, ask('ever?'))).status, 504);
  const lines = readFileSync(logPrompts, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.equal(lines[0].id, body.id);
  assert.deepEqual(lines[0].request, ask('hello?'));
  assert.deepEqual(
    lines.map((l) => [l.outcome, l.answers[0].content.slice(0, 9)]),
    [
      ['done', 'hi there'],
      ['done', 'hi there'],
      ['failed', 'round and'],
    ],
  );
});

test('Ctrl-C: finishes what runs, status 0; prompts are in no output', async (t) => {
  const cwd = temporaryFolder(t);
  const secret = '9 8 7=65?';
  let answered: Promise<Answer> | undefined;
  const ran = await retort(
    ['serve', '--model', `m=${COUNTDOWN_BASE}`, '--template', 'terse', '--port', '0', '--json'],
    {
      cwd,
      onStart: (child) =>
        child.stdout?.once('data', (line: string) => {
          const { url } = JSON.parse(line) as { url: string };
          const chat = { model: 'm', messages: [{ role: 'user', content: secret }], n: 40, temperature: 1 };
          answered = post(`${url}/v1/chat/completions`, chat);
          setTimeout(() => child.kill('SIGINT'), 100);
        }),
    },
  );
  assert.equal(ran.status, 0, ran.stderr);
  assert.equal((await answered)?.status, 200);
  assert.ok(!`${ran.stdout}${ran.stderr}`.includes(secret));
  assert.ok(!readFileSync(join(cwd, '.retort/usage.jsonl'), 'utf8').includes(secret));
});
