// The client of chat APIs against a server that fails as APIs do: nothing lost, nothing paid twice, the budget kept.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import {
  type FakeApi,
  type FakeApiOptions,
  type FakeBehaviour,
  fakeApi,
} from '../../test/support/fake-api.js';
import { RetortError } from '../errors.js';
import { type ChatApiInput, type ChatQuestion, mostOf, openChatApi } from './chat.js';

const folder = mkdtempSync(join(tmpdir(), 'retort-api-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const newFile = () => join(folder, `answers-${files++}.jsonl`);

const ask = (text: string, more: Partial<ChatQuestion> = {}): ChatQuestion => ({
  model: 'm',
  messages: [{ role: 'user', content: text }],
  maxTokens: 50,
  ...more,
});

async function withServer(o: FakeApiOptions, use: (server: FakeApi) => Promise<void>): Promise<void> {
  const server = await fakeApi(o);
  try {
    await use(server);
  } finally {
    await server.close();
  }
}

const quiet = { warn: () => {}, backoff: 0.002 };
const open = (server: FakeApi, more: Partial<ChatApiInput> = {}) =>
  openChatApi({ endpoint: server.endpoint, answers: newFile(), ...quiet, ...more });

const failsWith = (code: string, message: RegExp) => (error: unknown) =>
  error instanceof RetortError && error.code === code && message.test(error.message);

test('an answer keeps its thought apart and says where it comes from', async () => {
  const reply = () => ({ content: 'four', reasoning: 'two and two' });
  const usage = () => ({ input: 20, cached: 8, output: 7 });
  await withServer({ reply, usage }, async (server) => {
    const api = open(server);
    const answer = await api.ask(ask('2+2', { temperature: 0.6, topP: 0.95, stop: ['\n'] }));
    const { date, ...rest } = answer;
    assert.deepEqual(rest, {
      content: 'four',
      reasoning: 'two and two',
      finishReason: 'stop',
      endpoint: server.endpoint,
      requestedModel: 'm',
      model: 'm-2026',
      systemFingerprint: 'fp_1',
      parameters: { max_tokens: 50, temperature: 0.6, top_p: 0.95, stop: ['\n'] },
      usage: { input: 20, cachedInput: 8, output: 7 },
    });
    assert.ok(Math.abs(Date.parse(date) - Date.now()) < 60_000);
    assert.equal(server.headers[0].authorization, undefined, 'no key is sent to this machine');
    await api.close();
  });
});

const FAILURES: readonly (FakeBehaviour & { readonly billed: boolean })[] = [
  { kind: 'status', status: 429, headers: { 'retry-after': '0' }, billed: false },
  { kind: 'status', status: 429, headers: { 'retry-after': new Date().toUTCString() }, billed: false },
  { kind: 'status', status: 500, billed: false },
  { kind: 'status', status: 502, billed: true },
  { kind: 'status', status: 503, billed: false },
  { kind: 'reset', billed: true },
  { kind: 'cut', billed: true },
  { kind: 'cut', clean: true, billed: true },
  { kind: 'cut', clean: true, finish: 'insufficient_system_resource', billed: true },
  { kind: 'cut', clean: true, finish: 'error', billed: true },
  { kind: 'stall', billed: true },
  { kind: 'stall', drip: true, billed: true },
  { kind: 'wrong-json', billed: true },
  { kind: 'html', billed: true },
];

for (const { billed, ...behaviour } of FAILURES) {
  test(`after ${JSON.stringify(behaviour)} the call is made again`, async () => {
    const behave = (n: number): FakeBehaviour => (n === 0 ? behaviour : { kind: 'answer' });
    await withServer({ behave }, async (server) => {
      const drips = behaviour.kind === 'stall' && behaviour.drip;
      const api = open(server, drips ? { requestTimeout: 0.2 } : { idleTimeout: 0.15 });
      assert.equal((await api.ask(ask('x'))).content, 'answer 1');
      assert.equal(server.requests.length, 2);
      const { unanswered, inputTokens, outputTokens } = api.totals();
      const most = mostOf(ask('x'));
      assert.equal(unanswered, billed ? 1 : 0, 'what may have been billed is counted at its most');
      assert.equal(inputTokens, 10 + (billed ? most.input : 0));
      assert.equal(outputTokens, 5 + (billed ? most.output : 0));
      await api.close();
    });
  });
}

test('a refused call is not repeated, gives the API its words, and hides the key', async () => {
  const behave = (): FakeBehaviour => ({ kind: 'status', status: 401 });
  await withServer({ behave }, async (server) => {
    const answers = newFile();
    const api = open(server, { answers, apiKeyEnv: 'MY_KEY', environment: { MY_KEY: 'no: 401' } });
    await assert.rejects(api.ask(ask('x')), (error) => {
      assert.ok(failsWith('network', /401.*correct what it names/)(error));
      assert.ok(
        !(error as Error).message.includes('no: 401'),
        "the key (here: the API's own words) is hidden",
      );
      return true;
    });
    assert.equal(server.headers[0].authorization, 'Bearer no: 401');
    assert.equal(server.requests.length, 1);
    await api.close();
    assert.ok(!readFileSync(answers, 'utf8').includes('no: 401'));
  });
});

test('after so many attempts it gives up; Retry-After beyond ten minutes ends it at once', async () => {
  const statuses = [500, 500, 500];
  const behave = (n: number): FakeBehaviour => ({
    kind: 'status',
    status: statuses[n] ?? 429,
    headers: n >= 3 ? { 'retry-after': '3600' } : {},
  });
  await withServer({ behave }, async (server) => {
    const api = open(server, { apiRetries: 2 });
    await assert.rejects(api.ask(ask('x')), failsWith('network', /gave up after 3 attempts/));
    await api.close();
    const again = open(server);
    await assert.rejects(again.ask(ask('x')), failsWith('network', /asks to wait 3600 s/));
    await again.close();
  });
});

test('nothing is asked twice: not at once, not later, but for another sample', async () => {
  await withServer({ delay: 5 }, async (server) => {
    const answers = newFile();
    const api = open(server, { answers });
    const [a, b] = await Promise.all([api.ask(ask('x')), api.ask(ask('x'))]);
    assert.deepEqual(a, b);
    await api.close();
    const again = open(server, { answers });
    assert.deepEqual(await again.ask(ask('x')), a);
    await again.ask(ask('x', { sample: 1 }));
    await again.ask(ask('x', { temperature: 0.5 }));
    assert.equal(server.requests.length, 3);
    assert.throws(() => open(server, { answers }), failsWith('bad-input', /being written by process/));
    await again.close();
  });
});

test('so many calls at a time, no more', async () => {
  await withServer({ delay: 10 }, async (server) => {
    const api = open(server, { concurrency: 3 });
    await Promise.all(Array.from({ length: 20 }, (_, i) => api.ask(ask(`q${i}`))));
    assert.equal(server.most(), 3);
    await api.close();
  });
});

test('the budget is never passed, whatever fails, and is used as far as it goes', async () => {
  const most = mostOf(ask('q00'));
  const one = most.input + most.output;
  // Every third call is cut, after which its most counts for good.
  const behave = (n: number): FakeBehaviour => (n % 3 === 2 ? { kind: 'cut' } : { kind: 'answer' });
  await withServer({ behave, usage: () => ({ input: 100, output: 30 }), delay: 2 }, async (server) => {
    const maxApiTokens = 10 * one;
    const answers = newFile();
    const api = open(server, { answers, maxApiTokens, concurrency: 4 });
    const results = await Promise.allSettled(
      Array.from({ length: 99 }, (_, i) => api.ask(ask(`q${String(i).padStart(2, '0')}`))),
    );
    const answered = results.filter((r) => r.status === 'fulfilled').length;
    for (const r of results)
      if (r.status === 'rejected') assert.ok(failsWith('budget', /does not allow a further call/)(r.reason));
    const cut = server.requests.length - [...server.billed.values()].length;
    const { inputTokens, outputTokens, unanswered } = api.totals();
    assert.equal(answered, server.billed.size);
    assert.equal(unanswered, cut);
    assert.equal(inputTokens + outputTokens, 130 * answered + one * cut, 'counted exactly');
    assert.ok(inputTokens + outputTokens <= maxApiTokens, 'not passed');
    assert.ok(inputTokens + outputTokens + one > maxApiTokens, 'not one call more would have fitted');
    await api.close();
    // The same file: what was paid counts, and a larger budget goes on without paying again.
    const more = open(server, { answers, maxApiTokens: maxApiTokens + 40 * one });
    const first = results.findIndex((r) => r.status === 'fulfilled');
    await more.ask(ask(`q${String(first).padStart(2, '0')}`));
    for (let i = 0; i < 12; i++) await more.ask(ask(`q${String(i).padStart(2, '0')}`));
    assert.ok([...server.billed.values()].every((times) => times === 1));
    await more.close();
  });
});

test('a budget in money counts cached tokens at their price, and the worst case before a call', async () => {
  const usage = () => ({ input: 100, cached: 60, output: 30 });
  const prices = { priceInput: 2, priceCachedInput: 0.5, priceOutput: 8 };
  const most = mostOf(ask('a'));
  const worst = (2 * most.input + 8 * most.output) / 1e6;
  const each = (40 * 2 + 60 * 0.5 + 30 * 8) / 1e6;
  await withServer({ usage }, async (server) => {
    // Room for the third call's worst case, and for no fourth one.
    const api = open(server, { ...prices, maxCost: 2 * each + worst, concurrency: 1 });
    for (const q of ['a', 'b', 'c']) await api.ask(ask(q));
    assert.equal(api.totals().cost, 3 * each);
    await assert.rejects(api.ask(ask('d')), failsWith('budget', /spent/));
    assert.equal(server.requests.length, 3);
    await api.close();
  });
  await withServer({ behave: () => ({ kind: 'answer', usage: false }) }, async (server) => {
    const api = open(server, { ...prices, maxCost: 1 });
    await api.ask(ask('a'));
    assert.equal(api.totals().cost, worst, 'an answer without usage costs the most');
    await api.close();
  });
});

test('an API that bills more than its limit allows ends the calls: no budget can hold', async () => {
  await withServer({ usage: () => ({ input: 10, output: 51 }) }, async (server) => {
    const api = open(server, { maxApiTokens: 10_000 });
    await assert.rejects(api.ask(ask('x')), failsWith('budget', /its limit of tokens does not hold/));
    await assert.rejects(api.ask(ask('y')), failsWith('budget', /its limit of tokens does not hold/));
    assert.equal(api.totals().outputTokens, 51, 'the answer is kept and counted as billed');
    await api.close();
  });
});

test('a changed model name is noticed, named and stops, also from the file; or is allowed', async () => {
  const behave = (n: number): FakeBehaviour => ({ kind: 'answer', model: n < 2 ? 'm-old' : 'm-new' });
  await withServer({ behave }, async (server) => {
    const answers = newFile();
    const named = failsWith('bad-data', /"m-new".*"m-old".*changed in the middle/);
    const api = open(server, { answers });
    await api.ask(ask('a'));
    await api.ask(ask('b'));
    await assert.rejects(api.ask(ask('c')), named);
    await assert.rejects(api.ask(ask('d')), named);
    await api.close();
    const again = open(server, { answers });
    await again.ask(ask('a'));
    await assert.rejects(again.ask(ask('c')), named);
    await again.close();
    const warnings: string[] = [];
    const mixed = open(server, { answers, allowModelChange: true, warn: (m) => warnings.push(m) });
    assert.equal((await mixed.ask(ask('c'))).model, 'm-new');
    await mixed.ask(ask('d'));
    assert.equal(warnings.length, 1);
    assert.ok([...server.billed.values()].every((times) => times === 1));
    await mixed.close();
  });
});

test('what ends the calls lets no waiting one begin, and waits for no pause', async () => {
  const ends: readonly [FakeApiOptions, string][] = [
    [{ behave: () => ({ kind: 'status', status: 401 }) }, 'network'],
    [{ usage: () => ({ input: 10, output: 51 }) }, 'budget'],
    [{ behave: (n) => ({ kind: 'answer', model: `m-${n}` }) }, 'bad-data'],
  ];
  for (const [o, code] of ends)
    await withServer(o, async (server) => {
      const api = open(server, { concurrency: 1 });
      const asked = ['a', 'b', 'c', 'd'].map((text) => api.ask(ask(text)));
      const results = await Promise.allSettled(asked);
      const wrong = results.flatMap((r) => (r.status === 'rejected' ? [(r.reason as RetortError).code] : []));
      // The first name of a model is the right one.
      const answered = code === 'bad-data' ? 1 : 0;
      assert.deepEqual(wrong, Array(4 - answered).fill(code));
      assert.equal(server.requests.length, 1 + answered, code);
      await api.close();
    });
  const behave = (n: number): FakeBehaviour =>
    n === 0
      ? { kind: 'status', status: 429, headers: { 'retry-after': '300' } }
      : { kind: 'status', status: 401 };
  await withServer({ behave }, async (server) => {
    const api = open(server);
    const began = performance.now();
    const waits = api.ask(ask('a'));
    setTimeout(() => api.ask(ask('b')).catch(() => {}), 50);
    await assert.rejects(waits, failsWith('network', /401/));
    await api.close();
    assert.ok(performance.now() - began < 60_000, 'it did not wait for the pause to end');
  });
});

test('interrupted: calls under way end and are kept, no other begins', async () => {
  const stop = new AbortController();
  await withServer({ delay: 30 }, async (server) => {
    const answers = newFile();
    const api = open(server, { answers, concurrency: 2, signal: stop.signal });
    const asked = Array.from({ length: 6 }, (_, i) => api.ask(ask(`q${i}`)));
    setTimeout(() => stop.abort(), 10);
    const results = await Promise.allSettled(asked);
    assert.equal(results.filter((r) => r.status === 'fulfilled').length, 2);
    assert.equal(server.requests.length, 2);
    assert.equal(api.totals().answers, 2);
    await api.close();
  });
});

test('a torn last line is cut off; a file of another kind is refused and left alone', async () => {
  await withServer({}, async (server) => {
    const answers = newFile();
    const api = open(server, { answers });
    await api.ask(ask('a'));
    await api.close();
    appendFileSync(answers, '{"type":"answer","call":9');
    const again = open(server, { answers });
    await again.ask(ask('a'));
    assert.equal(server.requests.length, 1);
    await again.close();
    const other = newFile();
    writeFileSync(other, '{"prompt":"x"}\n');
    assert.throws(() => open(server, { answers: other }), failsWith('bad-data', /no file of answers/));
    assert.equal(readFileSync(other, 'utf8'), '{"prompt":"x"}\n');
    // Nor is its last line taken for a torn one.
    for (const text of ['{"prompt":"x"}', '{"prompt":"x"}\n{"prompt":"y"}', 'words']) {
      writeFileSync(other, text);
      assert.throws(
        () => open(server, { answers: other }),
        failsWith('bad-data', /name another file of answers/),
      );
      assert.equal(readFileSync(other, 'utf8'), text);
    }
    // A kill may leave less than the first line.
    writeFileSync(other, '{"type":"format","fo');
    await open(server, { answers: other }).close();
  });
});

test('wrong options are refused before any call', () => {
  const wrong = (o: Partial<ChatApiInput>, message: RegExp) =>
    assert.throws(
      () => openChatApi({ answers: newFile(), environment: {}, ...o }),
      failsWith('bad-input', message),
    );
  wrong({}, /endpoint.*give the base URL/);
  wrong({ endpoint: 'https://user:pass@api.example.org/v1' }, /no user, password or query/);
  wrong({ endpoint: 'https://api.example.org/v1?key=1' }, /no user, password or query/);
  wrong({ endpoint: 'https://api.example.org/v1' }, /budget of the API.*may charge/);
  wrong({ endpoint: 'https://api.example.org/v1', maxApiTokens: 9 }, /OPENAI_API_KEY.*set OPENAI_API_KEY/);
  wrong({ endpoint: 'https://api.deepseek.com', maxApiTokens: 9 }, /set DEEPSEEK_API_KEY/);
  wrong({ endpoint: 'http://localhost:1/v1', apiKeyEnv: 'NONE' }, /set NONE/);
  wrong({ endpoint: 'http://localhost:1/v1', maxCost: 1 }, /prices with maxCost/);
  wrong({ endpoint: 'http://localhost:1/v1', priceInput: 1 }, /give both/);
  wrong({ endpoint: 'http://localhost:1/v1', apiKeyEnv: 'sk-123' }, /not the key itself/);
});

test('a parameter that the client sets itself is refused, not passed over', async () => {
  await withServer({}, async (server) => {
    const api = open(server);
    for (const name of ['model', 'messages', 'stream_options', 'n', 'max_tokens'])
      await assert.rejects(
        api.ask(ask('x', { more: { [name]: 'm' } })),
        failsWith('bad-input', /leave it out/),
      );
    assert.equal(server.requests.length, 0);
    await api.close();
  });
});

test('killed at any moment: nothing that was answered is asked again, and what was perhaps paid is counted', async () => {
  await withServer({ delay: 3 }, async (server) => {
    const answers = newFile();
    const program = `
      import { openChatApi } from ${JSON.stringify(new URL('./chat.js', import.meta.url).href)};
      const api = openChatApi({ endpoint: ${JSON.stringify(server.endpoint)}, answers: ${JSON.stringify(answers)}, concurrency: 4 });
      const ask = (text) => api.ask({ model: 'm', messages: [{ role: 'user', content: text }], maxTokens: 50 });
      await Promise.all(Array.from({ length: 60 }, (_, i) => ask('q' + i)));
      await api.close();
      console.log('done');`;
    let kills = 0;
    let lost = 0;
    for (let target = 7; ; target += 13) {
      assert.ok(target < 200, 'it does not come to its end');
      const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let output = '';
      child.stdout.on('data', (text) => {
        output += text;
      });
      const watch = setInterval(() => {
        if (server.requests.length >= target) child.kill('SIGKILL');
      }, 1);
      const ended = await new Promise<NodeJS.Signals | null>((go) =>
        child.on('close', (_, signal) => go(signal)),
      );
      clearInterval(watch);
      if (output.includes('done')) break;
      assert.equal(ended, 'SIGKILL');
      kills++;
      lost += 4;
    }
    assert.ok(kills >= 3, `${kills} kills`);
    const api = open(server, { answers });
    const { answers: kept, unanswered, inputTokens, outputTokens } = api.totals();
    assert.equal(kept, 60);
    const sent = server.requests.length;
    assert.equal(
      unanswered >= sent - 60 && unanswered <= lost,
      true,
      `${sent} sent, ${unanswered} unanswered`,
    );
    assert.ok(inputTokens + outputTokens >= server.tokens(), 'at least what the server billed');
    // Only a call whose answer was on its way when the process was killed can be billed twice.
    const twice = [...server.billed.values()].reduce((n, times) => n + times - 1, 0);
    assert.ok(twice <= unanswered, `${twice} billed twice`);
    for (let i = 0; i < 60; i++) await api.ask(ask(`q${i}`));
    assert.equal(server.requests.length, sent);
    await api.close();
  });
});
