// retort chat: questions from a pipe, with a folder and with a server; commands; refusals.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { retort, temporaryFolder } from './support/cli.js';
import { writeScriptedModel } from './support/scripted.js';
import { serveScripts } from './support/server.js';

const SCRIPTS = {
  'think?': { pieces: ['<think>', 'let me see', '</think>', 'It is', ' 4.'] },
  'hello?': { pieces: ['hi ', 'there'] },
};

const type = (lines: readonly string[]) => ({ input: `${lines.join('\n')}\n` });

test('with a folder: answers, thoughts, commands', async (t) => {
  const cwd = temporaryFolder(t);
  writeScriptedModel(join(cwd, 'model'), SCRIPTS);
  const lines = [
    'think?',
    '/thoughts',
    'think?',
    '/retry',
    '/temperature 9',
    '/nothing',
    '/save talk.json',
    '/exit',
    'hello?',
  ];
  const { status, stdout, stderr } = await retort(['chat', '--model', 'model', '--system', 'be brief'], {
    cwd,
    ...type(lines),
  });
  assert.equal(status, 0, stderr);
  assert.equal(stdout, 'let me see\nIt is 4.\nIt is 4.\nIt is 4.\n');
  assert.match(stderr, /thoughts are hidden/);
  assert.match(stderr, /temperature: got "9"; give a number from 0 to 2/);
  assert.match(stderr, /no such command: \/nothing/);
  assert.deepEqual(JSON.parse(readFileSync(join(cwd, 'talk.json'), 'utf8')), [
    { role: 'system', content: 'be brief' },
    ...[1, 2].flatMap(() => [
      { role: 'user', content: 'think?' },
      { role: 'assistant', content: 'It is 4.' },
    ]),
  ]);
});

test('with a server; one that refuses, one that is not there', async (t) => {
  const server = await serveScripts(SCRIPTS);
  t.after(() => server.end());
  const { stdout } = await retort(['chat', '--model', server.url], type(['hello?']));
  assert.equal(stdout, 'hi there\n');
  const refused = await retort(
    ['chat', '--model', `${server.url}/v1/`, '--name', 'none'],
    type(['hello?', 'hello?']),
  );
  assert.equal(refused.status, 0);
  assert.match(refused.stderr, /the server refused \(404\): there is no model "none" here/);
  const nobody = await retort(['chat', '--model', 'http://127.0.0.1:9'], type(['hello?']));
  assert.equal(nobody.status, 2);
  assert.match(nobody.stderr, /cannot reach http:\/\/127\.0\.0\.1:9\/v1\/models/);
});

test('a server that breaks off: the conversation goes on', async (t) => {
  const piece = `data: ${JSON.stringify({ choices: [{ delta: { content: 'four' }, finish_reason: null }] })}\n\n`;
  let asked = 0;
  const server = createServer((request, response) => {
    if (request.method === 'GET') return response.end('{"data":[{"id":"m"}]}');
    asked++;
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    if (asked > 1) return response.end(`${piece}data: [DONE]\n\n`);
    return response.write(piece, () => setTimeout(() => response.destroy(), 50));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  t.after(() => server.close());
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const { status, stdout, stderr } = await retort(['chat', '--model', url], type(['2+2?', '2+2?']));
  assert.equal(status, 0, stderr);
  assert.equal(stdout, 'four\nfour\n');
  assert.match(stderr, /the answer broke off: .*; ask again/);
});

test('/retry asks what was asked last, also where no answer came; an answer stays until another has come', async (t) => {
  const cwd = temporaryFolder(t);
  const asked: string[] = [];
  const server = createServer(async (request, response) => {
    if (request.method === 'GET') return response.end('{"data":[{"id":"m"}]}');
    let body = '';
    for await (const part of request) body += part;
    const { messages } = JSON.parse(body) as { messages: { content: string }[] };
    asked.push(messages.map(({ content }) => content).join(' '));
    const broken = asked.length === 2 || asked.length === 4;
    if (broken) return response.writeHead(500).end('{"error":{"message":"no luck"}}');
    const piece = { choices: [{ delta: { content: `a${asked.length}` }, finish_reason: 'stop' }] };
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    return response.end(`data: ${JSON.stringify(piece)}\n\ndata: [DONE]\n\n`);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  t.after(() => server.close());
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const lines = ['/retry', 'q1', 'q2', '/retry', '/retry', '/save talk.json', '/clear', '/retry'];
  const { status, stdout, stderr } = await retort(['chat', '--model', url], { cwd, ...type(lines) });
  assert.equal(status, 0, stderr);
  assert.deepEqual(asked, ['q1', 'q1 a1 q2', 'q1 a1 q2', 'q1 a1 q2']);
  assert.equal(stdout, 'a1\na3\n');
  assert.equal(stderr.match(/there is no question yet/g)?.length, 2);
  assert.deepEqual(
    (JSON.parse(readFileSync(join(cwd, 'talk.json'), 'utf8')) as { content: string }[]).map((m) => m.content),
    ['q1', 'a1', 'q2', 'a3'],
  );
});
