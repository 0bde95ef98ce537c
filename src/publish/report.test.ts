// Reports: runs grouped by seed, a page that loads nothing and runs nothing of what models wrote, errors that name the file.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { openPage, type Page } from '../../test/support/page.js';
import { createRun } from '../checkpoint/run-folder.js';
import { RetortError } from '../errors.js';
import { type ReportOptions, writeReport } from './report.js';

let scratch: string;
beforeEach(() => {
  scratch = fs.mkdtempSync(join(tmpdir(), 'retort-report-'));
});
afterEach(() => fs.rmSync(scratch, { recursive: true, force: true }));

const OUT = () => join(scratch, 'report.html');
const lines = (rows: readonly object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join('');

interface Made {
  readonly command?: string;
  readonly options?: object;
  readonly seed?: number;
  readonly metrics?: readonly object[];
  readonly completions?: readonly object[];
  readonly summary?: object | null;
}

const accuracies = (x: number) => ({ greedy: x, sampled: x / 2, greedyCi95: [0, 1], sampledCi95: [0, 1] });
const memory = (n: number) => ({
  parameters: { current: n, peak: n },
  gradients: { current: n, peak: n },
  optimizer: { current: 2 * n, peak: 2 * n },
  total: { current: 0, peak: 8 * n },
});

function metricsOf(steps: number, seed: number): object[] {
  return Array.from({ length: steps }, (_, i) => ({
    step: i + 1,
    reward: i / steps + seed / 10,
    kl: 0,
    num_tokens: (i + 1) * (1000 + seed),
    step_time: 0.5,
    ...((i + 1) % 3 === 0 && { 'eval/pass1': i / steps }),
  }));
}

function completionsOf(steps: number, text = (step: number) => `step ${step}`): object[] {
  return Array.from({ length: steps }, (_, i) => i + 1).flatMap((step) =>
    [true, false].map((correct) => ({
      ...{
        step,
        problem: { n: step },
        prompt: `${step}?`,
        completion: text(step),
        tokens: 3,
        finishReason: 'stop',
      },
      ...{ rewards: { answer: correct ? 1 : 0.1 }, reward: correct ? 1 : 0.1, correct, failed: [] },
      advantage: correct ? 0.5 : -0.5,
    })),
  );
}

function makeRun(name: string, made: Made = {}): string {
  const { command = 'grpo', options = {}, seed = 0, summary } = made;
  const dir = join(scratch, name);
  const all = { model: 'base', task: 'countdown', steps: 12, ...options, seed, out: dir };
  createRun(dir, {
    command,
    options: all,
    seed,
    cwd: scratch,
    version: '9.8.7',
    target: { name: 'x64' },
    threads: 1,
  });
  fs.writeFileSync(join(dir, 'metrics.jsonl'), lines(made.metrics ?? metricsOf(12, seed)));
  fs.writeFileSync(join(dir, 'completions.jsonl'), lines(made.completions ?? completionsOf(12)));
  const done = {
    steps: 12,
    tokens: 100,
    trainedTokens: 90,
    seconds: 6,
    before: accuracies(0.2),
    after: accuracies(0.6),
  };
  if (summary !== null)
    fs.writeFileSync(
      join(dir, 'summary.json'),
      JSON.stringify(summary ?? { ...done, memory: memory(2 ** 20 * (seed + 1)) }),
    );
  return dir;
}

function report(runs: readonly string[], options: Partial<ReportOptions> & { scripts?: boolean } = {}): Page {
  const { scripts = false, ...more } = options;
  writeReport({ runs, out: OUT(), ...more });
  return openPage(fs.readFileSync(OUT(), 'utf8'), { scripts });
}

const refused = (message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof RetortError, String((error as Error).stack));
  assert.equal(error.code, 'bad-input');
  assert.match(error.message, message);
  return true;
};

/** The texts of a table's rows, cells apart. */
const rowsOf = (page: Page, label: string) =>
  page
    .all(`[aria-label="${label}"] tr`)
    .map((row) =>
      [...row.querySelectorAll('th,td')].map((cell) => cell.textContent.replace(/\s+/g, ' ').trim()),
    );

test('runs of the same options but the seed are one series; others are told by what differs', () => {
  const same = [0, 1, 2].map((seed) => makeRun(`a${seed}`, { seed }));
  const other = makeRun('b', { options: { learningRate: 0.01, curriculum: false } });
  const ppo = makeRun('c', { command: 'ppo' });
  const { series, bytes } = writeReport({ runs: [...same, other, ppo, `${ppo}/.`], out: OUT() });
  assert.deepEqual(series, [
    { name: 'grpo', runs: same },
    { name: 'grpo, learningRate 0.01', runs: [other] },
    { name: 'ppo', runs: [ppo] },
  ]);
  assert.equal(bytes, fs.statSync(OUT()).size);
  const page = openPage(fs.readFileSync(OUT(), 'utf8'), { scripts: false });
  assert.equal(page.document.title, 'Retort: grpo, grpo, learningRate 0.01, ppo');
  const runs = rowsOf(page, 'Runs');
  assert.deepEqual(runs[0].slice(0, 5), ['series', 'seed', 'state', 'greedy, before', 'greedy, after']);
  assert.deepEqual(runs[1].slice(0, 5), [
    'grpo',
    '0',
    '12 steps',
    '20.0% (0.0% to 100.0%)',
    '60.0% (0.0% to 100.0%)',
  ]);
  assert.deepEqual(runs[4].slice(0, 5), [
    'grpo',
    'mean',
    '3 finished',
    '20.0% (20.0% to 20.0%)',
    '60.0% (60.0% to 60.0%)',
  ]);
  assert.equal(runs[0].includes('held-out loss'), false, 'a column without values');
  const memory = rowsOf(page, 'Memory by kind');
  assert.deepEqual(memory[0], ['kind', 'grpo', 'grpo, learningRate 0.01', 'ppo']);
  assert.deepEqual(memory.at(-2), ['in all, at one time', '24.0', '8.0', '8.0']);
  assert.deepEqual(memory.at(-1), ['parameters + gradients + optimizer', '12.0', '4.0', '4.0']);
  assert.match(page.one('#settings').textContent, /retort grpo --model base --task countdown --steps 12/);
});

test('the task and the model are said before other options', () => {
  const a = makeRun('a', { options: { task: 'multiply', evalEvery: 5, learningRate: 0.01, model: 'm' } });
  const b = makeRun('b', { options: { evalEvery: 0 } });
  const { series } = writeReport({ runs: [a, b], out: OUT() });
  assert.deepEqual(
    series.map(({ name }) => name),
    ['grpo, task multiply, model m, learningRate 0.01 (a)', 'grpo, task countdown, model base, evalEvery 0'],
  );
});

test('options that are long or only partly there: the folder is in the name too', () => {
  const a = makeRun('a', { options: { taskOptions: { tasks: ['x', 'y'] } } });
  const b = makeRun('b', { options: { taskOptions: { tasks: ['y', 'x'] } } });
  const c = makeRun('c', { seed: 1, options: { taskOptions: { tasks: ['y', 'x'] } } });
  const { series } = writeReport({ runs: [a, b, c], out: OUT() });
  assert.deepEqual(
    series.map(({ name, runs }) => [name, runs.length]),
    [
      ['grpo (a)', 1],
      ['grpo (b)', 2],
    ],
  );
});

const HOSTILE = [
  '</script><script>globalThis.hacked = 1</script>',
  '<!--<script>',
  '\n<img src="http://evil.example/x.png" onerror="hacked = 1">',
  '</pre></article><b>&amp;&lt;"\'',
  'a\u2028b\u2029c \u202Eevil',
];

test('what models and options say is text, nothing of it runs or loads', () => {
  const metrics = metricsOf(12, 0).map((row) => ({ ...row, '</script><img src=x>': 1 }));
  const dir = makeRun('<img src=x onerror=hacked=1>', {
    options: { template: HOSTILE[0], learningRate: '"><script>hacked = 1</script>' },
    metrics,
    completions: HOSTILE.map((completion, i) => ({
      ...completionsOf(12)[0],
      step: i + 1,
      completion,
      prompt: completion,
    })),
  });
  const page = report([dir, makeRun('plain')], { scripts: true });
  assert.deepEqual(page.errors, []);
  const completions = page
    .all('#completions article[data-run="0"] pre:not(.prompt)')
    .map((pre) => pre.textContent);
  for (const text of HOSTILE) assert.ok(completions.includes(text), text);
  assert.equal(page.all('script').length, 3);
  assert.equal(
    page.all('img, iframe, object, embed, link, base, audio, video, [onerror], [onclick]').length,
    0,
  );
  for (const element of page.all('[src], [href], [action], [srcset]'))
    assert.match(element.getAttribute('href') ?? element.tagName, /^#[a-z]+$/);
  const names = page.all('input[name="metric"]').map(({ value }) => value);
  for (const name of ['</script><img src=x>', 'reward']) assert.ok(names.includes(name), name);
  // The browser holds it to that: only these two scripts, and nothing from anywhere.
  const policy = page.one('meta[http-equiv="Content-Security-Policy"]').getAttribute('content') ?? '';
  assert.match(
    policy,
    /^default-src 'none'; script-src 'sha256-[^;]*; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'$/,
  );
  const scripts = page.all('script:not([type])').map((script) => script.textContent);
  const hashes = scripts.map((text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`);
  assert.deepEqual(policy.match(/'sha256-[^']+'/g), hashes);
  for (const style of page.all('style')) assert.doesNotMatch(style.textContent, /@import|url\(/);
});

test('control characters and lone surrogates become the replacement character', () => {
  const page = report([
    makeRun('a', { completions: [{ ...completionsOf(1)[0], completion: 'a\0b\x1b[31mc\ud800\td\ne' }] }),
  ]);
  const [text] = page.all('#completions pre:not(.prompt)').map((pre) => pre.textContent);
  assert.equal(text, 'a\uFFFDb\uFFFD[31mc\uFFFD\td\ne');
});

test('three seeds of 500 steps with long completions stay under 4 MB, and what is left out is said', () => {
  const wide = (seed: number) =>
    metricsOf(500, seed).map((row, i) => ({
      ...row,
      ...Object.fromEntries(
        Array.from({ length: 30 }, (_, k) => [`metric/${k}`, Math.sin(i * (k + 1)) * 1e-3]),
      ),
    }));
  const completions = completionsOf(500, (step) => `begin ${'<&'.repeat(4_000)} end ${step}`);
  const runs = [0, 1, 2].map((seed) => makeRun(`a${seed}`, { seed, metrics: wide(seed), completions }));
  // Of characters that take four bytes each when they are escaped.
  assert.ok(writeReport({ runs, out: OUT(), completions: 40 }).bytes < 4 * 2 ** 20);
  const page = openPage(fs.readFileSync(OUT(), 'utf8'), { scripts: false });
  assert.match(
    page.one('[data-note="0"]').textContent,
    /40 of 1000 recorded completions, of 20 steps\. The others are in .*a0\/completions\.jsonl/,
  );
  const steps = [...new Set(page.all('article[data-run="0"]').map(({ dataset }) => Number(dataset.step)))];
  assert.deepEqual([steps[0], steps.at(-1), steps.length], [1, 500, 20]);
  const [first] = page.all('#completions pre:not(.prompt)');
  assert.match(first.textContent, /^begin [\s\S]*\n\[… 2,012 characters left out …\]\n[\s\S]* end 1$/);
});

test('few completions: the last step, its first ones, or none', () => {
  const dir = makeRun('a');
  const steps = (completions: number) =>
    report([dir], { completions })
      .all('article')
      .map(({ dataset }) => dataset.step);
  assert.deepEqual(steps(2), ['12', '12']);
  assert.deepEqual(steps(1), ['12']);
  assert.deepEqual(steps(5), ['1', '1', '12', '12']);
  assert.deepEqual(steps(0), []);
  assert.equal(steps(24).length, 24);
});

test('a run that goes on is shown as far as it came', () => {
  const dir = makeRun('a', { summary: null, metrics: metricsOf(7, 0) });
  fs.appendFileSync(join(dir, 'metrics.jsonl'), '{"step":8,"rew');
  fs.appendFileSync(join(dir, 'completions.jsonl'), '{"st');
  const begun = makeRun('b', { summary: null, command: 'ppo', metrics: [], completions: [] });
  fs.rmSync(join(begun, 'metrics.jsonl'));
  fs.rmSync(join(begun, 'completions.jsonl'));
  const page = report([dir, begun], { scripts: true });
  assert.deepEqual(page.errors, []);
  const states = rowsOf(page, 'Runs').map((row) => row[2]);
  assert.deepEqual(states, ['state', 'unfinished, at step 7 of 12', 'unfinished, at step 0 of 12']);
  assert.equal(page.all('#memory').length, 0);
  assert.ok(page.all('figure').length > 0);
  const alone = report([begun], { scripts: true });
  assert.deepEqual(
    [alone.errors, alone.all('section').map((s) => s.getAttribute('id'))],
    [[], ['runs', 'settings']],
  );
});

test('what is no run, and files that are not as Retort writes them, are named', () => {
  const dir = makeRun('a');
  const write =
    (runs: readonly string[], more: Partial<ReportOptions> = {}) =>
    () =>
      writeReport({ runs, out: OUT(), ...more });
  assert.throws(write([]), refused(/runs: got \[\]; name the folder/));
  assert.throws(write([join(scratch, 'none')]), refused(/none\/config\.json: there is no such file/));
  fs.mkdirSync(join(scratch, 'model'));
  fs.writeFileSync(join(scratch, 'model/config.json'), '{"model_type":"llama"}');
  assert.throws(
    write([dir, join(scratch, 'model')]),
    refused(/run folder: got ".*model"; its config\.json is not that of a run/),
  );
  assert.throws(
    write([dir], { out: join(scratch, 'a') }),
    refused(/out: got ".*a"; name a file that ends in \.html/),
  );
  assert.throws(write([dir], { completions: 1.5 }), refused(/completions: got 1\.5; give a whole number/));
  const broken = (file: string, text: string, message: RegExp) => {
    const before = fs.readFileSync(join(dir, file));
    fs.writeFileSync(join(dir, file), text);
    assert.throws(write([dir]), refused(message));
    fs.writeFileSync(join(dir, file), before);
  };
  broken('metrics.jsonl', '{"step":1}\n{oops}\n{"step":3}\n', /metrics\.jsonl:2: the line is not JSON/);
  broken('metrics.jsonl', '{"loss":1}\n', /metrics\.jsonl:1: field step/);
  broken('completions.jsonl', '{"step":1,"completion":5}\n', /completions\.jsonl:1: field completion/);
  broken('summary.json', '{"memory":{"parameters":5}}', /summary\.json: field memory\.parameters/);
  assert.equal(fs.existsSync(OUT()), false);
});

test('the page: series, axes, seeds, metrics and completions as the reader chooses', () => {
  const runs = [0, 1].map((seed) => makeRun(`a${seed}`, { seed }));
  const page = report([...runs, makeRun('p', { command: 'ppo' })], { scripts: true });
  const captions = () => page.all('figcaption').map(({ textContent }) => textContent);
  const labels = () =>
    page.all('#charts [role="group"]').map((chart) => chart.getAttribute('aria-label') ?? '');
  const legend = () =>
    [...page.all('.u-legend')[0].querySelectorAll('tr:not(.edge) th')].map(({ textContent }) => textContent);
  assert.deepEqual(page.errors, []);
  // kl is 0 throughout: offered, not shown.
  assert.deepEqual(captions(), ['reward', 'eval/pass1']);
  assert.match(labels()[0], /^reward by steps: grpo from 0\.05 to 0\.9667; ppo from 0 to 0\.9167\./);
  assert.deepEqual(legend(), ['steps', 'grpo (2 runs)', 'ppo']);
  page.one('input[value="num_tokens"]').click();
  assert.match(labels()[0], /^reward by tokens: grpo from/);
  page.one('input[value="seconds"]').click();
  assert.match(labels()[0], /^reward by seconds of steps/);
  page.one('input[value="separate"]').click();
  assert.deepEqual(legend(), ['seconds of steps', 'grpo, seed 0', 'grpo, seed 1', 'ppo, seed 0']);
  page.all('input[name="series"]')[0].click();
  assert.deepEqual(legend(), ['seconds of steps', 'ppo, seed 0']);
  page.one('input[value="kl"]').click();
  assert.deepEqual(captions(), ['reward', 'eval/pass1', 'kl']);
  assert.equal(page.one('#chosen').textContent, '3 chosen');
  page.all('input[name="series"]')[1].click();
  assert.deepEqual(captions(), []);
  assert.match(page.one('#without').textContent, /No shown series has reward, eval\/pass1, kl/);

  const shown = () => page.all('article').filter((article) => !article.hidden);
  const choose = (id: string, value: string) => {
    const select = page.one(id);
    select.value = value;
    page.send(select, 'change');
  };
  assert.deepEqual(
    shown().map(({ dataset }) => [dataset.run, dataset.step]),
    [
      ['0', '12'],
      ['0', '12'],
    ],
  );
  choose('#filter-answer', 'wrong');
  assert.equal(page.one('#shown').textContent, '1 shown');
  assert.match(shown()[0].textContent, /step 12 wrong reward 0\.1 advantage -0\.5\s+answer 0\.1/);
  choose('#filter-step', '');
  assert.equal(shown().length, 12);
  choose('#filter-step', '3');
  choose('#filter-run', '2');
  assert.deepEqual(
    shown().map(({ dataset }) => [dataset.run, dataset.step]),
    [['2', '3']],
  );
  assert.deepEqual(page.errors, []);
});

test('the arrow keys read the values of a chart', async () => {
  const page = report(
    [0, 1].map((seed) => makeRun(`a${seed}`, { seed })),
    { scripts: true },
  );
  const [chart] = page.all('#charts [role="group"]');
  const values = () => [...chart.querySelectorAll('tr:not(.edge) td')].map(({ textContent }) => textContent);
  assert.equal(chart.getAttribute('tabindex'), '0');
  // uPlot settles its scales after the script that drew it.
  await new Promise(setImmediate);
  page.send(chart, 'keydown', { key: 'ArrowRight' });
  assert.deepEqual(values(), ['1', '0.05 (0 to 0.1)']);
  page.send(chart, 'keydown', { key: 'ArrowRight' });
  page.send(chart, 'keydown', { key: 'ArrowRight' });
  assert.deepEqual(values(), ['3', '0.2167 (0.1667 to 0.2667)']);
  page.send(chart, 'keydown', { key: 'ArrowLeft' });
  assert.equal(values()[0], '2');
  page.send(chart, 'keydown', { key: 'x' });
  assert.deepEqual(page.errors, []);
});

test('a pipeline: its stages in a table, their runs as series, several seeds as means', () => {
  const accuracy = (value: number) => ({
    value,
    ci95: [value - 0.1, value + 0.1],
    greedy: value,
    greedyCi95: [0, 1],
    meanLength: 9,
  });
  const pipeline = (name: string, seed: number, done: boolean) => {
    const dir = makeRun(name, {
      command: 'r1',
      seed,
      options: { tasks: ['a', 'b'] },
      summary: done ? { run: 'x', stages: [] } : null,
    });
    for (const file of ['metrics.jsonl', 'completions.jsonl']) fs.rmSync(join(dir, file));
    makeRun(`${name}/1-cold-start`, {
      command: 'sft',
      seed: 1000 + seed,
      options: { data: `${dir}/1.jsonl` },
    });
    if (done) makeRun(`${name}/2-reasoning-rl`, { seed: 2000 + seed, options: { model: `${dir}/1` } });
    fs.mkdirSync(join(dir, 'a-model'));
    fs.writeFileSync(join(dir, 'a-model/config.json'), '{}');
    const counts = { tokens: 10, trainedTokens: 20, seconds: 1.5 };
    const stages = [
      { name: 'base', run: null, model: 'm', accuracies: { a: accuracy(0.1), b: accuracy(0.3) }, ...counts },
      {
        name: 'cold start',
        run: '1-cold-start',
        model: 'm',
        accuracies: { a: accuracy(0.5 + seed / 10), b: accuracy(0.4) },
        ...counts,
      },
      { name: 'keeping', run: null, model: null, accuracies: {}, ...counts, judging: { cost: 0.5 } },
    ];
    fs.writeFileSync(
      join(dir, 'stages.json'),
      JSON.stringify({ stages: done ? stages : stages.slice(0, 2) }),
    );
    return dir;
  };
  const runs = [pipeline('p0', 0, true), pipeline('p1', 1, false)];
  const { series } = writeReport({ runs, out: OUT() });
  assert.deepEqual(
    series.map(({ name, runs }) => [name, runs.length]),
    [
      ['r1: cold start', 2],
      ['r1: 2-reasoning-rl', 1],
    ],
  );
  const page = openPage(fs.readFileSync(OUT(), 'utf8'), { scripts: true });
  assert.deepEqual(page.errors, []);
  const means = rowsOf(page, 'Stages of r1, mean over seeds');
  assert.deepEqual(means[2].slice(0, 2), ['cold start', '55.0% (50.0% to 60.0%)']);
  const alone = rowsOf(page, `Stages of ${runs[0]}`);
  assert.deepEqual(alone[0], [
    'after stage',
    'a, sampled',
    'a, greedy',
    'b, sampled',
    'b, greedy',
    'mean of sampled',
    'tokens generated',
    'tokens trained on',
    'seconds',
    'judging',
  ]);
  assert.deepEqual(alone[1], [
    'base',
    '10.0% (0.0% to 20.0%)',
    '10.0% (0.0% to 100.0%)',
    '30.0% (20.0% to 40.0%)',
    '30.0% (0.0% to 100.0%)',
    '20.0%',
    '10',
    '20',
    '1.5',
    '–',
  ]);
  assert.deepEqual(alone[3], ['keeping', '–', '–', '–', '–', '–', '10', '20', '1.5', 'cost 0.5']);
  assert.match(page.one('#stages').textContent, /The pipeline .*p1 is not finished/);
  assert.match(page.one('#settings').textContent, /retort r1 --config FILE/);
});
