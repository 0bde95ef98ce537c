// kill -9 during load: what clients saw end is in the usage log once, with the same counts, whatever the moment.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { readUsage } from '../src/serve/usage-log.js';
import { lastJson, MAIN, retort, temporaryFolder } from './support/cli.js';
import { seeded } from './support/schemas.js';
import { writeScriptedModel } from './support/scripted.js';

/** 20 in runs/serve.sh. */
const KILLS = Number(process.env.RETORT_KILLS ?? 3);
const CLIENTS = 24;

interface Counts {
  readonly prompt: number;
  readonly completion: number;
}

/** One request; gives its id and counts once its end was seen, null where the server was gone before. */
function ask(url: string, stream: boolean, tokens: number): Promise<[string, Counts] | null> {
  const body = JSON.stringify({
    ...{ model: 'm', messages: [{ role: 'user', content: 'ever?' }], max_tokens: tokens, stream },
    ...(stream ? { stream_options: { include_usage: true } } : {}),
  });
  return new Promise((resolve) => {
    const headers = { 'content-type': 'application/json' };
    const request = httpRequest(`${url}/v1/chat/completions`, { method: 'POST', headers }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => {
        text += part;
      });
      response.on('error', () => resolve(null));
      response.on('end', () => {
        const last = stream ? text.split('\n\n').at(-3)?.slice('data: '.length) : text;
        if (stream && !text.endsWith('data: [DONE]\n\n')) return resolve(null);
        const { id, usage } = JSON.parse(last ?? '') as {
          id: string;
          usage: { prompt_tokens: number; completion_tokens: number };
        };
        resolve([id, { prompt: usage.prompt_tokens, completion: usage.completion_tokens }]);
      });
    });
    request.on('error', () => resolve(null));
    request.end(body);
  });
}

async function startProcess(cwd: string): Promise<{ child: ChildProcess; url: string }> {
  const args = [MAIN, 'serve', '--model', 'm=model', '--port', '0', '--json', '--price-output', '1'];
  const child = spawn(process.execPath, args, { cwd, stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout as NonNullable<ChildProcess['stdout']>, 'data')) as [Buffer];
  return { child, url: (JSON.parse(line.toString()) as { url: string }).url };
}

test(`${KILLS} kills during load: the log's sums are the clients' own`, async (t) => {
  const cwd = temporaryFolder(t);
  writeScriptedModel(join(cwd, 'model'), { 'ever?': { pieces: ['round ', 'and '], loop: true } });
  const random = seeded(11);
  const seen = new Map<string, Counts>();
  let unseen = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    const { child, url } = await startProcess(cwd);
    let killed = false;
    const client = async () => {
      while (!killed) {
        const found = await ask(url, random() < 0.5, 1 + Math.floor(random() * 60));
        if (found) seen.set(...found);
      }
    };
    const before = seen.size;
    const clients = Array.from({ length: CLIENTS }, client);
    while (seen.size < before + CLIENTS) await sleep(10);
    await sleep(random() * 400);
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    killed = true;
    await Promise.all([...clients, exited]);
    // What a kill in the middle of a write may leave.
    if (kill === 0)
      appendFileSync(join(cwd, '.retort/usage.jsonl'), '{"time":"2026-01-01T00:00:00.000Z","id":"half');
    const logged = [...readUsage(join(cwd, '.retort'))].filter((e) => e.outcome === 'done');
    const ids = new Set(logged.map((e) => e.id));
    assert.equal(ids.size, logged.length, 'nothing is counted twice');
    for (const [id, counts] of seen) {
      const entry = logged.find((e) => e.id === id);
      assert.ok(entry, `${id} is lost`);
      assert.deepEqual({ prompt: entry.promptTokens, completion: entry.completionTokens }, counts);
    }
    // Logged, and killed before the client had the last byte: the kill hit the moment between two system calls.
    unseen = logged.length - seen.size;
    assert.ok(unseen <= (kill + 1) * CLIENTS);
  }
  const { total } = lastJson<{ total: { requests: number; completionTokens: number } }>(
    await retort(['usage', '--json'], { cwd }),
  );
  const all = [...readUsage(join(cwd, '.retort'))];
  assert.equal(total.requests, all.length);
  t.diagnostic(`${seen.size} requests ended before their clients, ${unseen} more are in the log`);
});
