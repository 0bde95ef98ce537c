// The verbs as users and programs call them: results on standard output, one JSON object last with --json.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { COUNTDOWN_BASE, lastJson, MAIN, ROOT, retort, runNode, temporaryFolder } from './support/cli.js';
import { openHubServer } from './support/hub-server.js';
import { whenThere } from './support/kills.js';
import { noStories, stories } from './support/shared.js';

type Interval = readonly [number, number];
const inside = (value: number, [low, high]: Interval) => low <= value && value <= high;

test('help and version', async () => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  assert.equal((await retort(['--version'])).stdout, `${version}\n`);
  const help = await retort(['grpo', '--help']);
  assert.equal(help.status, 0);
  for (const flag of [
    '--num-generations <n>',
    '--loss-type <value>',
    '--no-eval-ends',
    '--reward-weight <name=value>',
  ])
    assert.ok(help.stdout.includes(flag), flag);
  const bare = await retort([]);
  assert.deepEqual([bare.status, bare.stdout], [2, '']);
  assert.match(bare.stderr, /Usage: retort/);
});

test('tasks and task', async () => {
  const { tasks } = lastJson<{ tasks: { name: string }[] }>(await retort(['tasks', '--json']));
  const names = [
    'countdown',
    'chain-sum',
    'multiply',
    'letter-count',
    'number-sort',
    'gsm8k',
    'judged',
    'mix',
  ];
  assert.deepEqual(
    tasks.map((t) => t.name),
    names,
  );
  const args = 'task countdown --sample 3 --task-option count=4 --task-option maxNumber=9 --json'.split(' ');
  const { samples } = lastJson<{
    samples: { problem: { numbers: number[] }; prompt: string; gold: string }[];
  }>(await retort(args));
  assert.equal(samples.length, 3);
  for (const { problem, prompt, gold } of samples) {
    assert.equal(problem.numbers.length, 4);
    assert.ok(Math.max(...problem.numbers) <= 9);
    assert.ok(prompt.startsWith(problem.numbers.join(' ')) && gold.length > 0);
  }
  const text = await retort(['task', 'number-sort', '--sample', '2']);
  assert.equal(text.stdout.match(/^prompt: /gm)?.length, 2);
});

test('score: the lines come back in order with rewards, a summary on standard error', async (t) => {
  const cwd = temporaryFolder(t);
  const problem = { numbers: [3, 7, 12], target: 43 };
  const lines = [
    { problem, completion: '<think>x</think><answer>3*12+7</answer>', id: 'a' },
    { problem, completion: '</think><answer>3+12+7</answer>' },
    { problem, completion: 'nothing' },
  ];
  writeFileSync(join(cwd, 'in.jsonl'), `${lines.map((line) => JSON.stringify(line)).join('\n')}\n`);
  writeFileSync(join(cwd, 'long.mjs'), 'export const reward = (problem, completion) => completion.length;\n');
  const args =
    'score --task countdown --file in.jsonl --rewards ./long.mjs --reward-weight reward=0.01'.split(' ');
  const ran = await retort(args, { cwd });
  assert.equal(ran.status, 0, ran.stderr);
  const scored = ran.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    scored,
    [1, 0.1, 0].map((answer, i) => ({
      ...lines[i],
      rewards: { answer, reward: lines[i].completion.length },
      reward: answer + 0.01 * lines[i].completion.length,
      correct: answer === 1,
    })),
  );
  assert.match(ran.stderr, /3 completions, 1 right \(33\.3%\), mean reward 0\./);
  // From a pipe, which can be read once only; results that the lines hold already are replaced.
  const input = ran.stdout.replaceAll('"correct"', '"failed":["answer"],"correct"');
  writeFileSync(join(cwd, 'again.jsonl'), input);
  const words = [...args.slice(0, 3), '--file', '/dev/stdin', ...args.slice(5)].join(' ');
  const again = execFileSync('sh', ['-c', `cat again.jsonl | "${process.execPath}" "${MAIN}" ${words}`], {
    cwd,
    encoding: 'utf8',
  });
  assert.equal(again, ran.stdout);
});

test('generate: the same tokens as text and as JSON, whatever the threads', async () => {
  const args = ['generate', '--model', COUNTDOWN_BASE, '--prompt', '3 7 12=43?<think>', '--seed', '5'];
  const json = lastJson<{ text: string; tokenIds: number[]; logprobs: number[] }>(
    await retort([...args, '--json', '--threads', '1']),
  );
  assert.equal(json.tokenIds.length, json.logprobs.length);
  assert.ok(json.logprobs.every((l) => l <= 0));
  assert.match(json.text, /<answer>/);
  const text = await retort([...args, '--threads', '2']);
  assert.equal(text.stdout, `${json.text}\n`);
  assert.equal(text.stderr, '');
  const stopped = await retort([...args, '--stop', '</think>', '--stop', '###']);
  assert.equal(stopped.stdout, `${json.text.split('</think>')[0]}\n`);
});

test('generate: the published text of stories260K', { skip: noStories }, async () => {
  const args = [
    'generate',
    '--model',
    stories as string,
    '--prompt',
    '',
    '--temperature',
    '0',
    '--max-tokens',
    '250',
    '--json',
  ];
  const { text, tokenIds } = lastJson<{ text: string; tokenIds: number[] }>(await retort(args));
  assert.equal(tokenIds.length, 250);
  // What the author's `run stories260K.bin -t 0` prints for 256 tokens.
  const published = [
    'Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.',
    'Lily\'s mom said, "Lily, let\'s go to the park." Lily was sad and didn\'t know what to do. She said, "I want to play with your ball, but I can\'t find it."',
    "Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to do.\"",
    "Lily didn't want to help her mom, so she said, \"I'm sorry, mom. I didn't know what to do.\" Her mom said, \"Don't worry, Lily. We can help you.",
  ].join('\n');
  assert.ok(published.startsWith(text) && published.length - text.length < 20, text);
});

test('export: GGUF and Hugging Face, and both generate what the model does', async (t) => {
  const cwd = temporaryFolder(t);
  const text = async (model: string) => {
    const args = [
      'generate',
      '--model',
      model,
      '--prompt',
      '3 4 7= 14?',
      '--template',
      'terse',
      '--max-tokens',
      '30',
    ];
    const ran = await retort([...args, '--json'], { cwd });
    assert.equal(ran.status, 0, ran.stderr);
    return lastJson<{ text: string }>(ran).text;
  };
  const original = await text(COUNTDOWN_BASE);
  const exported = async (model: string, format: string, out: string) => {
    const ran = await retort(['export', '--model', model, '--format', format, '--out', out, '--json'], {
      cwd,
    });
    assert.equal(ran.status, 0, ran.stderr);
    const { bytes } = lastJson<{ bytes: number }>(ran);
    assert.ok(bytes > 3e6, `${bytes}`);
    assert.equal(await text(out), original);
  };
  await exported(COUNTDOWN_BASE, 'gguf', 'model.gguf');
  await exported('model.gguf', 'hf', 'folder');
  const again = await retort(['export', '--model', 'folder', '--format', 'gguf', '--out', 'model.gguf'], {
    cwd,
  });
  assert.deepEqual([again.status, /model\.gguf".*there already/.test(again.stderr)], [2, true], again.stderr);
  const wrong = await retort(
    ['export', '--model', 'folder', '--format', 'hf', '--type', 'Q8_0', '--out', 'x'],
    { cwd },
  );
  assert.match(wrong.stderr, /type for the format hf: got "Q8_0"; it has F32, F16, BF16/);
  assert.deepEqual(readdirSync(cwd).sort(), ['folder', 'model.gguf']);
});

test('pull: from the hub of HF_ENDPOINT into HF_HOME; the path that it prints is a model', async (t) => {
  const cwd = temporaryFolder(t);
  const files = readdirSync(COUNTDOWN_BASE).map(
    (name) => [name, readFileSync(join(COUNTDOWN_BASE, name))] as const,
  );
  const server = await openHubServer(Object.fromEntries(files));
  t.after(() => server.close());
  const env = { HF_ENDPOINT: server.url, HF_HOME: join(cwd, 'home') };
  const ran = await retort(['pull', 'org/name@main'], { cwd, env });
  assert.equal(ran.status, 0, ran.stderr);
  const path = ran.stdout.trimEnd();
  assert.ok(path.startsWith(join(cwd, 'home/hub/models--org--name/snapshots')), path);
  assert.equal(
    (await retort(['generate', '--model', path, '--prompt', '1 2', '--max-tokens', '3'])).status,
    0,
  );
  const wrong = await retort(['pull', 'org/none', '--json'], { cwd, env });
  assert.deepEqual([wrong.status, wrong.stdout], [2, '']);
  assert.match(wrong.stderr, /org\/none: .* has none of this name; correct the name or the revision/);
});

test('generate: sampling as the model asks for it, unless the flags say otherwise', async (t) => {
  const cwd = temporaryFolder(t);
  cpSync(COUNTDOWN_BASE, join(cwd, 'model'), { recursive: true });
  const args = ['generate', '--model', 'model', '--prompt', '3 4 7= 14?', '--max-tokens', '20', '--json'];
  const ids = async (...more: string[]) =>
    lastJson<{ tokenIds: number[] }>(await retort([...args, ...more], { cwd })).tokenIds;
  const [sampled, greedy] = [await ids(), await ids('--temperature', '0')];
  assert.notDeepEqual(sampled, greedy);
  writeFileSync(join(cwd, 'model/generation_config.json'), '{"do_sample":false,"top_k":3}');
  assert.deepEqual(await ids(), greedy);
  assert.deepEqual(await ids('--temperature', '1', '--top-k', '0'), sampled);
  writeFileSync(join(cwd, 'model/generation_config.json'), '{"temperature":-1}');
  const refused = await retort(args, { cwd });
  assert.match(refused.stderr, /generation_config\.json: field temperature/);
});

test('eval: accuracies with intervals; completions that score reads', async (t) => {
  const cwd = temporaryFolder(t);
  const args = ['eval', '--model', COUNTDOWN_BASE, '--task', 'countdown', '--problems', '20', '--json'];
  interface Result {
    problems: number;
    temperature: number;
    pass1: number;
    ci95: Interval;
    passAtK: Record<string, { value: number; ci95: Interval }>;
    majAtK: Record<string, { value: number }>;
    meanLength: number;
    truncated: number;
  }
  const greedy = lastJson<Result>(await retort(args));
  assert.deepEqual([greedy.problems, greedy.temperature], [20, 0]);
  assert.ok(inside(greedy.pass1, greedy.ci95) && greedy.ci95[1] - greedy.ci95[0] > 0.05);
  const sampled = lastJson<Result>(await retort([...args, '--samples', '4', '--out', 'all.jsonl'], { cwd }));
  assert.equal(sampled.temperature, 1);
  assert.deepEqual(Object.keys(sampled.passAtK), ['1', '2', '4']);
  assert.equal(sampled.passAtK['1'].value, sampled.pass1);
  assert.ok(sampled.passAtK['4'].value > sampled.pass1);
  assert.ok(sampled.meanLength > 1 && sampled.truncated >= 0);
  const scored = await retort(['score', '--task', 'countdown', '--file', 'all.jsonl'], { cwd });
  const right = `${Math.round(sampled.pass1 * 80)} right`;
  assert.ok(scored.stderr.includes(`80 completions, ${right}`), `${scored.stderr} ${right}`);
});

test('eval: thinking budgets and best-of-n, as numbers and as a plot', async (t) => {
  const cwd = temporaryFolder(t);
  const args = ['eval', '--model', COUNTDOWN_BASE, '--task', 'countdown', '--problems', '100'];
  const limits = ['--thinking-budget', '4,none', '--min-thinking', '0,3', '--wait', '>', '--samples', '4'];
  const ran = await retort([...args, ...limits, '--best-of', 'logprob', '--plot', 'plot.svg', '--json'], {
    cwd,
  });
  assert.equal(ran.status, 0, ran.stderr);
  const { settings } = lastJson<{
    settings: {
      thinkingBudget: number | null;
      minThinking: number;
      thought: { tokens: number; cut: number; waits: number };
      pass1: number;
      bestAtK: Record<string, { value: number }>;
      meanLength: number;
    }[];
  }>(ran);
  assert.deepEqual(
    settings.map((s) => [s.thinkingBudget, s.minThinking]),
    [
      [4, 0],
      [null, 0],
      [4, 3],
      [null, 3],
    ],
  );
  const [short, free] = settings;
  assert.ok(short.thought.cut > 0.5 && free.thought.cut === 0);
  assert.ok(short.thought.tokens <= 5 && short.meanLength < free.meanLength);
  assert.ok(short.pass1 < free.pass1);
  assert.equal(free.bestAtK['1'].value, free.pass1);
  const plot = readFileSync(join(cwd, 'plot.svg'), 'utf8');
  assert.match(plot, /^<svg [^>]*>.*one sample.*maj@4.*<\/svg>\n$/s);
});

test('sample: data for sft, and counts of what was dropped', async (t) => {
  const cwd = temporaryFolder(t);
  const flags = '--task countdown --problems 20 --samples 4 --max-per-problem 1 --choose shortest --out kept';
  const ran = await retort(['sample', '--model', COUNTDOWN_BASE, ...flags.split(' '), '--json'], { cwd });
  assert.equal(ran.status, 0, ran.stderr);
  const summary = lastJson<{ sampled: number; kept: number; problemsKept: number; data: string }>(ran);
  assert.equal(summary.sampled, 80);
  assert.ok(summary.kept > 0 && summary.kept === summary.problemsKept);
  const learn = [
    'sft',
    '--model',
    COUNTDOWN_BASE,
    '--data',
    summary.data,
    '--template',
    'terse',
    '--steps',
    '2',
  ];
  const learned = await retort([...learn, '--json'], { cwd });
  assert.equal(learned.status, 0, learned.stderr);
  const again = await retort(['resume', 'kept'], { cwd });
  assert.match(again.stdout, /kept\s+\d+/);
  assert.match(again.stdout, /learn from it: retort sft --data kept\/data.jsonl --template terse/);
});

test('grpo: the run folder and the summary', async (t) => {
  const cwd = temporaryFolder(t);
  const options =
    '--steps 2 --batch-size 16 --eval-problems 10 --max-completion-length 60 --out run --save model';
  const ran = await retort(
    ['grpo', '--model', COUNTDOWN_BASE, '--task', 'countdown', ...options.split(' '), '--json'],
    { cwd },
  );
  assert.equal(ran.status, 0, ran.stderr);
  const summary = lastJson<{
    steps: number;
    before: { greedy: number; sampled: number; sampledCi95: Interval };
    after: { greedy: number; sampled: number };
    tokens: number;
    seconds: number;
    run: string;
  }>(ran);
  assert.equal(summary.steps, 2);
  assert.equal(summary.run, 'run');
  assert.ok(summary.tokens > 0 && summary.seconds > 0);
  assert.ok(inside(summary.before.sampled, summary.before.sampledCi95));
  assert.ok(summary.after.greedy >= 0);
  assert.deepEqual(JSON.parse(readFileSync(join(cwd, 'run/summary.json'), 'utf8')), summary);
  const rows = readFileSync(join(cwd, 'run/metrics.jsonl'), 'utf8').trimEnd().split('\n');
  assert.deepEqual(
    rows.map((row) => (JSON.parse(row) as { step: number }).step),
    [1, 2],
  );
  // A checkpoint is a model folder, and so is what was saved: the same model.
  for (const dir of ['run/checkpoints/step-2', 'model'])
    assert.ok(existsSync(join(cwd, dir, 'tokenizer.json')));
  const weights = (dir: string) => readFileSync(join(cwd, dir, 'model.safetensors'));
  assert.ok(weights('model').equals(weights('run/checkpoints/step-2')));
  const released = await retort(['release', 'run', '--out', 'public', '--json'], { cwd });
  assert.equal(released.status, 0, released.stderr);
  const card = readFileSync(join(cwd, 'public/README.md'), 'utf8');
  assert.match(card, /^license: apache-2\.0$/m);
  const accuracy = `${(100 * summary.after.sampled).toFixed(1)}%`;
  assert.ok(card.includes(`| after |`) && card.includes(accuracy), card);
  assert.equal((await retort(['generate', '--model', 'public', '--prompt', '1 2'], { cwd })).status, 0);
});

test('plan: what grpo reports afterwards; the flags of each run, with their errors', async () => {
  const flags = '--batch-size 16 --max-completion-length 30 --no-eval-ends --steps 1'.split(' ');
  const both = ['--model', COUNTDOWN_BASE, '--task', 'countdown', ...flags, '--json'];
  const { memory } = lastJson<{ memory: Record<string, { peak: number }> }>(await retort(['grpo', ...both]));
  const ran = await retort(['plan', ...both, '--mean-length', '20']);
  assert.equal(ran.status, 0, ran.stderr);
  const plan = lastJson<{
    command: string;
    bytes: Record<string, number>;
    mean: { completionLength: number };
    memory: { fits: boolean; needed: number; machine: number };
    seconds: { step: number; run: number; phases: Record<string, number> };
  }>(ran);
  for (const kind of ['parameters', 'gradients', 'optimizer', 'kvCache', 'packed', 'other'])
    assert.equal(plan.bytes[kind], memory[kind].peak, kind);
  assert.deepEqual([plan.command, plan.mean.completionLength], ['grpo', 20]);
  assert.ok(plan.memory.fits && plan.memory.needed < plan.memory.machine);
  assert.deepEqual(Object.keys(plan.seconds.phases), ['rollout', 'update']);
  assert.ok(Math.abs(plan.seconds.run - plan.seconds.step) < 1e-9, 'one step, no evaluations');

  const text = await retort(['plan', 'sft', '--task', 'number-sort', '--no-measure']);
  assert.match(
    text.stdout,
    /^sft: \d+ parameters; .*\n\npeak memory[\s\S]*activations +[\d.]+ MiB[\s\S]*it fits\nthe time of a step was not measured\n$/,
  );
  const help = await retort(['plan', 'grpo', '--help']);
  for (const flag of ['--micro-batch-tokens <n>', '--mean-length <n>', '--no-measure'])
    assert.ok(help.stdout.includes(flag), flag);
  const wrong = await retort(['plan', ...both.slice(0, 4), '--batch-size', '20']);
  assert.equal(wrong.status, 2);
  assert.match(wrong.stderr, /batchSize with numGenerations 8: got 20; it must be a multiple/);
});

test('ctrl-c ends evaluations at once, with status 130', async (t) => {
  const cwd = temporaryFolder(t);
  const both = ['--model', COUNTDOWN_BASE, '--task', 'countdown'];
  const evaluation = await retort(['eval', ...both, '--problems', '3000'], {
    cwd,
    onStart: (child) => child.stderr?.once('data', () => child.kill('SIGINT')),
  });
  assert.equal(evaluation.status, 130, evaluation.stderr);
  assert.match(evaluation.stderr, /generation was interrupted/);
  const training = await retort(
    ['grpo', ...both, '--steps', '2', '--eval-problems', '3000', '--out', 'run'],
    {
      cwd,
      onStart: (child) => whenThere(join(cwd, 'run/config.json'), child).then(() => child.kill('SIGTERM')),
    },
  );
  assert.equal(training.status, 130, training.stderr);
  assert.match(training.stderr, /stopped after step 0; go on with: retort resume run/);
  assert.doesNotMatch(training.stderr, /held-out accuracy/);
});

test('bench matmul: the fields that others rely on', async () => {
  const { target, peakGflops, results } = lastJson<{
    target: { name: string; lanes: number };
    peakGflops: number;
    results: { m: number; k: number; n: number; threads: number; gflops: number; shareOfPeak: number }[];
  }>(await retort(['bench', 'matmul', '--runs', '1', '--threads', '1', '--json']));
  assert.ok(target.name === 'wasm' || target.name === 'x64', target.name);
  assert.ok(peakGflops > 0);
  assert.deepEqual(
    results.slice(0, 4).map(({ m, k, n }) => [m, k, n]),
    [
      [2048, 128, 512],
      [2048, 256, 1024],
      [1024, 1024, 1024],
      [64, 128, 512],
    ],
  );
  for (const { threads, gflops, shareOfPeak } of results)
    assert.ok(threads === 1 && gflops > 0 && shareOfPeak > 0);
});

test('a reader that leaves is no error', async () => {
  const script = `
    const { spawn } = require('node:child_process');
    const child = spawn(process.execPath, [${JSON.stringify(MAIN)}, 'task', 'countdown', '--sample', '20000'], { stdio: ['ignore', 'pipe', 'inherit'] });
    child.stdout.once('data', () => child.stdout.destroy());
    child.on('exit', (code) => console.log('status', code));`;
  const { stdout, stderr } = await runNode(['-e', script]);
  assert.equal(stdout, 'status 0\n');
  assert.equal(stderr, '');
});
