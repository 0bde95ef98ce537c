// A mix: its proportions, its members' problems in their order, and what cannot be mixed.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openScorer } from '../reward/score.js';
import { defineTask } from './define.js';
import { type MixProblem, mixTasks } from './mix.js';
import { makeTask } from './registry.js';

const few = defineTask<{ n: number }>({
  name: 'few',
  problems: { train: [{ n: 1 }, { n: 2 }, { n: 3 }], heldout: [{ n: 4 }] },
  prompt: ({ n }) => `${n}=?`,
  gold: ({ n }) => String(n),
  template: 'terse',
});

test('problems keep the proportions, and a finite member is gone through evenly', () => {
  const mix = mixTasks([{ task: few, weight: 2 }, { task: makeTask('multiply') }]);
  const problems = Array.from({ length: 90 }, (_, i) => mix.problem('train', i, 5));
  for (let round = 0; round < 30; round++) {
    const names = problems.slice(3 * round, 3 * round + 3).map(({ task }) => task);
    assert.deepEqual(names.sort(), ['few', 'few', 'multiply']);
  }
  const counts = new Map<string, number>();
  for (const { task, problem } of problems)
    if (task === 'few') counts.set(JSON.stringify(problem), (counts.get(JSON.stringify(problem)) ?? 0) + 1);
  assert.deepEqual([...counts.values()], [20, 20, 20]);
  const own = problems.filter(({ task }) => task === 'multiply').map(({ problem }) => problem);
  assert.deepEqual(
    own,
    own.map((_, i) => makeTask('multiply').problem('train', i, 5)),
  );
});

test('each problem is asked, scored and sorted by its own task', async () => {
  const mix = makeTask('mix', {
    tasks: [{ task: 'chain-sum', options: { minTerms: 5, maxTerms: 5 }, weight: 3 }, 'multiply'],
  });
  for (let i = 0; i < 40; i++) {
    const p = mix.problem('heldout', i, 1) as MixProblem;
    const gold = mix.gold?.(p) as string;
    assert.equal((await mix.score(p, `<answer>${gold}</answer>`)).correct, true);
    assert.equal((await mix.score(p, `<answer>${gold}0</answer>`)).correct, false);
    assert.equal(mix.kind?.(p), p.task === 'multiply' ? 'multiply' : 'chain-sum 5 terms');
    assert.match(mix.prompt(p), p.task === 'multiply' ? /^\d+\*\d+=\?$/ : /^[\d+-]+=\?$/);
    assert.ok(mix.trace?.(p, i));
  }
});

test('a mix is scored through the scorer', async () => {
  const mix = mixTasks([{ task: few }, { task: makeTask('multiply') }]);
  const scorer = await openScorer({ task: mix });
  const items = Array.from({ length: 20 }, (_, i) => {
    const problem = mix.problem('train', i, 0);
    return { problem, completion: `<answer>${mix.gold?.(problem)}</answer>` };
  });
  assert.ok((await scorer.scoreAll(items)).every(({ correct }) => correct));
  await scorer.close();
});

test('a reward of any member can be weighted, one of none is refused', async () => {
  const brief = defineTask<{ n: number }>({
    name: 'brief',
    problems: { train: [{ n: 1 }], heldout: [{ n: 4 }] },
    prompt: ({ n }) => `${n}=?`,
    score: (_, text) => ({ rewards: { brevity: 10 - text.length }, correct: false }),
    template: 'terse',
  });
  const task = mixTasks([{ task: few }, { task: brief }]);
  const scorer = await openScorer({ task, rewardWeights: { brevity: 2, answer: 3 } });
  const scored = await scorer.scoreAll([
    { problem: { task: 'brief', problem: { n: 1 } }, completion: '1' },
    { problem: { task: 'few', problem: { n: 1 } }, completion: '<answer>1</answer>' },
  ]);
  assert.deepEqual(
    scored.map(({ reward }) => reward),
    [18, 3],
  );
  await scorer.close();
  await assert.rejects(
    openScorer({ task, rewardWeights: { brevty: 2 } }),
    /unknown reward: got "brevty"; the rewards are answer, brevity/,
  );
});

test('what does not go together is refused', () => {
  const mix = (tasks: unknown) => () => makeTask('mix', { tasks });
  assert.throws(mix('countdown'), /tasks of a mix: got 1; name two/);
  assert.throws(mix('countdown,countdown'), /two tasks of a mix have the name: got "countdown"/);
  assert.throws(mix('countdown,cuontdown'), /unknown task: got "cuontdown".*did you mean countdown/);
  assert.throws(
    mix([{ task: 'countdown', options: { wording: 'words' } }, 'multiply']),
    /countdown by the template r1, multiply by terse; give their options the same wording and trace/,
  );
  assert.throws(mix([{ task: 'countdown', weight: 0 }, 'multiply']), /option tasks.* of task mix/);
  const weighted = (weight: number, name: string) =>
    defineTask({
      name,
      make: (random) => ({ n: random.integer(0, 99) }),
      prompt: String,
      gold: () => '1',
      rewardWeights: { answer: weight },
    });
  assert.throws(
    () => mixTasks([{ task: weighted(1, 'a') }, { task: weighted(2, 'b') }]),
    /weight of reward answer in a mix: got 2/,
  );
});
