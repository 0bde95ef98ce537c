// The loops as a library: supervised learning, GRPO with its variants, rewards that fail, checkpoints that are damaged.
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { echo, makeEchoBase, tiny } from '../../test/support/echo.js';
import { finish } from '../../test/support/finish.js';
import { openSafetensors } from '../checkpoint/safetensors.js';
import { createDevice, Device } from '../compute/device/device.js';
import { RetortError } from '../errors.js';
import { defineReward } from '../reward/reward.js';
import { type GrpoInput, type GrpoStep, type GrpoSummary, grpo } from './grpo.js';
import { learningRateAt } from './schedule.js';
import {
  pretrain,
  type SupervisedInput,
  type SupervisedStep,
  type SupervisedSummary,
  sft,
} from './supervised.js';

const folder = mkdtempSync(join(tmpdir(), 'retort-train-'));
const device = createDevice({ threads: 2 });
after(async () => {
  await device.close();
  rmSync(folder, { recursive: true, force: true });
});

const learn = (input: SupervisedInput) =>
  finish<SupervisedStep, SupervisedSummary>(
    sft({ device, ...(input.model ? { batchTokens: tiny.batchTokens } : tiny), ...input }),
  );

let base: string | null = null;
async function echoBase(): Promise<string> {
  if (base) return base;
  const save = join(folder, 'echo-base');
  await makeEchoBase(save, { device });
  base = save;
  return save;
}

const reinforce = async (input: Partial<GrpoInput>) =>
  finish<GrpoStep, GrpoSummary>(
    grpo({
      device,
      model: await echoBase(),
      task: echo,
      steps: 3,
      batchSize: 32,
      numGenerations: 8,
      maxCompletionLength: 12,
      learningRate: 2e-3,
      evalProblems: 5,
      ...input,
    }),
  );

test('schedules: warm-up, then constant, linear or cosine down to the rest', () => {
  const o = { learningRate: 1, warmupSteps: 4, minLearningRateRatio: 0.1 };
  const at = (schedule: 'constant' | 'linear' | 'cosine', step: number) =>
    learningRateAt(step, 24, { ...o, schedule });
  assert.deepEqual(
    [0, 1, 3].map((s) => at('linear', s)),
    [0.25, 0.5, 1],
  );
  assert.equal(at('constant', 23), 1);
  for (const schedule of ['linear', 'cosine'] as const) {
    assert.equal(at(schedule, 4), 1);
    assert.ok(Math.abs(at(schedule, 23) - 0.1) < 1e-12);
  }
  assert.ok(at('cosine', 8) > at('linear', 8));
});

test('sft learns, and counts what it reads', async () => {
  const { steps, result } = await learn({
    task: 'number-sort',
    steps: 120,
    learningRate: 4e-3,
    warmupSteps: 5,
    context: 96,
  });
  assert.ok(
    steps[119].metrics.loss < 0.7 * steps[0].metrics.loss,
    `${steps[0].metrics.loss} to ${steps[119].metrics.loss}`,
  );
  assert.ok(result.evalLoss !== null && Math.abs(result.evalLoss - steps[119].metrics.loss) < 0.5);
  assert.equal(result.tokens, steps[119].metrics.num_tokens);
});

test('micro-batches that are accumulated give the gradient of one big batch', async () => {
  const data = join(folder, 'pairs.jsonl');
  const lines = Array.from({ length: 40 }, (_, i) =>
    JSON.stringify({ prompt: `${i}?`, completion: String((i * 37) % 1000).repeat(1 + (i % 3)) }),
  );
  writeFileSync(data, lines.join('\n'));
  const tokenizer = await echoBase();
  const run = async (batchTokens: number, gradientAccumulationSteps: number) => {
    const save = join(folder, `accumulate-${batchTokens}`);
    const o = {
      data,
      tokenizer,
      template: 'raw',
      steps: 1,
      batchTokens,
      gradientAccumulationSteps,
      save,
      warmupSteps: 0,
    };
    const { steps } = await learn(o);
    const { loss, grad_norm, num_tokens } = steps[0].metrics;
    return { loss, gradNorm: grad_norm, tokens: num_tokens };
  };
  // 20 passes of 12 tokens take up what one of 240 does.
  const [one, many] = [await run(240, 1), await run(12, 20)];
  assert.ok(Math.abs(one.tokens - many.tokens) <= 24);
  const [big, cut] = [await run(120, 2), one];
  assert.equal(big.tokens, cut.tokens);
  assert.ok(Math.abs(big.loss - cut.loss) < 1e-5 * cut.loss);
  assert.ok(Math.abs(big.gradNorm - cut.gradNorm) < 1e-5 * cut.gradNorm, `${big.gradNorm}, ${cut.gradNorm}`);
});

test('pretraining reads text and learns it', async () => {
  const data = join(folder, 'text.txt');
  writeFileSync(data, '0123456789?'.repeat(60));
  const { steps } = await finish(
    pretrain({
      device,
      ...tiny,
      data,
      tokenizer: await echoBase(),
      steps: 150,
      learningRate: 5e-3,
      warmupSteps: 5,
    }),
  );
  assert.ok(steps[149].metrics.loss < 0.5, `${steps[149].metrics.loss}`);
  assert.ok(steps[149].metrics.epoch > 0);
});

test('epochs end where the data ends', async () => {
  const data = join(folder, 'few.jsonl');
  writeFileSync(
    data,
    Array.from({ length: 9 }, (_, i) => JSON.stringify({ prompt: `${i}?`, completion: `${i}` })).join('\n'),
  );
  const { steps } = await learn({
    data,
    tokenizer: await echoBase(),
    template: 'raw',
    epochs: 2,
    batchTokens: 10,
  });
  assert.ok((steps.at(-1)?.metrics.epoch ?? 0) >= 2);
  assert.ok((steps.at(-2)?.metrics.epoch ?? 9) < 2);
});

test('grpo: a model gets better at what is rewarded', async () => {
  const { steps, result } = await reinforce({ steps: 25, batchSize: 64 });
  const mean = (part: GrpoStep[]) => part.reduce((sum, s) => sum + s.metrics.accuracy, 0) / part.length;
  assert.ok(
    mean(steps.slice(-5)) > mean(steps.slice(0, 3)) + 0.2,
    `${mean(steps.slice(0, 3))} to ${mean(steps.slice(-5))}`,
  );
  assert.ok(result.after && result.before && result.tokens > 0);
  // The sampler's numbers are the trainer's.
  for (const { metrics } of steps) assert.ok(metrics['sampling/sampling_logp_difference/mean'] < 1e-4);
});

const TRL = [
  'num_tokens',
  'step_time',
  'completions/mean_length',
  'completions/min_length',
  'completions/max_length',
  'completions/mean_terminated_length',
  'completions/clipped_ratio',
  'rewards/answer/mean',
  'rewards/answer/std',
  'reward',
  'reward_std',
  'frac_reward_zero_std',
  'entropy',
  'kl',
  'loss',
  'grad_norm',
  'learning_rate',
  'clip_ratio/region_mean',
  'clip_ratio/low_mean',
  'clip_ratio/high_mean',
  'sampling/sampling_logp_difference/mean',
  'sampling/importance_sampling_ratio/mean',
];

const variants: [string, Partial<GrpoInput>][] = [
  ...(['grpo', 'bnpo', 'dr_grpo', 'dapo'] as const).map((lossType): [string, Partial<GrpoInput>] => [
    lossType,
    { lossType },
  ]),
  ['GSPO', { lossType: 'grpo', importanceSamplingLevel: 'sequence', minibatches: 2, epsilonHigh: 4e-4 }],
  ['RLOO', { advantageEstimator: 'rloo', lossType: 'dr_grpo', dynamicSampling: 'none' }],
  ['entropy bonus', { entropyCoef: 0.05 }],
  ['batch-scaled', { scaleRewards: 'batch', dynamicSampling: 'none' }],
  [
    'unscaled, two passes, two-sided clip',
    { scaleRewards: 'none', numIterations: 2, minibatches: 2, delta: 1.5, epsilonHigh: 0.28 },
  ],
  ['KL with a refreshed reference', { beta: 0.04, refModelSyncSteps: 2, refModelMixupAlpha: 0.6 }],
  [
    'masked, resampled',
    { maskTruncatedCompletions: true, maxCompletionLength: 4, dynamicSampling: 'resample' },
  ],
  ['truncated sampling', { topK: 5, topP: 0.9, minP: 0.01, temperature: 1.3, stop: ['</answer>'] }],
];
for (const [name, options] of variants) {
  test(`grpo ${name}: runs, and logs TRL's metrics`, async () => {
    const { steps } = await reinforce(options);
    assert.equal(steps.length, 3);
    for (const { metrics } of steps) {
      for (const key of TRL)
        assert.ok(Number.isFinite(metrics[key]) || key.endsWith('std'), `${key}: ${metrics[key]}`);
    }
    if (options.beta) assert.ok(steps[1].metrics.kl > 0);
    if (options.stop) assert.ok(steps[0].samples.every((s) => !s.completion.text.includes('</answer>')));
  });
}

test('grpo cispo: runs, logs how many ratios are clipped, and nothing of a region', async () => {
  const { steps } = await reinforce({
    lossType: 'cispo',
    numIterations: 3,
    epsilonHigh: 1,
    learningRate: 4e-3,
  });
  for (const { metrics } of steps) {
    assert.ok(Number.isFinite(metrics.loss) && !('clip_ratio/region_mean' in metrics));
    assert.ok(metrics.cispo_clip_ratio > 0 && metrics.cispo_clip_ratio < 1, `${metrics.cispo_clip_ratio}`);
  }
});

test('grpo entropy bonus: the loss is the policy loss less the bonus, and the policy stays more uncertain', async () => {
  const o = { steps: 12, dynamicSampling: 'none', evalEnds: false } as const;
  const { steps: with_ } = await reinforce({ ...o, entropyCoef: 0.5 });
  const { steps: without } = await reinforce(o);
  const { loss, policy_loss, entropy } = with_[0].metrics;
  assert.ok(Math.abs(policy_loss - 0.5 * entropy - loss) < 1e-5, `${loss}, ${policy_loss}, ${entropy}`);
  assert.ok(!('policy_loss' in without[0].metrics));
  assert.ok(with_[11].metrics.entropy > 1.2 * without[11].metrics.entropy);
});

test('a ratio for each completion with another loss than grpo: allowed, but said', async () => {
  const warnings: string[] = [];
  const o = { importanceSamplingLevel: 'sequence', steps: 1, evalEnds: false } as const;
  await reinforce({ ...o, warn: (m) => warnings.push(m) });
  assert.match(warnings.join(), /lossType dapo weighs a completion by its length; .* lossType grpo/);
  await reinforce({ ...o, lossType: 'grpo', warn: assert.fail });
});

test('rewards that throw, hang or give NaN are counted and named, their samples learn nothing, the run goes on', async () => {
  const bad = [
    defineReward({ name: 'throws', score: (_, c) => (c.includes('1') ? fail() : 0.5) }),
    defineReward({ name: 'hangs', score: (_, c) => (c.includes('2') ? new Promise<number>(() => {}) : 0) }),
    defineReward({ name: 'nan', score: (_, c) => (c.includes('3') ? Number.NaN : 0) }),
  ];
  const told: string[] = [];
  const { steps, result } = await reinforce({
    rewards: bad,
    rewardTimeout: 0.2,
    rewardWeights: { answer: 2, throws: 0.5 },
    onRewardFailure: ({ name, kind }) => told.push(`${name} ${kind}`),
  });
  assert.equal(steps.length, 3);
  for (const kind of ['throws threw', 'hangs timed-out', 'nan not-finite'])
    assert.ok(told.includes(kind), kind);
  for (const name of ['throws', 'hangs', 'nan']) assert.ok(result.rewardFailures[name] > 0, name);
  const samples = steps.flatMap((s) => s.samples);
  assert.ok(samples.some((s) => s.scored.failed.length > 0));
  for (const s of samples) if (s.scored.failed.length > 0) assert.equal(s.advantage, 0);
  const weighed = samples.find((s) => s.scored.failed.length === 0 && s.scored.correct);
  assert.ok(weighed && Math.abs(weighed.scored.reward - (2 + 0.25)) < 1e-9);
});

test('a completion whose reward failed is in no update, nor in the means of that reward', async () => {
  const odd = defineReward({ name: 'odd', score: (_, c) => (c.length % 2 ? Number.NaN : 1) });
  // Terms that an advantage of 0 does not silence.
  const o = { dynamicSampling: 'none', beta: 0.1, entropyCoef: 0.1, evalEnds: false, steps: 1 } as const;
  const { steps, result } = await reinforce({ ...o, rewards: [odd] });
  const [{ samples, metrics }] = steps;
  const known = samples.filter((s) => s.scored.failed.length === 0);
  assert.ok(known.length > 0 && known.length < samples.length);
  const lengths = known.map(({ completion: c }) => c.promptIds.length + c.ids.length);
  assert.equal(
    result.trainedTokens,
    lengths.reduce((sum, n) => sum + n, 0),
  );
  assert.equal(metrics['rewards/odd/mean'], 1);
  assert.equal(metrics.reward_failures, samples.length - known.length);

  const none = defineReward({ name: 'none', score: () => Number.NaN });
  const failed = await reinforce({ ...o, rewards: [none] });
  assert.equal(failed.result.trainedTokens, 0);
  assert.deepEqual([failed.steps[0].metrics.grad_norm, failed.steps[0].metrics.loss], [0, 0]);
  assert.ok(!('rewards/none/mean' in failed.steps[0].metrics));
});

function fail(): never {
  throw new Error('on purpose');
}

test('a gradient that is not a number stops the run with a clear error, or is skipped and counted', async () => {
  const model = join(folder, 'wild');
  const o = {
    task: echo,
    steps: 3,
    learningRate: 1,
    warmupSteps: 0,
    schedule: 'constant',
    maxGradNorm: 1e30,
  } as const;
  // Weights of this size make the logits overflow.
  await learn({ ...o, steps: 1, save: model });
  const path = join(model, 'model.safetensors');
  const bytes = readFileSync(path);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  for (let at = start; at < bytes.length; at += 4) bytes.writeFloatLE(1e30, at);
  writeFileSync(path, bytes);
  await assert.rejects(
    learn({ ...o, model }),
    (e) => e instanceof RetortError && e.code === 'numerics' && /step 1/.test(e.message),
  );
  const warnings: string[] = [];
  const { steps } = await learn({ ...o, model, onNonFinite: 'skip', warn: (m) => warnings.push(m) });
  assert.equal(
    steps.reduce((n, s) => n + (s.metrics.skipped_updates ?? 0), 0),
    3,
  );
  assert.equal(warnings.length, 3);
});

test('a damaged checkpoint is passed over with a warning; without any the error says so', async () => {
  const out = join(folder, 'damaged');
  const o = { task: echo, steps: 6, saveEvery: 2, keepLast: 9, seed: 4 } as const;
  await learn({ ...o, out });
  const weights = (step: number) => join(out, 'checkpoints', `step-${step}`, 'model.safetensors');
  const last = readFileSync(weights(6));
  truncateSync(weights(6), 1000);
  const warnings: string[] = [];
  await learn({ ...o, resume: out, warn: (m) => warnings.push(m) });
  assert.match(warnings.join(), /step 6 cannot be read/);
  assert.deepEqual(readFileSync(weights(6)), last);
  for (const step of [0, 2, 4, 6]) truncateSync(weights(step), 1000);
  await assert.rejects(
    learn({ ...o, resume: out, warn: () => {} }),
    (e) => e instanceof RetortError && /no readable checkpoint/.test(e.message),
  );
});

test('a run stops at a signal with a checkpoint, and ends after resuming as if it had not', async () => {
  const o = { task: echo, steps: 8, seed: 5 } as const;
  const whole = join(folder, 'whole');
  await learn({ ...o, out: whole });
  const stopped = join(folder, 'stopped');
  const controller = new AbortController();
  const loop = sft({ device, ...tiny, ...o, out: stopped, signal: controller.signal });
  await loop.next();
  await loop.next();
  controller.abort();
  await assert.rejects(
    loop.next(),
    (e) =>
      e instanceof RetortError && e.code === 'interrupted' && e.message.includes(`retort resume ${stopped}`),
  );
  await learn({ ...o, resume: stopped });
  const weights = (dir: string) => readFileSync(join(dir, 'checkpoints', 'step-8', 'model.safetensors'));
  assert.deepEqual(weights(stopped), weights(whole));
});

test('an API that scoring cannot do without costs no step that was done, and the run ends as if it had not failed', async () => {
  const o = { steps: 4, seed: 6, saveEvery: 0, evalEnds: false } as const;
  const whole = join(folder, 'judged');
  await reinforce({ ...o, out: whole });
  const out = join(folder, 'judge-gone');
  let scored = 0;
  const gone = {
    ...echo,
    score(problem: { digit: number }, completion: string) {
      if (++scored > 2 * 32) throw new RetortError('network', 'the judge is gone');
      return echo.score(problem, completion);
    },
  };
  await assert.rejects(reinforce({ ...o, task: gone, out }), /the judge is gone/);
  assert.ok(existsSync(join(out, 'checkpoints', 'step-2')));
  await reinforce({ ...o, resume: out });
  const weights = (dir: string) => readFileSync(join(dir, 'checkpoints', 'step-4', 'model.safetensors'));
  assert.deepEqual(weights(out), weights(whole));
});

test('an API that a measurement within the run cannot do without costs the measurement and nothing else', async () => {
  const o = { steps: 4, seed: 6, saveEvery: 0, evalEnds: false, evalEvery: 2, evalProblems: 4 } as const;
  const whole = join(folder, 'measured');
  await reinforce({ ...o, out: whole });
  const out = join(folder, 'unmeasured');
  let measuring = false;
  const gone = {
    ...echo,
    score(problem: { digit: number }, completion: string) {
      if (measuring) throw new RetortError('network', 'the judge is gone');
      return echo.score(problem, completion);
    },
  };
  const onProgress = (stage: string) => {
    measuring = stage === 'evaluation at step 2';
  };
  await assert.rejects(reinforce({ ...o, task: gone, out, onProgress }), /the judge is gone/);
  await reinforce({ ...o, resume: out });
  const weights = (dir: string) => readFileSync(join(dir, 'checkpoints', 'step-4', 'model.safetensors'));
  assert.deepEqual(weights(out), weights(whole));
  const metrics = (dir: string) => {
    const lines = readFileSync(join(dir, 'metrics.jsonl'), 'utf8').trim().split('\n');
    return lines.map((line) => JSON.parse(line) as Record<string, number>);
  };
  assert.deepEqual(
    metrics(out).map(({ step, reward }) => [step, reward]),
    metrics(whole).map(({ step, reward }) => [step, reward]),
  );
  assert.deepEqual(
    metrics(out).map((m) => 'eval/pass1' in m),
    [false, false, false, true],
  );
});

test('a run that another process writes to is refused, the lock of one that is gone is not', async () => {
  const out = join(folder, 'locked');
  const o = { task: echo, steps: 2 } as const;
  await learn({ ...o, out });
  writeFileSync(join(out, 'lock.json'), JSON.stringify({ pid: 1, start: null }));
  const start = readFileSync('/proc/1/stat', 'utf8').split(') ')[1].split(' ')[19];
  writeFileSync(join(out, 'lock.json'), JSON.stringify({ pid: 1, start }));
  // What that process is about to put in place.
  const next = join(out, 'checkpoints', 'step-9.new.tmp');
  mkdirSync(next);
  await assert.rejects(
    learn({ ...o, resume: out }),
    (e) => e instanceof RetortError && /written by process 1/.test(e.message),
  );
  assert.ok(existsSync(next));
  writeFileSync(join(out, 'lock.json'), JSON.stringify({ pid: 2 ** 22 + 1, start: null }));
  await learn({ ...o, resume: out });
  assert.ok(!existsSync(next));
});

test('options that cannot be are refused before anything is made', async () => {
  const out = join(folder, 'never');
  const cases: [Partial<GrpoInput>, RegExp][] = [
    [{ numGenerations: 1 }, /numGenerations.*got 1.*at least 2/],
    [{ batchSize: 33 }, /batchSize with numGenerations 8: got 33; it must be a multiple: 32/],
    [{ minibatches: 3 }, /minibatches of 4 groups: got 3/],
    [{ lossType: 'cispo', delta: 2 }, /delta with lossType cispo: got 2; leave it out/],
    [{ lossType: 'cispo', epsilon: 0.1 }, /epsilon with lossType cispo: got 0.1; leave it out/],
    [{ lossType: 'cispo', epsilonHigh: 0.28 }, /epsilonHigh with lossType cispo: got 0.28; give 1 or more/],
    [
      { advantageEstimator: 'rloo', scaleRewards: 'group' },
      /scaleRewards with advantageEstimator rloo: got "group"/,
    ],
    [{ entropyCoef: -1 }, /entropyCoef/],
    [{ importanceSamplingLevel: 'word' as 'token' }, /importanceSamplingLevel/],
    [{ learningRate: 0 }, /learningRate/],
    [{ learningRate: -1 }, /learningRate/],
    [{ maxCompletionLength: 1000 }, /maxCompletionLength: got 1000; .*context is 32/],
    [{ model: join(folder, 'nowhere') }, /nowhere/],
    [{ task: 'countdwn' }, /did you mean countdown/],
    [{ ...({ bathSize: 3 } as object) }, /got "bathSize"; there is no such option; did you mean batchSize\?/],
    [{ ...({ task: undefined } as object) }, /option task of grpo: got undefined/],
  ];
  for (const [options, message] of cases) {
    await assert.rejects(
      reinforce({ ...options, out }),
      (e) => e instanceof RetortError && message.test(e.message),
      `${message}`,
    );
  }
  await assert.rejects(learn({ task: echo, data: 'x.jsonl', out }), /either a task or data/);
  await assert.rejects(learn({ out }), /either a task or data/);
  assert.throws(() => openSafetensors(join(out, 'checkpoints', 'step-0', 'model.safetensors')));
  assert.ok(device instanceof Device);
});
