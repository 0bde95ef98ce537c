// PPO as a library: it learns, with a critic of every kind; what is logged; what is kept; what is refused.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { COUNTDOWN_BASE } from '../../test/support/cli.js';
import { echo, makeEchoBase } from '../../test/support/echo.js';
import { finish } from '../../test/support/finish.js';
import { openSafetensors } from '../checkpoint/safetensors.js';
import { createDevice } from '../compute/device/device.js';
import { RetortError } from '../errors.js';
import { releaseRun } from '../publish/release.js';
import { defineReward } from '../reward/reward.js';
import { type PpoInput, type PpoStep, type PpoSummary, ppo } from './ppo.js';

const folder = mkdtempSync(join(tmpdir(), 'retort-ppo-'));
const device = createDevice({ threads: 2 });
const base = join(folder, 'echo-base');
const small = join(folder, 'echo-small');
const made = Promise.all([
  makeEchoBase(base, { device }).then(() =>
    makeEchoBase(small, { device, dModel: 16, layers: 1, steps: 30 }),
  ),
]);
after(async () => {
  await device.close();
  rmSync(folder, { recursive: true, force: true });
});

const reinforce = async (input: Partial<PpoInput> = {}) => {
  await made;
  return finish<PpoStep, PpoSummary>(
    ppo({
      device,
      model: base,
      task: echo,
      steps: 3,
      batchSize: 32,
      maxCompletionLength: 12,
      learningRate: 2e-3,
      numPpoEpochs: 2,
      numMiniBatches: 2,
      lam: 1,
      klCoef: 0.01,
      evalProblems: 5,
      ...input,
    }),
  );
};

const accuracy = (steps: readonly PpoStep[]) =>
  steps.reduce((sum, s) => sum + s.metrics.accuracy, 0) / steps.length;

const learners: readonly [string, Partial<PpoInput>][] = [
  ['a critic of its own', {}],
  ['the trunk shared', { sharedTrunk: true }],
  ['a critic from another model, warmed up', { criticModel: small, criticWarmupSteps: 3, lam: 0.95 }],
];
for (const [name, options] of learners)
  test(`a model gets better at what is rewarded: ${name}`, async () => {
    const { steps, result } = await reinforce({ steps: 20, batchSize: 64, device: undefined, ...options });
    const [first, last] = [accuracy(steps.slice(0, 3)), accuracy(steps.slice(-5))];
    assert.ok(last > first + 0.2, `${first} to ${last}`);
    assert.ok(result.after && result.before && result.tokens > 0);
    const valueLoss = steps.map((s) => s.metrics['loss/value_avg']);
    assert.ok((valueLoss.at(-1) as number) < 0.5 * valueLoss[0], `${valueLoss}`);
    // In the end all is right, and there is no variance left to explain.
    const explained = Math.max(...steps.map((s) => s.metrics['val/explained_variance']));
    assert.ok(options.sharedTrunk || explained > 0.1, `the critic explains ${explained}`);
    // The sampler's numbers are the trainer's.
    const learned = steps.slice(options.criticWarmupSteps ?? 0);
    for (const { metrics } of learned) assert.ok(metrics['sampling/sampling_logp_difference/mean'] < 1e-4);
    const { memory, criticMemory } = result;
    assert.ok(memory.reference.peak > 0);
    const policy = memory.parameters.peak - criticMemory.parameters;
    const share = criticMemory.parameters / policy;
    if (options.sharedTrunk) assert.equal(criticMemory.parameters, 4 * 32);
    else assert.ok(options.criticModel ? share < 0.4 : share > 0.8 && share < 1.1, `${share}`);
    const { trained, generated } = result.operations;
    // Each completion is valued once and learned from twice, by the policy and by a critic of its own.
    const ratio = trained / generated;
    const [least, most] = options.sharedTrunk ? [5, 9] : options.criticModel ? [5, 12] : [10, 20];
    assert.ok(ratio > least && ratio < most, `${ratio}`);
    assert.equal(criticMemory.optimizer, 2 * criticMemory.parameters);
  });

const TRL = [
  'eps',
  'objective/kl',
  'objective/entropy',
  'objective/non_score_reward',
  'objective/rlhf_reward',
  'objective/scores',
  'policy/approxkl_avg',
  'policy/clipfrac_avg',
  'loss/policy_avg',
  'loss/value_avg',
  'val/clipfrac_avg',
  'policy/entropy_avg',
  'val/ratio',
  'val/ratio_var',
  'val/num_eos_tokens',
  'lr',
  'episode',
];

const variants: readonly [string, Partial<PpoInput>][] = [
  ['k3, everything whitened', { klEstimator: 'k3', klCoef: 0.2, whitenRewards: true }],
  ['nothing whitened, several a problem', { whitenAdvantages: false, numGenerations: 4 }],
  ['clip-higher, entropy bonus', { cliprangeHigh: 0.3, entropyCoef: 0.01, gamma: 0.99, lam: 0.9 }],
  [
    'shared, checkpointing, small passes',
    { sharedTrunk: true, gradientCheckpointing: true, microBatchTokens: 40 },
  ],
];
for (const [name, options] of variants)
  test(`${name}: runs, and logs TRL's metrics`, async () => {
    const { steps } = await reinforce({ ...options, evalEnds: false });
    assert.equal(steps.length, 3);
    for (const { metrics } of steps)
      for (const key of TRL) assert.ok(Number.isFinite(metrics[key]), `${key}: ${metrics[key]}`);
    const [first, , last] = steps;
    assert.equal(first.metrics['objective/kl'], 0, 'the policy begins at the reference');
    assert.notEqual(last.metrics['objective/kl'], 0);
    if (options.klEstimator === 'k3') assert.ok(last.metrics['objective/kl'] > 0);
    assert.equal(last.metrics.episode, 96);
    const { metrics } = last;
    const sum = metrics['objective/non_score_reward'] + metrics['objective/scores'];
    assert.ok(Math.abs(metrics['objective/rlhf_reward'] - sum) < 1e-12);
    const prompts = new Set(first.samples.map((s) => s.completion.request));
    assert.equal(prompts.size, 32 / (options.numGenerations ?? 1));
  });

test('without a price of the KL there is no reference', async () => {
  const { steps, result } = await reinforce({ klCoef: 0, evalEnds: false, device: undefined });
  assert.equal(result.memory.reference.peak, 0);
  assert.ok(!('objective/kl' in steps[2].metrics));
  assert.equal(steps[2].metrics['objective/non_score_reward'], 0);
});

test('a completion that is cut pays the penalty for its missing end', async () => {
  const o = { maxCompletionLength: 3, steps: 1, evalEnds: false } as const;
  const { steps } = await reinforce({ ...o, missingEosPenalty: 2 });
  const { metrics, samples } = steps[0];
  const cut = samples.filter((s) => s.completion.finishReason === 'length').length;
  assert.ok(cut > 0);
  assert.ok(Math.abs(metrics.reward - metrics['objective/scores'] - (2 * cut) / samples.length) < 1e-9);
  assert.equal(metrics['val/num_eos_tokens'], samples.length - cut);
});

test('while the critic warms up the policy stays as it is; then both move', async () => {
  const out = join(folder, 'warm');
  await reinforce({ criticWarmupSteps: 2, saveEvery: 1, keepLast: 9, evalEnds: false, out });
  const file = (step: number, name: string) =>
    readFileSync(join(out, 'checkpoints', `step-${step}`, `${name}.safetensors`));
  for (const [before, after, policyMoves] of [
    [0, 1, false],
    [1, 2, false],
    [2, 3, true],
  ] as const) {
    assert.equal(!file(before, 'model').equals(file(after, 'model')), policyMoves, `step ${after}`);
    assert.ok(!file(before, 'critic').equals(file(after, 'critic')), `step ${after}`);
  }
  const lines = readFileSync(join(out, 'metrics.jsonl'), 'utf8').trim().split('\n');
  const rows = lines.map((line) => JSON.parse(line) as Record<string, number>);
  assert.deepEqual(
    rows.map((row) => 'loss/policy_avg' in row),
    [false, false, true],
  );
});

test('a critic goes on from the checkpoint of another run', async () => {
  const out = join(folder, 'first');
  await reinforce({ evalEnds: false, out });
  const criticModel = join(out, 'checkpoints', 'step-3');
  const again = join(folder, 'second');
  await reinforce({ criticModel, steps: 1, evalEnds: false, out: again });
  const read = (dir: string) => {
    const opened = openSafetensors(join(dir, 'critic.safetensors'));
    const values = new Float32Array(32);
    opened.read('score.weight', values);
    opened.close();
    return values;
  };
  assert.deepEqual(read(join(again, 'checkpoints', 'step-0')), read(criticModel));
  assert.ok(read(criticModel).some((x) => x !== 0));
  const shared = join(folder, 'shared');
  await reinforce({ sharedTrunk: true, steps: 1, evalEnds: false, out: shared });
  await assert.rejects(
    reinforce({ criticModel: join(shared, 'checkpoints', 'step-1') }),
    (e) => e instanceof RetortError && /output of its policy/.test(e.message),
  );
});

test('a run is released like any other: the policy, without its critic', async () => {
  const out = join(folder, 'countdown');
  const o = { model: COUNTDOWN_BASE, task: 'countdown', steps: 1, batchSize: 4, evalEnds: false } as const;
  await finish(ppo({ device, ...o, maxCompletionLength: 20, lam: 0.99, out }));
  const release = join(folder, 'release');
  const { files } = releaseRun({ run: out, out: release });
  assert.ok(files.includes('model.safetensors') && !files.some((name) => name.startsWith('critic')));
  const card = readFileSync(join(release, 'README.md'), 'utf8');
  assert.match(
    card,
    /retort ppo --model countdown-base --task countdown --steps 1 --batch-size 4 .*--lam 0\.99/,
  );
});

test('a stop at a signal: resumed, policy, critic and both optimizers end as if it had not been', async () => {
  await made;
  const o = { steps: 5, seed: 3, evalEnds: false, saveEvery: 0 } as const;
  const whole = join(folder, 'whole');
  await reinforce({ ...o, out: whole });
  const stopped = join(folder, 'stopped');
  const controller = new AbortController();
  const told: number[] = [];
  await assert.rejects(
    reinforce({
      ...o,
      out: stopped,
      signal: controller.signal,
      onProgress: (stage) => {
        told.push(1);
        if (stage === 'step 3: rollouts') controller.abort();
      },
    }),
    (e) => e instanceof RetortError && e.code === 'interrupted',
  );
  assert.ok(told.length > 0);
  await reinforce({ ...o, resume: stopped });
  for (const name of ['model', 'optimizer', 'critic', 'critic-optimizer', 'reference']) {
    const file = (dir: string) => readFileSync(join(dir, 'checkpoints', 'step-5', `${name}.safetensors`));
    assert.deepEqual(file(stopped), file(whole), name);
  }
});

test('a reward that fails is counted, and its completion is not learned from', async () => {
  const bad = defineReward({
    name: 'bad',
    score: (_, c) => {
      if (c.includes('1')) throw new Error('on purpose');
      return 0;
    },
  });
  const { steps, result } = await reinforce({ rewards: [bad], evalEnds: false });
  assert.ok(result.rewardFailures.bad > 0);
  const samples = steps.flatMap((s) => s.samples);
  for (const s of samples) assert.equal('advantages' in s, s.scored.failed.length === 0);
  assert.ok(samples.some((s) => 'advantages' in s));
  const none = defineReward({ name: 'none', score: () => Number.NaN });
  const failed = await reinforce({ rewards: [none], evalEnds: false, steps: 1 });
  assert.equal(failed.steps[0].metrics['loss/value_avg'], 0);
  assert.equal(failed.result.trainedTokens, 0);
  const some = defineReward({ name: 'some', score: (_, c) => (c.includes('1') ? Number.NaN : 1) });
  const half = await reinforce({ rewards: [some], evalEnds: false, steps: 1 });
  assert.ok(half.result.rewardFailures.some > 0);
  assert.equal(half.steps[0].metrics['rewards/some/mean'], 1, 'a failure is no reward of 0');
});

test('an API that scoring cannot do without costs no step that was done', async () => {
  const out = join(folder, 'judge-gone');
  let scored = 0;
  const gone = {
    ...echo,
    score(problem: { digit: number }, completion: string) {
      if (++scored > 2 * 32) throw new RetortError('budget', 'the judge is paid no more');
      return echo.score(problem, completion);
    },
  };
  await assert.rejects(reinforce({ task: gone, saveEvery: 0, evalEnds: false, out }), /paid no more/);
  assert.ok(existsSync(join(out, 'checkpoints', 'step-2', 'critic.safetensors')));
});

test('options that cannot be are refused before anything is made', async () => {
  const out = join(folder, 'never');
  const other = join(folder, 'other-alphabet');
  await made;
  await makeEchoBase(other, { device, steps: 1, task: 'number-sort', context: 96 });
  const short = join(folder, 'short');
  await makeEchoBase(short, { device, steps: 1, context: 28 });
  const cases: [Partial<PpoInput>, RegExp][] = [
    [
      { batchSize: 30, numGenerations: 4 },
      /batchSize with numGenerations 4: got 30; it must be a multiple: 32/,
    ],
    [{ numMiniBatches: 5 }, /batchSize with numMiniBatches 5: got 32; .* 30/],
    [{ criticWarmupSteps: 3 }, /criticWarmupSteps of 3 steps: got 3; give less/],
    [{ sharedTrunk: true, criticModel: small }, /criticModel with sharedTrunk/],
    [{ sharedTrunk: true, criticWarmupSteps: 1 }, /criticWarmupSteps with sharedTrunk: got 1; leave it out/],
    [{ klEstimator: 'k2' as 'k1' }, /klEstimator/],
    [{ cliprange: 1 }, /cliprange.*got 1/],
    [{ cliprangeValue: 0 }, /cliprangeValue.*got 0/],
    [{ vfCoef: 0 }, /vfCoef.*got 0/],
    [{ lam: 1.5 }, /lam.*got 1.5/],
    [{ gamma: -1 }, /gamma.*got -1/],
    [{ missingEosPenalty: -1 }, /missingEosPenalty.*got -1/],
    [{ maxCompletionLength: 1000 }, /maxCompletionLength: got 1000; .*context is 32/],
    [{ criticModel: join(folder, 'nowhere') }, /nowhere/],
    [{ criticModel: other }, /another vocabulary/],
    [{ criticModel: short }, /context of the critic .*: got 28; the policy's is 32/],
    [{ ...({ numEpochs: 3 } as object) }, /got "numEpochs"; there is no such option/],
  ];
  for (const [options, message] of cases)
    await assert.rejects(
      reinforce({ ...options, out }),
      (e) => e instanceof RetortError && message.test(e.message),
      `${message}`,
    );
});
