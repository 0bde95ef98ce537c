// Releases: the card says what the run's records hold and no more, and what is missing must be given.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { noise } from '../../test/support/op.js';
import { readModelFolder, writeModelFolder } from '../checkpoint/folder.js';
import { createRun, saveCheckpoint } from '../checkpoint/run-folder.js';
import { RetortError } from '../errors.js';
import { elementCount, type LlamaConfig, parameterShapes } from '../model/config.js';
import { buildCharTokenizer } from '../text/char-tokenizer.js';
import { commandLine } from '../train/option-flags.js';
import { exportModel } from './export.js';
import { describeBase } from './licence.js';
import { releaseRun } from './release.js';

let scratch: string;
beforeEach(() => {
  scratch = fs.mkdtempSync(join(tmpdir(), 'retort-release-'));
});
afterEach(() => fs.rmSync(scratch, { recursive: true, force: true }));

const tokenizer = buildCharTokenizer({ characters: 'abc' });
const config: LlamaConfig = {
  vocabSize: tokenizer.vocabSize,
  hiddenSize: 32,
  intermediateSize: 32,
  numHiddenLayers: 1,
  numAttentionHeads: 2,
  numKeyValueHeads: 1,
  headDim: 16,
  maxPositionEmbeddings: 1234,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  tieWordEmbeddings: true,
  qkNorm: true,
  bosTokenId: null,
  eosTokenIds: [],
};
const tensors = parameterShapes(config).map(({ name, shape }, i) => ({
  name,
  shape,
  data: new Float32Array(noise(elementCount(shape), i)),
}));
const model = { config, tensors, tokenizer, sampling: { temperature: 0.6 } };

const summary = {
  steps: 7,
  before: { greedy: 0.125, sampled: 0.25, greedyCi95: [0.1, 0.15], sampledCi95: [0.2, 0.3] },
  after: { greedy: 0.5, sampled: 0.625, greedyCi95: [0.4, 0.6], sampledCi95: [0.55, 0.7] },
  tokens: 123456,
  trainedTokens: 7890,
  seconds: 61.4,
  rewardFailures: { mine: 3 },
};
const grpo = {
  model: 'base',
  task: 'countdown',
  taskOptions: { count: 4 },
  steps: 7,
  evalProblems: 500,
  stop: ['a b', "it's"],
};

/** A finished run in SCRATCH/run. */
function makeRun(options: object = grpo, done: object | null = summary, command = 'grpo'): string {
  const dir = join(scratch, 'run');
  const target = { name: 'x64', lanes: 16 };
  const run = createRun(dir, {
    command,
    options,
    seed: 42,
    cwd: scratch,
    version: '9.8.7',
    target,
    threads: 2,
  });
  saveCheckpoint(run, 7, { model, state: {} });
  if (done) fs.writeFileSync(join(dir, 'summary.json'), JSON.stringify(done));
  return dir;
}

function makeBase(
  card: string | null,
  texts: Record<string, string> = {},
  dir = join(scratch, 'base'),
): string {
  writeModelFolder(dir, { ...model, texts: { ...texts, ...(card === null ? {} : { 'README.md': card }) } });
  return dir;
}

const out = () => join(scratch, 'public');
const card = () => fs.readFileSync(join(out(), 'README.md'), 'utf8');
const refused = (message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof RetortError, String((error as Error).stack));
  assert.match(error.message, message);
  return true;
};

test('weights, tokenizer, licence of the base and a card with the numbers of the run', () => {
  makeBase('---\nlicense: "Apache-2.0"\nlanguage: en\n---\n# Base\nlicense: mit\n', {
    LICENSE: 'the text',
    NOTICE: 'ours',
  });
  const { files } = releaseRun({ run: makeRun(), out: out() });
  const expected = [
    'LICENSE',
    'NOTICE',
    'README.md',
    'config.json',
    'generation_config.json',
    'model.safetensors',
    'tokenizer.json',
    'tokenizer_config.json',
  ];
  assert.deepEqual(files, expected);
  assert.equal(fs.readFileSync(join(out(), 'LICENSE'), 'utf8'), 'the text');
  const released = readModelFolder(out());
  assert.deepEqual([released.config, released.sampling], [config, model.sampling]);
  const into = new Float32Array(tensors[0]!.data.length);
  released.read(tensors[0]!.name, into);
  assert.deepEqual(into, tensors[0]!.data);
  released.close();
  const text = card();
  for (const part of [
    'license: apache-2.0',
    'library_name: transformers',
    '# public',
    'Qwen3ForCausalLM',
    'context of 1,234 tokens',
    'made from the model "base" by `retort grpo` on the task countdown with Retort 9.8.7',
    "retort grpo --model base --task countdown --task-option count=4 --steps 7 --eval-problems 500 --stop 'a b' --stop 'it'\\''s'",
    '| seed | 42 |',
    '| tokens generated | 123,456 |',
    '| tokens trained on | 7,890 |',
    '| seconds | 61 |',
    'made by Retort 9.8.7 from the seed 42',
    '| before | 12.5% (10.0% to 15.0%) | 25.0% (20.0% to 30.0%) |',
    '| after | 50.0% (40.0% to 60.0%) | 62.5% (55.0% to 70.0%) |',
    'each of 500 held-out problems',
    'The reward mine failed 3 times',
    'Apache-2.0, that of base, which it was made from. See LICENSE, NOTICE.',
  ])
    assert.ok(text.includes(part), `${part}\n${text}`);
  assert.equal(text.includes(scratch), false);
});

test('what was not measured is said to be missing', () => {
  makeBase('---\nlicense: mit\n---\n');
  releaseRun({ run: makeRun(grpo, { steps: 7, before: null, after: null }), out: out(), name: 'Some Name' });
  const text = card();
  assert.match(text, /The run measured nothing on held-out problems\./);
  assert.match(text, /^license: mit$/m);
  assert.match(text, /^# Some Name$/m);
  for (const absent of [/%/, /undefined/, /null/, /NaN/, /tokens generated/, /seconds/])
    assert.doesNotMatch(text, absent);
});

test('a base from the hub is named with its commit', () => {
  const commit = 'a1'.repeat(20);
  const dir = join(scratch, `hub/models--Org--Some-Model/snapshots/${commit}`);
  makeBase(
    '---\nlicense: other\nlicense_name: llama3.2\nlicense_link: https://example.org/x\n---\n',
    {},
    dir,
  );
  releaseRun({ run: makeRun({ ...grpo, model: dir }), out: out() });
  for (const part of [
    'license: llama3.2',
    'license_link: "https://example.org/x"',
    'base_model: Org/Some-Model',
    `made from Org/Some-Model at commit ${commit}`,
  ])
    assert.ok(card().includes(part), `${part}\n${card()}`);
});

test('a base in a GGUF file states its licence in the metadata, or none', () => {
  makeBase(null);
  exportModel({ model: join(scratch, 'base'), out: join(scratch, 'base.gguf'), format: 'gguf' });
  const run = makeRun({ ...grpo, model: 'base.gguf' });
  assert.throws(
    () => releaseRun({ run, out: out() }),
    refused(/base\.gguf, which the run began with, states none/),
  );
  releaseRun({ run, out: out(), licence: 'mit' });
  assert.match(card(), /mit, as the publisher states it\./);
  exportModel({ model: out(), out: join(scratch, 'licensed.gguf'), format: 'gguf' });
  assert.equal(describeBase(join(scratch, 'licensed.gguf')).licence, 'mit');
});

test('what the run does not hold is asked for, never invented', () => {
  makeBase(null);
  const run = makeRun();
  const release =
    (more: object = {}) =>
    () =>
      releaseRun({ run, out: out(), ...more });
  assert.throws(release(), refused(/needs a licence, and base, .* states none: give --license/));
  fs.writeFileSync(join(scratch, 'base/README.md'), '---\nlicense: mit\n---\n');
  assert.throws(release({ licence: 'apache-2.0' }), refused(/got "apache-2\.0"; base, .* is under mit/));
  fs.renameSync(join(scratch, 'base'), join(scratch, 'moved'));
  assert.throws(release(), refused(/began with is not at .*base any more/));
  fs.renameSync(join(scratch, 'moved'), join(scratch, 'base'));
  fs.rmSync(join(run, 'summary.json'));
  assert.throws(release(), refused(/it is not finished: go on with it first/));
  fs.writeFileSync(join(run, 'summary.json'), JSON.stringify({ ...summary, steps: 8 }));
  assert.throws(release(), refused(/last checkpoint is of step 7, not of step 8/));
  fs.writeFileSync(join(run, 'summary.json'), '{"steps":7,"before":{"greedy":0.5}}');
  assert.throws(release(), refused(/summary\.json: field before\./));
  assert.equal(fs.existsSync(out()), false);
});

test('data of others: its origin must be given, its files are named by their hash', () => {
  const data = '{"prompt":"a","completion":"b"}\n';
  fs.writeFileSync(join(scratch, 'mine.jsonl'), data);
  const run = makeRun({ data: 'mine.jsonl', steps: 7 }, { steps: 7, tokens: 5, evalLoss: 1.23456 }, 'sft');
  const release =
    (more: object = {}) =>
    () =>
      releaseRun({ run, out: out(), licence: 'cc0-1.0', ...more });
  assert.throws(
    () => releaseRun({ run, out: out() }),
    refused(/made its model from nothing: give --license/),
  );
  assert.throws(release(), refused(/where its data \(mine\.jsonl\) comes from: give --data-origin/));
  release({ dataOrigin: 'written by hand' })();
  const text = card();
  assert.match(text, /Origin, as the publisher states it: written by hand/);
  assert.ok(
    text.includes(`| mine.jsonl | 32 | \`${createHash('sha256').update(data).digest('hex')}\` |`),
    text,
  );
  assert.match(text, /made from nothing by `retort sft` with Retort/);
  assert.match(text, /Loss on held-out data after training: 1\.2346/);
  fs.rmSync(join(scratch, 'mine.jsonl'));
  assert.throws(
    release({ out: join(scratch, 'other'), dataOrigin: 'x' }),
    refused(/data that the run learned from is not at .*mine\.jsonl any more/),
  );
});

test('a task of a module and data of a task need an origin', () => {
  makeBase('---\nlicense: mit\n---\n');
  fs.mkdirSync(join(scratch, 'gsm'));
  for (const options of [
    { ...grpo, task: './mine.js' },
    { ...grpo, task: 'gsm8k', taskOptions: { path: 'gsm' } },
  ]) {
    fs.rmSync(join(scratch, 'run'), { recursive: true, force: true });
    fs.rmSync(join(scratch, 'gsm/train.jsonl'), { force: true });
    const run = makeRun(options);
    const [missing, what] =
      options.task === 'gsm8k'
        ? [/is not in .*gsm any more/, /train\.jsonl/]
        : [/the task mine\.js/, /mine\.js/];
    assert.throws(() => releaseRun({ run, out: out() }), refused(missing));
    fs.writeFileSync(join(scratch, 'gsm/train.jsonl'), '{}\n');
    assert.throws(() => releaseRun({ run, out: out() }), refused(what));
  }
});

test('the command that makes a run again leaves out defaults', () => {
  const line = (options: object) => commandLine('grpo', options as Record<string, unknown>);
  assert.equal(line({ model: 'm', task: 't', steps: 100, evalEnds: true }), 'retort grpo --model m --task t');
  assert.equal(
    line({ evalEnds: false, rewardWeights: { format: 0.5 }, rewards: ['a', 'b'] }),
    'retort grpo --no-eval-ends --reward-weight format=0.5 --rewards a --rewards b',
  );
  assert.equal(commandLine('other', { x: 1, someFlag: true }), 'retort other --x 1 --some-flag');
});
