// Distillation over HTTP: from `retort serve` of another model, and from a server that fails as APIs do, with the run killed
// in the middle. Nothing is lost, nothing is paid twice, the budget is kept.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeTask } from '../src/task/registry.js';
import { lastJson, retort, temporaryFolder } from './support/cli.js';
import { type FakeApiOptions, type FakeBehaviour, fakeApi } from './support/fake-api.js';
import { runEnd } from './support/kills.js';
import { serveScripts } from './support/server.js';

const task = makeTask('countdown', {});
const PROBLEMS = 12;
const problems = Array.from({ length: PROBLEMS }, (_, i) => task.problem('train', i, 0));
const prompts = problems.map((p) => task.prompt(p));
const golds = problems.map((p) => task.gold?.(p) as string);

const TINY = ['--d-model', '16', '--layers', '1', '--heads', '2', '--context', '96', '--threads', '1'];
const args = (endpoint: string, teacher: string) => [
  ...[
    'distill',
    '--teacher',
    teacher,
    '--endpoint',
    endpoint,
    '--terms-allow-training',
    '--task',
    'countdown',
  ],
  ...[
    ...TINY,
    '--problems',
    `${PROBLEMS}`,
    '--max-completion-length',
    '60',
    '--steps',
    '3',
    '--eval-problems',
    '4',
  ],
];
const readLines = (path: string) =>
  readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, never>);

test('a model served by retort serve teaches over HTTP: thoughts, filter, provenance', async (t) => {
  const cwd = temporaryFolder(t);
  const answerOf = (i: number) => (i === 3 ? '1' : golds[i]);
  const scripts = Object.fromEntries(
    prompts.map((prompt, i) => [
      prompt,
      { pieces: [`<think>${i}+0=${i}</think><answer>${answerOf(i)}</answer>`] },
    ]),
  );
  assert.equal(Object.keys(scripts).length, PROBLEMS, 'different problems');
  const server = await serveScripts(scripts);
  try {
    const ran = await retort([...args(server.base, 'scripted'), '--out', 'run', '--json'], { cwd });
    assert.equal(ran.status, 0, ran.stderr);
    const summary = lastJson(ran) as {
      answers: { answers: number; kept: number; dropped: object };
      api: { answers: number };
    };
    assert.deepEqual(
      { answers: summary.answers.answers, kept: summary.answers.kept, dropped: summary.answers.dropped },
      { answers: PROBLEMS, kept: PROBLEMS - 1, dropped: { wrong: 1 } },
    );
    assert.equal(summary.api.answers, PROBLEMS);
    const lines = readLines(join(cwd, 'run', 'data.jsonl'));
    const kept = prompts.map((_, i) => i).filter((i) => i !== 3);
    assert.deepEqual(
      lines.map(({ prompt, completion }) => ({ prompt, completion })),
      kept.map((i) => ({
        prompt: prompts[i],
        completion: `<think>${i}+0=${i}</think><answer>${golds[i]}</answer>`,
      })),
      'the thought stands where the template has thoughts',
    );
    const origin = lines[0].origin as Record<string, unknown>;
    assert.equal(origin.endpoint, server.base);
    assert.equal(origin.model, 'scripted');
    assert.equal(origin.termsAllowTraining, true);
    assert.deepEqual(origin.parameters, { max_tokens: 60, temperature: 1, top_p: 1 });
    assert.ok(!Number.isNaN(Date.parse(origin.date as string)));
    assert.ok((origin.usage as { output: number }).output > 0);
    // The data set is one that sft takes.
    const sft = await retort(
      [
        'sft',
        '--data',
        'run/data.jsonl',
        '--template',
        'terse',
        '--steps',
        '1',
        '--tokenizer',
        'run/checkpoints/step-3',
        ...TINY,
      ],
      { cwd },
    );
    assert.equal(sft.status, 0, sft.stderr);
  } finally {
    await server.end();
  }
});

const FAILURES: readonly FakeBehaviour[] = [
  { kind: 'status', status: 429, headers: { 'retry-after': '0' } },
  { kind: 'cut' },
  { kind: 'status', status: 500 },
  { kind: 'stall' },
  { kind: 'wrong-json' },
  { kind: 'reset' },
  { kind: 'cut', clean: true },
];

function teacherApi(behave: FakeApiOptions['behave']): FakeApiOptions {
  return {
    behave,
    delay: 15,
    reply({ messages }) {
      const i = prompts.indexOf(messages[messages.length - 1].content);
      return { reasoning: `${i}`, content: `<answer>${golds[i]}</answer>` };
    },
    usage: () => ({ input: 11, output: 30 }),
  };
}

test('from an API that fails in every way, killed in the middle: the same run, nothing paid twice', async (t) => {
  const cwd = temporaryFolder(t);
  const sound = await fakeApi(teacherApi(undefined));
  // Every second call fails, by another way each time.
  const failing = await fakeApi(
    teacherApi((n) => (n % 2 === 0 ? (FAILURES[n / 2] ?? { kind: 'answer' }) : { kind: 'answer' })),
  );
  const more = ['--idle-timeout', '0.5', '--concurrency', '2', '--json'];
  try {
    const whole = await retort([...args(sound.endpoint, 'm'), ...more, '--out', 'whole'], { cwd });
    assert.equal(whole.status, 0, whole.stderr);
    let command = [...args(failing.endpoint, 'm'), ...more, '--out', 'killed'];
    for (const target of [3, 9]) {
      const ran = await retort(command, {
        cwd,
        onStart(child) {
          const watch = setInterval(() => {
            if (failing.requests.length >= target) child.kill('SIGKILL');
          }, 1);
          child.on('close', () => clearInterval(watch));
        },
      });
      assert.equal(ran.status, null, `killed, not ended: ${ran.stderr}`);
      command = ['resume', 'killed', '--json'];
    }
    const resumed = await retort(command, { cwd });
    assert.equal(resumed.status, 0, resumed.stderr);
    const texts = (run: string) =>
      readLines(join(cwd, run, 'data.jsonl')).map(({ prompt, completion }) => [prompt, completion]);
    assert.equal(texts('whole').length, PROBLEMS);
    assert.deepEqual(texts('killed'), texts('whole'), 'nothing lost');
    assert.deepEqual(runEnd(join(cwd, 'killed'), 3), runEnd(join(cwd, 'whole'), 3));
    // Calls under way when a kill came may be answered and billed in vain: two at a time, two kills.
    const twice = [...failing.billed.values()].reduce((n, times) => n + times - 1, 0);
    assert.ok(twice <= 4, `${twice} paid twice`);
    const { api } = lastJson(resumed) as { api: Record<string, number> };
    assert.ok(twice <= api.unanswered, 'and each of those is counted');
    assert.ok(api.inputTokens + api.outputTokens >= failing.tokens(), 'at least what was billed');
  } finally {
    await Promise.all([sound.close(), failing.close()]);
  }
});

test('the budget ends the run before it is passed; a larger one with the same answers pays only for the rest', async (t) => {
  const cwd = temporaryFolder(t);
  const server = await fakeApi(teacherApi(undefined));
  const run = (out: string, budget: number) =>
    retort(
      [
        ...args(server.endpoint, 'm'),
        '--answers',
        'paid.jsonl',
        '--max-api-tokens',
        `${budget}`,
        '--out',
        out,
        '--json',
      ],
      { cwd },
    );
  try {
    const poor = await run('poor', 700);
    assert.equal(poor.status, 2);
    assert.match(
      poor.stderr,
      /the budget does not allow a further call: \d+ of 700 tokens used; give a larger one/,
    );
    assert.match(poor.stderr, /retort resume RUN --max-cost or --max-api-tokens/);
    assert.ok(server.tokens() <= 700 && server.tokens() > 0, `${server.tokens()} tokens`);
    const priced = await retort(['resume', 'poor', '--max-cost', '5'], { cwd });
    assert.match(priced.stderr, /maxCost for this run: got 5; it began without such a budget/);
    const goes = await retort(['resume', 'poor', '--max-api-tokens', '100000', '--json'], { cwd });
    assert.equal(goes.status, 0, goes.stderr);
    assert.equal(server.tokens(), PROBLEMS * 41);
    const rich = await run('rich', 100_000);
    assert.equal(rich.status, 0, rich.stderr);
    assert.equal(server.tokens(), PROBLEMS * 41);
    assert.equal((lastJson(rich) as { api: { outputTokens: number } }).api.outputTokens, PROBLEMS * 30);
  } finally {
    await server.close();
  }
});

test('a changed model name stops the run and is named; what was answered is kept', async (t) => {
  const cwd = temporaryFolder(t);
  const server = await fakeApi(teacherApi((n) => ({ kind: 'answer', model: n < 5 ? 'm-1' : 'm-2' })));
  try {
    const command = [
      ...args(server.endpoint, 'm'),
      '--answers',
      'paid.jsonl',
      '--concurrency',
      '1',
      '--json',
    ];
    const ran = await retort([...command, '--out', 'a'], { cwd });
    assert.equal(ran.status, 2);
    assert.match(ran.stderr, /answered as "m-2".*at first as "m-1".*allowModelChange/);
    const again = await retort([...command, '--out', 'b', '--allow-model-change'], { cwd });
    assert.equal(again.status, 0, again.stderr);
    assert.equal(server.requests.length, PROBLEMS, 'no answer was asked for twice');
  } finally {
    await server.close();
  }
});

test('without the declaration about terms nothing is asked', async (t) => {
  const cwd = temporaryFolder(t);
  const server = await fakeApi();
  try {
    const command = args(server.endpoint, 'm').filter((word) => word !== '--terms-allow-training');
    const ran = await retort([...command, '--out', 'run'], { cwd });
    assert.equal(ran.status, 2);
    assert.match(
      ran.stderr,
      /the terms of many providers forbid training models on their outputs.*--terms-allow-training/,
    );
    assert.equal(server.requests.length, 0);
    assert.equal(existsSync(join(cwd, 'run')), false);
  } finally {
    await server.close();
  }
});
