// A run that is killed at random moments and resumed ends as one that was never interrupted, bit for bit.
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { lastJson, retort, temporaryFolder } from './support/cli.js';
import { killedAt, runEnd, uninterrupted, whenThere } from './support/kills.js';

const TINY = ['--d-model', '32', '--layers', '2', '--heads', '2', '--batch-tokens', '512'];
const SFT = ['sft', '--task', 'number-sort', ...TINY, '--threads', '1', '--seed', '3', '--save-every', '5'];
const GRPO = [
  ...['grpo', '--model', 'base', '--task', 'number-sort', '--batch-size', '16', '--num-generations', '4'],
  ...['--max-completion-length', '40', '--save-every', '2', '--eval-problems', '8', '--threads', '1'],
  ...['--beta', '0.02', '--learning-rate', '1e-3', '--eval-every', '3'],
];
const PPO = [
  ...['ppo', '--model', 'base', '--task', 'number-sort', '--batch-size', '16', '--num-ppo-epochs', '2'],
  ...[
    '--num-mini-batches',
    '2',
    '--max-completion-length',
    '40',
    '--save-every',
    '2',
    '--eval-problems',
    '8',
  ],
  ...['--threads', '1', '--kl-coef', '0.02', '--learning-rate', '1e-3', '--critic-warmup-steps', '3'],
];
// A learning rule that no two runs share unless the rewards are journalled.
const LUCK = 'export const reward = { name: "luck", score: () => Math.random() };\n';

async function makeBase(cwd: string): Promise<void> {
  const ran = await retort([...SFT, '--steps', '5', '--save', 'base'], { cwd });
  assert.equal(ran.status, 0, ran.stderr);
}

/** Random moments for two kills: within the run, and from a little after the start of its resumption. */
function momentsWithin(seconds: number): number[] {
  return [Math.random() * seconds, 0.3 + Math.random() * 0.6 * seconds];
}

test('sft: killed and resumed, the same weights', async (t) => {
  const cwd = temporaryFolder(t);
  const args = [...SFT, '--steps', '60'];
  const seconds = await uninterrupted(args, cwd, 'whole');
  const wanted = runEnd(join(cwd, 'whole'), 60);
  const moments = momentsWithin(seconds);
  await killedAt(args, cwd, 'killed', moments);
  assert.deepEqual(runEnd(join(cwd, 'killed'), 60), wanted, `killed after ${moments} s`);
});

test('grpo: killed and resumed, the same weights', async (t) => {
  const cwd = temporaryFolder(t);
  await makeBase(cwd);
  const args = [...GRPO, '--steps', '8'];
  const seconds = await uninterrupted(args, cwd, 'whole');
  const wanted = runEnd(join(cwd, 'whole'), 8);
  const moments = momentsWithin(seconds);
  await killedAt(args, cwd, 'killed', moments);
  assert.deepEqual(runEnd(join(cwd, 'killed'), 8), wanted, `killed after ${moments} s`);
});

for (const shared of [false, true])
  test(`ppo, trunk ${shared ? 'shared' : "the critic's own"}: killed and resumed, the same policy and critic`, async (t) => {
    const cwd = temporaryFolder(t);
    await makeBase(cwd);
    const trunk = shared ? ['--critic-warmup-steps', '0', '--shared-trunk'] : [];
    const args = [...PPO, ...trunk, '--steps', '8'];
    const seconds = await uninterrupted(args, cwd, 'whole');
    const wanted = runEnd(join(cwd, 'whole'), 8);
    assert.deepEqual(Object.keys(wanted.tensors).sort(), [
      'critic-optimizer.safetensors',
      'critic.safetensors',
      'model.safetensors',
      'optimizer.safetensors',
      'reference.safetensors',
    ]);
    const moments = momentsWithin(seconds);
    await killedAt(args, cwd, 'killed', moments);
    assert.deepEqual(runEnd(join(cwd, 'killed'), 8), wanted, `killed after ${moments} s`);
  });

test('grpo with random rewards: what was journalled before a kill is what the run learns from', async (t) => {
  const cwd = temporaryFolder(t);
  await makeBase(cwd);
  writeFileSync(join(cwd, 'luck.mjs'), LUCK);
  const args = [...GRPO, '--steps', '8', '--rewards', './luck.mjs'];
  const kills = await killedAt(args, cwd, 'killed', momentsWithin(1.2));
  // The same rewards, never interrupted: a run that finds the whole journal and no checkpoint.
  mkdirSync(join(cwd, 'whole'));
  for (const name of ['config.json', 'journal.jsonl']) {
    cpSync(join(cwd, 'killed', name), join(cwd, 'whole', name));
  }
  const whole = await retort(['resume', 'whole', '--json'], { cwd });
  assert.equal(whole.status, 0, whole.stderr);
  assert.equal(lastJson(whole).steps, 8);
  assert.deepEqual(runEnd(join(cwd, 'killed'), 8), runEnd(join(cwd, 'whole'), 8), `${kills} kills`);
});

test('ctrl-c: a checkpoint, how to resume, status 130, and the same weights in the end', async (t) => {
  const cwd = temporaryFolder(t);
  await makeBase(cwd);
  const args = [...GRPO, '--steps', '8'];
  await uninterrupted(args, cwd, 'whole');
  const ran = await retort([...args, '--out', 'stopped'], {
    cwd,
    onStart: (child) => {
      child.stderr?.on('data', (text: string) => {
        if (/^step \d/m.test(text)) child.kill('SIGINT');
      });
    },
  });
  assert.equal(ran.status, 130, ran.stderr);
  assert.match(ran.stderr, /stopped after step \d+; go on with: retort resume stopped/);
  const resumed = await retort(['resume', 'stopped'], { cwd });
  assert.equal(resumed.status, 0, resumed.stderr);
  assert.deepEqual(runEnd(join(cwd, 'stopped'), 8), runEnd(join(cwd, 'whole'), 8));
  // On another target the last bits may differ, and the user is told.
  const config = join(cwd, 'whole/config.json');
  writeFileSync(
    config,
    readFileSync(config, 'utf8')
      .replace('"fusedMulAdd": ', '"fusedMulAdd": !')
      .replace('!true', 'false')
      .replace('!false', 'true'),
  );
  rmSync(join(cwd, 'whole/summary.json'));
  const elsewhere = await retort(['resume', 'whole'], { cwd });
  assert.equal(elsewhere.status, 0, elsewhere.stderr);
  assert.match(elsewhere.stderr, /may differ in the last bits/);
  assert.doesNotMatch(resumed.stderr, /last bits/);
  const again = await retort(['resume', 'stopped'], { cwd });
  assert.equal(again.status, 0);
  assert.match(again.stderr, /the run stopped is complete/);
  assert.equal(again.stdout, resumed.stdout);
});

test('sample: killed while it writes and resumed, the same data', async (t) => {
  const cwd = temporaryFolder(t);
  const base = join(realpathSync('.'), 'models/countdown-base');
  const args = ['sample', '--model', base, '--task', 'countdown', '--problems', '600', '--threads', '1'];
  const whole = await retort([...args, '--out', 'whole'], { cwd });
  assert.equal(whole.status, 0, whole.stderr);
  await retort([...args, '--out', 'killed'], {
    cwd,
    onStart: (child) =>
      whenThere(join(cwd, 'killed/progress.jsonl'), child).then(() => child.kill('SIGKILL')),
  });
  const data = (run: string) => readFileSync(join(cwd, run, 'data.jsonl'));
  assert.ok(data('killed').length < data('whole').length);
  const resumed = await retort(['resume', 'killed', '--json'], { cwd });
  assert.equal(resumed.status, 0, resumed.stderr);
  assert.ok(data('killed').equals(data('whole')));
});

test('resumed from another folder, a run finds its files', async (t) => {
  const cwd = temporaryFolder(t);
  await makeBase(cwd);
  const lines = Array.from({ length: 50 }, (_, i) => JSON.stringify({ prompt: `${i}=`, completion: `${i}` }));
  writeFileSync(join(cwd, 'data.jsonl'), lines.join('\n'));
  const args = 'sft --model base --data data.jsonl --steps 100 --out run'.split(' ');
  const ran = await retort(args, {
    cwd,
    onStart: (child) => whenThere(join(cwd, 'run/metrics.jsonl'), child).then(() => child.kill('SIGINT')),
  });
  assert.equal(ran.status, 130, ran.stderr);
  const elsewhere = join(cwd, 'elsewhere');
  mkdirSync(elsewhere);
  const resumed = await retort(['resume', '../run', '--json'], { cwd: elsewhere });
  assert.equal(resumed.status, 0, resumed.stderr);
  assert.match(resumed.stderr, /relative paths of its options start there/);
  const { steps, run } = lastJson<{ steps: number; run: string }>(resumed);
  assert.equal(steps, 100);
  assert.equal(realpathSync(run), realpathSync(join(cwd, 'run')));
});

const TEACHER_STEPS = '40';
for (const method of [
  ['responses'],
  ['logits', '--top-logits', '4'],
  ['on-policy', '--batch-size', '8', '--lmbda', '0.6'],
]) {
  test(`distill by ${method.join(' ')}: killed and resumed, the same weights`, async (t) => {
    const cwd = temporaryFolder(t);
    const made = await retort([...SFT, '--steps', TEACHER_STEPS, '--save', 'base'], { cwd });
    assert.equal(made.status, 0, made.stderr);
    const student = [
      '--d-model',
      '16',
      '--layers',
      '1',
      '--heads',
      '2',
      '--batch-tokens',
      '512',
      '--threads',
      '1',
    ];
    const args = [
      ...[
        'distill',
        '--teacher',
        'base',
        '--task',
        'number-sort',
        '--no-correct',
        '--max-repetition',
        '1',
        '--problems',
        '60',
      ],
      ...[
        '--max-sequences',
        '4',
        '--max-completion-length',
        '80',
        '--save-every',
        '4',
        '--eval-problems',
        '4',
      ],
      ...[...student, '--steps', '20', '--method', ...method],
    ];
    const seconds = await uninterrupted(args, cwd, 'whole');
    const wanted = runEnd(join(cwd, 'whole'), 20);
    const moments = momentsWithin(seconds);
    await killedAt(args, cwd, 'killed', moments);
    assert.deepEqual(runEnd(join(cwd, 'killed'), 20), wanted, `killed after ${moments} s`);
  });
}
