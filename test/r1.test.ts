// R1's pipeline as a program: its stages, its table, and kills in the middle of them.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { takeLock } from '../src/checkpoint/lock.js';
import { r1 } from '../src/train/r1.js';
import { COUNTDOWN_BASE, lastJson, retort, temporaryFolder } from './support/cli.js';
import { fakeApi } from './support/fake-api.js';
import { killedAt, runEnd, uninterrupted } from './support/kills.js';

const TASKS = ['chain-sum', 'number-sort'];
const RL = {
  steps: 4,
  batchSize: 16,
  numGenerations: 4,
  maxCompletionLength: 40,
  saveEvery: 2,
  learningRate: 1e-3,
};
const CONFIG = {
  base: 'base',
  out: 'unused',
  tasks: TASKS,
  evalProblems: 10,
  threads: 1,
  coldStart: { from: { tasks: TASKS, examples: 40 }, steps: 20, saveEvery: 10 },
  reasoning: { ...RL, curriculum: 'success' },
  rejection: { problems: 24, samples: 4, correct: false, maxCompletionLength: 40 },
  sft: { general: { tasks: ['chain-sum'], examples: 20 }, steps: 12, saveEvery: 5 },
  final: { ...RL, tasks: [{ task: 'multiply', options: { digits: 1 } }] },
};
const STAGES = {
  '1-cold-start': 20,
  '2-reasoning-rl': 4,
  '3-sft': 12,
  '4-rl': 4,
};

/** With a judge's endpoint, stage 4 has a task without a rule too. */
async function pipeline(cwd: string, endpoint?: string): Promise<void> {
  const tasks = JSON.stringify([...TASKS, 'multiply']);
  const base = await retort(
    [
      ...['sft', '--task', 'mix', '--task-option', `tasks=${tasks}`, '--d-model', '32', '--layers', '2'],
      ...['--heads', '2', '--batch-tokens', '512', '--threads', '1', '--steps', '30', '--save', 'base'],
    ],
    { cwd },
  );
  assert.equal(base.status, 0, base.stderr);
  const prompts = Array.from({ length: 40 }, (_, i) => JSON.stringify({ prompt: `${i}+1*2=?` }));
  writeFileSync(join(cwd, 'prompts.jsonl'), `${prompts.join('\n')}\n`);
  const api = { judge: 'grader', endpoint, priceInput: 1, priceOutput: 2, answers: 'judged.jsonl' };
  const judged = { task: 'judged', options: { prompts: 'prompts.jsonl', template: 'terse', ...api } };
  const tasks4 = endpoint ? [...CONFIG.final.tasks, judged] : CONFIG.final.tasks;
  writeFileSync(
    join(cwd, 'r1.json'),
    JSON.stringify({ ...CONFIG, final: { ...CONFIG.final, tasks: tasks4 } }),
  );
}

interface Stage {
  readonly name: string;
  readonly run: string | null;
  readonly model: string | null;
  readonly seconds?: number;
  readonly judging?: Readonly<Record<string, number>>;
  readonly accuracies: Readonly<Record<string, { readonly value: number; readonly ci95: readonly number[] }>>;
}

const stagesOf = (dir: string) =>
  (JSON.parse(readFileSync(join(dir, 'stages.json'), 'utf8')) as { stages: Stage[] }).stages;

test('four stages from the same base; killed and resumed they end the same', async (t) => {
  const cwd = temporaryFolder(t);
  const judge = await fakeApi({
    reply: ({ messages }) => ({ content: `SCORE: ${messages[1].content.length % 11}` }),
    usage: () => ({ input: 50, output: 5 }),
  });
  t.after(() => judge.close());
  await pipeline(cwd, judge.endpoint);
  const args = ['r1', '--config', 'r1.json'];
  const seconds = await uninterrupted(args, cwd, 'whole');
  const stages = stagesOf(join(cwd, 'whole'));
  assert.deepEqual(
    stages.map(({ name }) => name),
    ['base', 'cold start', 'reasoning RL', 'rejection sampling', 'SFT on what was kept', 'RL on all tasks'],
  );
  for (const { name, model, accuracies } of stages) {
    assert.equal(model === null, name === 'rejection sampling');
    const measured = model === null ? [] : [...TASKS, 'multiply'];
    assert.deepEqual(Object.keys(accuracies), measured);
    for (const { value, ci95 } of Object.values(accuracies)) assert.ok(ci95[0] <= value && value <= ci95[1]);
  }
  const { judging } = stages.at(-1) as Stage;
  assert.ok(judge.requests.length > 0);
  assert.equal(judging?.answers, judge.requests.length);
  assert.ok(Math.abs((judging?.cost as number) - (judge.requests.length * (50 + 2 * 5)) / 1e6) < 1e-9);
  const lines = readFileSync(join(cwd, 'whole/3-sft.jsonl'), 'utf8').trim().split('\n');
  const kept = readFileSync(join(cwd, 'whole/3-rejection-sampling/data.jsonl'), 'utf8').trim().split('\n');
  assert.ok(kept.length > 0);
  assert.deepEqual(lines.slice(0, kept.length), kept);
  assert.equal(lines.length, kept.length + 20);
  for (const line of lines) assert.ok(JSON.parse(line).origin);
  // The second SFT begins at the base, as in the paper.
  const sft = JSON.parse(readFileSync(join(cwd, 'whole/3-sft/config.json'), 'utf8')).config.options;
  assert.equal(sft.model, 'base');

  const moments = Array.from({ length: 4 }, () => 0.2 + 0.35 * Math.random() * seconds);
  const kills = await killedAt(args, cwd, 'killed', moments);
  for (const [stage, steps] of Object.entries(STAGES))
    assert.deepEqual(
      runEnd(join(cwd, 'killed', stage), steps),
      runEnd(join(cwd, 'whole', stage), steps),
      `${stage}, ${kills} kills after ${moments} s`,
    );
  const plain = (dir: string) =>
    stagesOf(join(cwd, dir)).map(({ seconds: _, judging: __, ...stage }) =>
      JSON.parse(JSON.stringify(stage).replaceAll(dir, '')),
    );
  assert.deepEqual(plain('killed'), plain('whole'));

  const again = await retort(['resume', 'whole', '--json'], { cwd });
  assert.equal(again.status, 0, again.stderr);
  assert.match(again.stderr, /the run whole is complete/);
});

test('R1-Zero: the base and rewards alone; the flags win over the file', async (t) => {
  const cwd = temporaryFolder(t);
  await pipeline(cwd);
  const ran = await retort(
    ['r1', '--config', 'r1.json', '--zero', '--out', 'zero', '--seed', '3', '--threads', '1', '--json'],
    { cwd },
  );
  assert.equal(ran.status, 0, ran.stderr);
  const { stages } = lastJson(ran) as { stages: Stage[] };
  assert.deepEqual(
    stages.map(({ name }) => name),
    ['base', 'R1-Zero'],
  );
  const { options } = JSON.parse(readFileSync(join(cwd, 'zero/zero/config.json'), 'utf8')).config;
  assert.deepEqual([options.seed, options.model], [2003, 'base']);
  assert.deepEqual(options.rewards, ['think-format']);
  assert.ok(!existsSync(join(cwd, 'zero/1-cold-start')));
});

test('what is wrong is named before anything is made', async (t) => {
  const cwd = temporaryFolder(t);
  await pipeline(cwd);
  const refused = async (change: object, message: RegExp) => {
    writeFileSync(join(cwd, 'bad.json'), JSON.stringify({ ...CONFIG, ...change }));
    const ran = await retort(['r1', '--config', 'bad.json', '--out', 'bad'], { cwd });
    assert.equal(ran.status, 2, ran.stderr);
    assert.match(ran.stderr, message);
    assert.ok(!existsSync(join(cwd, 'bad')));
  };
  await refused({ base: 'nothing' }, /nothing/);
  await refused({ coldStart: undefined }, /coldStart of r1.*--zero/);
  await refused(
    { reasoning: { batchSize: 10, numGenerations: 4 } },
    /batchSize with numGenerations 4: got 10/,
  );
  await refused({ reasoning: { colour: 1 } }, /colour/);
  await refused({ reasoning: { evalEnds: true } }, /evalEnds.*the pipeline sets it: leave it out/);
  await refused({ final: { ...CONFIG.final, learningRate: 7 } }, /learningRate.*got 7/);
  await refused({ tasks: ['chain-sum', 'cuontdown'] }, /did you mean countdown/);
  await refused({ coldStart: { from: { tasks: [] } } }, /coldStart\.from of r1/);
  const none = await retort(['r1', '--config', 'none.json'], { cwd });
  assert.equal(none.status, 2);
  assert.match(none.stderr, /none\.json/);
});

test('a pipeline that another process writes to is refused, and left as it is', async (t) => {
  const out = temporaryFolder(t);
  writeFileSync(join(out, 'config.json'), '{"format":"retort-run/1","config":{}}');
  const next = join(out, 'stages.json.new.tmp');
  writeFileSync(next, '{');
  const unlock = takeLock(join(out, 'lock.json'), 'x');
  const coldStart = { from: { tasks: ['countdown'] } };
  const loop = r1({ base: COUNTDOWN_BASE, out, resume: out, tasks: ['countdown'], coldStart });
  await assert.rejects(loop.next(), /the pipeline .* is being written by process/);
  assert.ok(existsSync(next));
  unlock();
});
