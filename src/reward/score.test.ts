// The scorer: failing rewards are counted, named and survived; loops in modules are killed; order never changes.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { RetortError } from '../errors.js';
import { defineTask } from '../task/define.js';
import { loadTask } from '../task/load.js';
import { makeTask } from '../task/registry.js';
import type { Score } from '../task/task.js';
import { findReward, loadReward, rewardNames } from './load.js';
import { defineReward, type Reward } from './reward.js';
import { openScorer, type RewardFailure } from './score.js';

const folder = mkdtempSync(join(tmpdir(), 'retort-reward-'));
after(() => rmSync(folder, { recursive: true }));
function moduleFile(name: string, source: string): string {
  const path = join(folder, name);
  writeFileSync(path, source);
  return path;
}

const echo = defineTask<{ n: number }>({
  name: 'echo',
  make: (random) => ({ n: random.integer(0, 99) }),
  prompt: ({ n }) => String(n),
  gold: ({ n }) => String(n),
});
const items = (...completions: string[]) =>
  completions.map((completion) => ({ problem: { n: 1 }, completion }));
const right = '<answer>1</answer>';
const wrong = '<answer>2</answer>';

test('rewards of the task and others are weighted and summed', async () => {
  const length: Reward<{ n: number }> = { name: 'length', weight: 0.5, score: (_, text) => text.length };
  const weighted = { ...echo, rewardWeights: { answer: 2 } };
  const scorer = await openScorer({ task: weighted, rewards: [length] });
  assert.deepEqual(await scorer.scoreAll(items(right, wrong, 'no')), [
    { rewards: { answer: 1, length: 18 }, reward: 11, correct: true, failed: [] },
    { rewards: { answer: 0.1, length: 18 }, reward: 9.2, correct: false, failed: [] },
    { rewards: { answer: 0, length: 2 }, reward: 1, correct: false, failed: [] },
  ]);
  const other = await openScorer({
    task: weighted,
    rewards: [length],
    rewardWeights: { answer: 0, length: 1 },
  });
  assert.equal((await other.scoreAll(items(right)))[0].reward, 18);
  assert.deepEqual(await scorer.scoreAll([]), []);
});

test('the weight of a reward that is not there is refused, where the task tells its names', async () => {
  const unknown = (rewardWeights: Record<string, number>, task = echo) =>
    openScorer({ task, rewards: [{ name: 'length', score: () => 1 }], rewardWeights });
  await assert.rejects(
    unknown({ answer: 1, lenght: 2 }),
    /weight of an unknown reward: got "lenght"; the rewards are answer, length$/,
  );
  for (const scorer of [
    await unknown({ answer: 1, length: 2 }),
    await unknown({ rare: 1 }, { ...echo, rewardWeights: { rare: 2 } }),
    await unknown({ lenght: 2 }, { ...echo, score: () => Promise.reject(new Error('not now')) }),
  ])
    await scorer.close();
});

test('a reward that throws, rejects, hangs or gives no finite number scores 0, is named, counted and survived', async () => {
  const misbehave: Record<string, () => unknown> = {
    throws: () => {
      throw new TypeError('boom');
    },
    rejects: () => Promise.reject(new Error('later boom')),
    hangs: () => new Promise(() => {}),
    nan: () => Number.NaN,
    infinite: async () => Number.POSITIVE_INFINITY,
    text: () => '1',
    nothing: () => undefined,
    fine: () => 1,
  };
  const moody = { name: 'moody', score: (_: unknown, text: string) => misbehave[text]() } as Reward;
  const seen: RewardFailure[] = [];
  const scorer = await openScorer({
    task: echo,
    rewards: [moody as Reward<{ n: number }>],
    timeLimitSeconds: 0.2,
    onFailure: (failure) => seen.push(failure),
  });
  const names = Object.keys(misbehave);
  const scored = await scorer.scoreAll(items(...names));
  assert.deepEqual(
    seen.map(({ name, kind, index }) => [name, kind, names[index]]),
    [
      ['moody', 'threw', 'throws'],
      ['moody', 'threw', 'rejects'],
      ['moody', 'timed-out', 'hangs'],
      ['moody', 'not-finite', 'nan'],
      ['moody', 'not-finite', 'infinite'],
      ['moody', 'malformed', 'text'],
      ['moody', 'malformed', 'nothing'],
    ],
  );
  assert.match(seen[0].message, /TypeError: boom/);
  assert.equal(seen[1].item.completion, 'rejects');
  assert.equal(scorer.failures.get('moody'), 7);
  for (const [i, s] of scored.entries()) {
    const fine = names[i] === 'fine';
    assert.deepEqual(s.failed, fine ? [] : ['moody']);
    assert.deepEqual(s.rewards, { answer: 0, moody: fine ? 1 : 0 });
  }
});

test("a task's own score that fails as a whole or in one number is named too", async () => {
  const outcomes: Record<string, unknown> = {
    bad: { rewards: { a: Number.NaN, b: 1 }, correct: true },
    shapeless: 1,
    incomplete: { rewards: { a: 1 } },
    fine: { rewards: { a: 1, b: 1 }, correct: true },
  };
  const task = defineTask<{ n: number }>({
    name: 'frail',
    make: (random) => ({ n: random.integer(0, 99) }),
    prompt: () => '',
    score(_, text) {
      if (text === 'throws') throw new Error('no');
      return outcomes[text] as Score;
    },
  });
  const scorer = await openScorer({ task });
  const scored = await scorer.scoreAll(items('bad', 'shapeless', 'incomplete', 'throws', 'fine'));
  assert.deepEqual(
    scored.map((s) => s.failed),
    [['a'], ['frail'], ['frail'], ['frail'], []],
  );
  assert.deepEqual(scored[0], { rewards: { a: 0, b: 1 }, reward: 1, correct: true, failed: ['a'] });
  assert.deepEqual(scored[1], { rewards: {}, reward: 0, correct: false, failed: ['frail'] });
  assert.deepEqual(
    [...scorer.failures],
    [
      ['a', 1],
      ['frail', 3],
    ],
  );
});

test('results stand in the order of the items, and no more run at once than allowed', async () => {
  let running = 0;
  let most = 0;
  const slow: Reward<{ n: number }> = {
    name: 'slow',
    async score(_, text) {
      most = Math.max(most, ++running);
      // Later items are done sooner.
      await new Promise((resolve) => setTimeout(resolve, 12 - Number(text)));
      running--;
      return Number(text);
    },
  };
  const scorer = await openScorer({ task: echo, rewards: [slow], concurrency: 3 });
  const scored = await scorer.scoreAll(items(...Array.from({ length: 12 }, (_, i) => String(i))));
  assert.deepEqual(
    scored.map((s) => s.rewards.slow),
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
  );
  assert.equal(most, 3);
});

test('an endless loop in a module is killed, its worker replaced, and the run goes on', async () => {
  const path = moduleFile(
    'loops.mjs',
    `import { parentPort } from 'node:worker_threads';
    export const reward = { name: 'loops', weight: 2, score(problem, completion, context) {
      if (completion === 'loop') for (;;) {}
      if (completion === 'exit') process.exit(3);
      if (completion === 'throw') throw new RangeError('out');
      if (completion === 'function') return () => 1;
      if (completion === 'stray') parentPort.postMessage({ kind: 'value', value: 99 });
      if (completion === 'late') Promise.resolve().then(() => setTimeout(() => { throw new Error('late'); }, 1));
      return completion.length + problem.n + (context.tokenCount ?? 0);
    } };`,
  );
  const reward = (await loadReward(path)) as Reward<{ n: number }>;
  assert.equal(reward.name, 'loops');
  assert.equal(reward.weight, 2);
  const seen: RewardFailure[] = [];
  const scorer = await openScorer({
    task: echo,
    rewards: [reward],
    timeLimitSeconds: 1,
    onFailure: (failure) => seen.push(failure),
  });
  try {
    const completions = ['abc', 'loop', 'exit', 'throw', 'function', 'stray', 'late', 'abc', 'loop', 'abcd'];
    const scored = await scorer.scoreAll(items(...completions));
    assert.deepEqual(
      scored.map((s) => s.rewards.loops),
      [4, 0, 0, 0, 0, 6, 5, 4, 0, 5],
    );
    assert.deepEqual(
      seen.map(({ kind, index }) => [kind, completions[index]]),
      [
        ['timed-out', 'loop'],
        ['crashed', 'exit'],
        ['threw', 'throw'],
        ['threw', 'function'],
        ['timed-out', 'loop'],
      ],
    );
    assert.equal(scored[0].reward, 8);
    const [again] = await scorer.scoreAll([{ problem: { n: 5 }, completion: 'ab', tokenCount: 10 }]);
    assert.equal(again.rewards.loops, 17);
  } finally {
    await scorer.close();
  }
});

test('a task from a module: prompts here, scores in a worker, options to its factory', async () => {
  const path = moduleFile(
    'parity.mjs',
    `export const parity = ({ max = 9 } = {}) => ({
      name: 'parity', description: 'odd or even', options: { max }, template: 'terse', alphabet: '0123456789oden?v',
      problem: (split, index, seed) => ({ n: (2 * index + (split === 'train' ? 0 : 1)) % (max + 1) }),
      parseProblem: (json) => json,
      prompt: ({ n }) => n + '?',
      score({ n }, completion) {
        if (completion === 'loop') for (;;) {}
        const correct = completion === (n % 2 ? 'odd' : 'even');
        return { rewards: { right: correct ? 1 : 0 }, correct };
      },
      answerKey: (_, completion) => completion,
    });`,
  );
  const task = await loadTask(`${path}#parity`, { max: 99 });
  assert.deepEqual(task.options, { max: 99 });
  assert.equal(task.prompt(task.problem('heldout', 20, 0)), '41?');
  assert.deepEqual(task.module, { path, exportName: 'parity', options: { max: 99 } });
  const scorer = await openScorer({ task, timeLimitSeconds: 1 });
  try {
    const problem = { n: 41 };
    const scored = await scorer.scoreAll(
      ['odd', 'loop', 'even'].map((completion) => ({ problem, completion })),
    );
    assert.deepEqual(
      scored.map((s) => [s.correct, s.failed]),
      [
        [true, []],
        [false, ['parity']],
        [false, []],
      ],
    );
  } finally {
    await scorer.close();
  }
});

test('a mix with a task from a module: that one is scored in its worker, the other here', async () => {
  const tasks = ['multiply', { task: `${join(folder, 'parity.mjs')}#parity`, options: { max: 99 } }];
  const task = await loadTask('mix', { tasks });
  const scorer = await openScorer({ task, timeLimitSeconds: 1 });
  try {
    const scored = await scorer.scoreAll([
      { problem: { task: 'parity', problem: { n: 41 } }, completion: 'odd' },
      { problem: { task: 'parity', problem: { n: 41 } }, completion: 'loop' },
      { problem: { task: 'multiply', problem: { a: 2, b: 3 } }, completion: '<answer>6</answer>' },
    ]);
    assert.deepEqual(
      scored.map(({ correct, failed }) => [correct, failed]),
      [
        [true, []],
        [false, ['mix']],
        [true, []],
      ],
    );
  } finally {
    await scorer.close();
  }
});

test('modules that are missing, broken, TypeScript or without the export are refused', async () => {
  const refusal = (part: RegExp) => (e: unknown) =>
    e instanceof RetortError && e.code === 'bad-input' && part.test(e.message);
  await assert.rejects(loadTask('./no-such-task.js'), refusal(/no-such-task\.js.*there is no file/));
  await assert.rejects(loadTask('./task.ts'), refusal(/TypeScript.*compile it first/));
  const broken = moduleFile('broken.mjs', 'export const task = {');
  await assert.rejects(loadTask(broken), refusal(/broken\.mjs.*SyntaxError/));
  const two = moduleFile('two.mjs', 'export const a = 1; export const b = 2;');
  await assert.rejects(loadTask(two), refusal(/no export.*"task".*exports a, b/));
  await assert.rejects(loadTask(`${two}#c`), refusal(/no export.*"c"/));
  await assert.rejects(loadTask(`${two}#a`), refusal(/needs a name and a function score/));
  const partial = moduleFile('partial.mjs', `export const task = { name: 'p', score() {} };`);
  await assert.rejects(loadTask(partial), refusal(/lacks problem, parseProblem, prompt, answerKey/));
  const fixed = moduleFile(
    'fixed.mjs',
    `export const task = { name: 'p', score() {}, problem() {}, parseProblem() {},
    prompt() {}, answerKey() {}, alphabet: '' };`,
  );
  await assert.rejects(loadTask(fixed, { max: 3 }), refusal(/without options/));
  assert.equal((await loadTask(fixed)).name, 'p');
  assert.equal((await loadTask('countdown', { count: 4 })).options.count, 4);
});

test('wrong options of the scorer and of rewards are refused', async () => {
  const refusal = (part: RegExp) => (e: unknown) => e instanceof RetortError && part.test(e.message);
  const one: Reward<{ n: number }> = { name: 'one', score: () => 1 };
  await assert.rejects(openScorer({ task: echo, concurrency: 0 }), refusal(/concurrency/));
  await assert.rejects(openScorer({ task: echo, timeLimitSeconds: Number.NaN }), refusal(/timeLimitSeconds/));
  await assert.rejects(openScorer({ task: echo, rewards: [one, one] }), refusal(/two rewards.*"one"/));
  await assert.rejects(
    openScorer({ task: echo, rewardWeights: { one: Number.NaN } }),
    refusal(/weight.*one/),
  );
  const clash = await openScorer({ task: echo, rewards: [{ ...one, name: 'answer' }] });
  await assert.rejects(clash.scoreAll(items(right)), refusal(/"answer".*rename/));
  assert.throws(() => defineReward({ name: 'a b', score: () => 1 }), refusal(/name of a reward/));
  assert.throws(() => defineReward({ name: 'a', score: 1 as never }), refusal(/score of reward a/));
  assert.throws(
    () => defineReward({ name: 'a', weight: Number.NaN, score: () => 1 }),
    refusal(/weight of reward a/),
  );
});

test('shipped rewards by name', async () => {
  const task = makeTask('letter-count');
  for (const name of rewardNames()) {
    const reward = await findReward(name, { maxTokens: 100, task }, 0.25);
    assert.equal(reward.name, name);
    assert.equal(reward.weight, 0.25);
    assert.ok(
      Number.isFinite(
        await reward.score(task.problem('train', 0, 0), '<think></think><answer></answer>', {
          tokenCount: 10,
        }),
      ),
    );
  }
  await assert.rejects(findReward('thinkformat', { maxTokens: 9, task }), /unknown reward.*think-format/);
});

test('a module prints to standard error, and a scorer left open does not keep the process', () => {
  const path = moduleFile(
    'prints.mjs',
    `export const reward = (_, text) => { console.log('printed'); return text.length; };`,
  );
  const at = (file: string) => JSON.stringify(new URL(file, import.meta.url).href);
  const program = `
    import { loadReward } from ${at('./load.js')};
    import { openScorer } from ${at('./score.js')};
    import { makeTask } from ${at('../task/registry.js')};
    const task = makeTask('chain-sum');
    const scorer = await openScorer({ task, rewards: [await loadReward(${JSON.stringify(path)})] });
    const [{ rewards }] = await scorer.scoreAll([{ problem: { terms: [1, 2] }, completion: '<answer>3</answer>' }]);
    console.log(JSON.stringify(rewards));`;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(child.stdout, '{"answer":1,"reward":18}\n');
  assert.equal(child.stderr, 'printed\n');
  assert.equal(child.status, 0);
});
