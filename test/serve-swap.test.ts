// A new checkpoint under load: nobody is dropped, each answer is one model's, the old one's memory comes back.
import assert from 'node:assert/strict';
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';
import { createRun } from '../src/checkpoint/run-folder.js';
import { temporaryFolder } from './support/cli.js';
import { writeScriptedModel } from './support/scripted.js';
import { serve } from './support/server.js';

const script = (version: number) => ({
  'who?': { pieces: [`model ${version}`] },
  'ever?': { pieces: [`${version} on `, 'and '], loop: true },
});

function point(link: string, target: string): void {
  symlinkSync(target, `${link}.new`);
  renameSync(`${link}.new`, link);
}

test('swaps while clients stream: answers of one model each, none lost, memory comes back', {
  timeout: 120_000,
}, async (t) => {
  const dir = temporaryFolder(t);
  for (const version of [1, 2, 3])
    writeScriptedModel(join(dir, `v${version}`), script(version), { context: 2048 });
  const link = join(dir, 'model');
  point(link, join(dir, 'v1'));
  const lines: string[] = [];
  const server = await serve({ models: [{ name: 'm', dir: link }], say: (line) => lines.push(line) });
  t.after(() => server.end());
  const client = new OpenAI({ baseURL: server.base, apiKey: 'none', maxRetries: 0 });
  const ask = (content: string, more: object = {}) =>
    client.chat.completions.create({
      model: 'm',
      messages: [{ role: 'user', content }],
      temperature: 0,
      ...more,
    });
  const bytes = async () =>
    Number(/^retort_device_bytes (\d+)$/m.exec(await (await fetch(`${server.url}/metrics`)).text())?.[1]);
  const first = await ask('who?');
  assert.equal(first.choices[0].message.content, 'model 1');
  const before = await bytes();

  let stop = false;
  /** Answers by version since the last swap. */
  let seen: Record<string, number> = {};
  const clients = Array.from({ length: 12 }, async () => {
    while (!stop) {
      const { choices } = await ask('ever?', { max_tokens: 400 });
      const text = choices[0].message.content ?? '';
      const version = text[0];
      assert.ok(text === `${version} on and `.repeat(200), `one model from beginning to end: ${text}`);
      seen[version] = (seen[version] ?? 0) + 1;
    }
  });
  const failed = Promise.all(clients).then(() => false as const);
  const clientsSaw = async (version: number) => {
    while (!seen[version]) await Promise.race([failed, sleep(5)]);
  };
  const long = await client.chat.completions.create({
    ...{ model: 'm', messages: [{ role: 'user', content: 'ever?' }], temperature: 0, max_tokens: 2000 },
    stream: true,
  });
  const pieces = long[Symbol.asyncIterator]();
  let text = (await pieces.next()).value?.choices[0].delta.content ?? '';
  await clientsSaw(1);
  for (const version of [2, 3, 1, 2]) {
    point(link, join(dir, `v${version}`));
    assert.deepEqual(await server.reload(), ['m']);
    seen = {};
    assert.equal((await ask('who?')).choices[0].message.content, `model ${version}`);
    await clientsSaw(version);
  }
  assert.deepEqual(await server.reload(), [], 'nothing changed');
  stop = true;
  await Promise.all(clients);
  for (let next = await pieces.next(); !next.done; next = await pieces.next())
    text += next.value.choices[0].delta.content ?? '';
  assert.ok(text === '1 on and '.repeat(1000), `begun on the first model, ended as ${text.slice(-20)}`);
  const last = await ask('who?');
  assert.notEqual(last.system_fingerprint, first.system_fingerprint);
  // The thread frees a model after the last answer that it gave; where it never does, the test's time ends.
  while ((await bytes()) > 1.1 * before) await sleep(20);

  point(link, join(dir, 'nothing'));
  assert.deepEqual(await server.reload(), []);
  assert.match(lines.at(-1) ?? '', /model m stays as it was: .*config\.json/);
  assert.equal((await ask('who?')).choices[0].message.content, 'model 2');
});

test('a run serves its newest checkpoint', async (t) => {
  const dir = temporaryFolder(t);
  const run = join(dir, 'run');
  createRun(run, {});
  const checkpoint = (step: number) => {
    mkdirSync(join(run, 'checkpoints'), { recursive: true });
    writeScriptedModel(join(run, `checkpoints/step-${step}`), script(step));
    writeFileSync(join(run, `checkpoints/step-${step}/state.json`), '{}');
  };
  await assert.rejects(serve({ models: [{ name: 'm', dir: join(dir, 'none') }] }), /config\.json/);
  checkpoint(5);
  const server = await serve({ models: [{ name: 'm', dir: run }] });
  t.after(() => server.end());
  const client = new OpenAI({ baseURL: server.base, apiKey: 'none', maxRetries: 0 });
  const who = async () =>
    (await client.chat.completions.create({ model: 'm', messages: [{ role: 'user', content: 'who?' }] }))
      .choices[0].message.content;
  assert.equal(await who(), 'model 5');
  checkpoint(10);
  rmSync(join(run, 'checkpoints/step-5'), { recursive: true });
  assert.deepEqual(await server.reload(), ['m']);
  assert.equal(await who(), 'model 10');
});
