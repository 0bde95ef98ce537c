// Rejection sampling: each rule, lines that are learned as they were sampled, going on after a stop, refusals.
import assert from 'node:assert/strict';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fakeApi } from '../../test/support/fake-api.js';
import { finish } from '../../test/support/finish.js';
import { noStories, stories } from '../../test/support/shared.js';
import { takeLock } from '../checkpoint/lock.js';
import { sampleText } from '../cli/sample.js';
import { createDevice } from '../compute/device/device.js';
import { RetortError } from '../errors.js';
import { freeLlama } from '../model/llama.js';
import { createEngine } from '../rollout/engine.js';
import { generateAll } from '../rollout/generate.js';
import { defineTask } from '../task/define.js';
import { makeTask } from '../task/registry.js';
import type { Task } from '../task/task.js';
import { loadExamples } from '../text/dataset.js';
import { getTemplate } from '../text/template.js';
import { type Candidate, DROP_RULES, dropRules } from './keep.js';
import { loadPolicy } from './policy.js';
import { type SampleInput, type SampleLine, type SampleSummary, sample } from './sample.js';
import { settleSampleOptions } from './sample-options.js';

const folder = mkdtempSync(join(tmpdir(), 'retort-sample-'));
const device = createDevice({ threads: 2 });
after(async () => {
  await device.close();
  rmSync(folder, { recursive: true, force: true });
});

let runs = 0;
const place = () => join(folder, `run-${++runs}`);
const COUNTDOWN = { model: 'models/countdown-base', task: 'countdown', problems: 30, samples: 4 } as const;

async function keep(input: SampleInput): Promise<{ lines: SampleLine[]; summary: SampleSummary }> {
  const { steps, result: summary } = await finish(sample({ device, ...input }));
  return { lines: steps.flatMap(({ lines }) => lines), summary };
}

const linesOf = (path: string) =>
  readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map(
      (line) =>
        JSON.parse(line) as SampleLine & { origin: { index: number; sample: number; reward: number } },
    );

function candidate(
  text: string,
  o: Partial<Candidate> & { reward?: number; correct?: boolean } = {},
): Candidate {
  const { reward = 1, correct = true, ...rest } = o;
  const scored = { rewards: { answer: reward }, reward, correct, failed: [] };
  return { text, tokens: text.length, ended: true, exact: () => true, scored, ...rest };
}

test('each rule drops what it says, and counts it once', () => {
  const options = (more: object) => settleSampleOptions({ model: 'm', task: 't', out: 'o', ...more });
  const all = [
    candidate('right'),
    candidate('cut', { ended: false, correct: false }),
    candidate('broken', { scored: { rewards: {}, reward: 0, correct: false, failed: ['answer'] } }),
    candidate('wrong', { correct: false, reward: 0.1 }),
    candidate('right 对'),
    candidate('over and over '.repeat(20)),
    candidate('other tokens', { exact: () => false }),
    candidate(' right\n'),
    candidate('ok', { reward: 0.5 }),
  ];
  const prompt = 'what?';
  const rules = dropRules(prompt, all, options({}));
  assert.deepEqual(rules, [
    ...[null, 'truncated', 'failed', 'wrong', 'mixed-languages', 'repetitive', 'inexact', 'duplicate', null],
  ]);
  const kept = (more: object) =>
    dropRules(prompt, all, options(more)).flatMap((rule, i) => (rule === null ? [all[i].text] : []));
  assert.deepEqual(kept({ minReward: 0.7 }), ['right']);
  assert.deepEqual(kept({ correct: false }), ['right', 'wrong', 'ok']);
  assert.deepEqual(kept({ minLanguageShare: 0.8 }), ['right', 'right 对', 'ok']);
  assert.deepEqual(kept({ maxRepetition: 1 }), ['right', 'over and over '.repeat(20), 'ok']);
  assert.deepEqual(kept({ maxPerProblem: 1 }), ['right']);
  assert.deepEqual(kept({ maxPerProblem: 1, choose: 'shortest' }), ['ok']);
  assert.deepEqual(kept({ correct: false, maxPerProblem: 2, choose: 'reward' }), ['right', 'ok']);
  assert.equal(dropRules(prompt, all, options({ maxPerProblem: 1 })).at(-1), 'surplus');
});

test('the counts add up, and a line is learned as exactly the tokens that were sampled', async () => {
  const { lines, summary } = await keep({ ...COUNTDOWN, out: place(), maxPerProblem: 2 });
  assert.equal(summary.sampled, 120);
  const dropped = DROP_RULES.reduce((sum, rule) => sum + summary.dropped[rule], 0);
  assert.equal(summary.kept + dropped, 120);
  assert.equal(summary.kept, lines.length);
  assert.ok(summary.kept > 0 && summary.dropped.wrong > 0 && summary.dropped.surplus > 0);
  const written = linesOf(summary.data);
  assert.deepEqual(written, JSON.parse(JSON.stringify(lines)));
  const policy = loadPolicy(COUNTDOWN.model, device, { trainable: false });
  const examples = loadExamples(summary.data, policy.tokenizer, { template: getTemplate(summary.template) });
  const engine = createEngine(policy);
  // One by one, so that the batch is another one.
  for (const [i, { origin }] of written.entries()) {
    const { promptIds, completionIds } = examples[i];
    const request = { promptIds, maxTokens: 300, seed: 0, problem: origin.index, firstSample: origin.sample };
    const [[again]] = await generateAll(engine, [request]);
    assert.deepEqual(completionIds, again.ids);
  }
  engine.close();
  freeLlama(policy.llama);
});

/** Every story is a right answer. */
const tale = defineTask<{ n: number }>({
  name: 'tale',
  make: (random) => ({ n: random.integer(0, 1e6) }),
  prompt: ({ n }) => `Story ${n}. Once upon a time`,
  score: () => ({ rewards: { answer: 1 }, correct: true }),
  gold: () => null,
}) as Task;

test('texts that a tokenizer would write in other tokens are dropped and counted', {
  skip: noStories,
}, async () => {
  // It ends a story with the token that begins the next one.
  const model = join(folder, 'stories');
  cpSync(stories as string, model, { recursive: true });
  writeFileSync(join(model, 'generation_config.json'), '{"eos_token_id": 1}');
  const short = { problems: 6, samples: 4, maxCompletionLength: 500, template: 'raw' };
  const { summary } = await keep({ model, task: tale, out: place(), ...short });
  assert.ok(summary.dropped.inexact > 0, JSON.stringify(summary.dropped));
  assert.ok(summary.kept > 0, 'some are learned');
  const policy = loadPolicy(model, device, { trainable: false });
  const examples = loadExamples(summary.data, policy.tokenizer, { template: getTemplate('raw') });
  assert.equal(examples.length, summary.kept);
  const tokens = examples.reduce((sum, { completionIds }) => sum + completionIds.length, 0);
  assert.equal(tokens, summary.keptTokens);
  freeLlama(policy.llama);
});

test('stopped, killed in the middle of a write and gone on with: the same bytes, for any batch', async () => {
  const whole = await keep({ ...COUNTDOWN, out: place() });
  const bytes = readFileSync(whole.summary.data, 'utf8');
  const out = place();
  const stopped = new AbortController();
  const loop = sample({ ...COUNTDOWN, device, out, maxSequences: 7, signal: stopped.signal });
  assert.equal((await loop.next()).done, false);
  stopped.abort();
  await assert.rejects(finish(loop), /stopped after \d+ of 30 problems.*go on with: retort resume/);
  const data = join(out, 'data.jsonl');
  const soFar = readFileSync(data, 'utf8');
  assert.ok(soFar.length > 0 && soFar.length < bytes.length && bytes.startsWith(soFar));
  // A kill between the data and the line that tells of it.
  appendFileSync(data, '{"prompt":"7 ');
  appendFileSync(join(out, 'progress.jsonl'), '{"bytes":99');
  // Another process that writes there, and what it is about to put in place.
  const next = join(out, 'summary.json.new.tmp');
  writeFileSync(next, '{');
  const unlock = takeLock(join(out, 'lock.json'), 'x');
  await assert.rejects(keep({ ...COUNTDOWN, out, resume: out }), /being written by process/);
  assert.ok(existsSync(next));
  unlock();
  const { summary } = await keep({ ...COUNTDOWN, out, maxSequences: 7, resume: out });
  assert.equal(readFileSync(data, 'utf8').replaceAll(out, ''), bytes);
  for (const key of ['kept', 'sampled', 'tokens', 'keptTokens', 'right', 'dropped'] as const)
    assert.deepEqual(summary[key], whole.summary[key]);
  assert.ok(existsSync(join(out, 'summary.json')));
  const config = join(out, 'config.json');
  writeFileSync(config, readFileSync(config, 'utf8').replace(/"sha256": "..../, '"sha256": "0000'));
  await assert.rejects(keep({ ...COUNTDOWN, out, resume: out }), /weights of .*began with other weights/);
});

test('a reward that fails drops its completion; another seed and another beginning are other problems', async () => {
  const moody = { name: 'moody', score: (_: unknown, text: string) => (text.length % 2 ? 1 : Number.NaN) };
  const { summary, lines } = await keep({ ...COUNTDOWN, out: place(), rewards: [moody] });
  assert.ok(summary.dropped.failed > 0);
  assert.equal(summary.rewardFailures.moody, summary.dropped.failed);
  assert.ok(lines.every(({ origin }) => (origin.rewards as { moody: number }).moody === 1));
  const later = await keep({ ...COUNTDOWN, out: place(), firstProblem: 1000 });
  assert.ok(later.lines.every(({ origin }) => (origin.index as number) >= 1000));
});

test('what a judge cost stands in the summary', async (t) => {
  const api = await fakeApi({
    reply: () => ({ content: 'SCORE: 8' }),
    usage: () => ({ input: 9, output: 2 }),
  });
  t.after(() => api.close());
  const prompts = join(folder, 'prompts.jsonl');
  writeFileSync(prompts, Array.from({ length: 40 }, (_, i) => `{"prompt": "${i}+1=?"}\n`).join(''));
  const task = makeTask('judged', { prompts, judge: 'm', endpoint: api.endpoint, template: 'terse' });
  const few = { problems: 3, samples: 2, maxCompletionLength: 40, correct: false };
  const { summary } = await keep({ model: COUNTDOWN.model, task, out: place(), ...few });
  assert.ok(api.requests.length > 0);
  assert.equal(summary.judging?.answers, api.requests.length);
  assert.equal(summary.judging?.inputTokens, 9 * api.requests.length);
  assert.match(sampleText(summary), new RegExp(`judg.*${api.requests.length}`));
});

test('bad input is refused before anything is sampled', async () => {
  const refuses = async (more: Partial<SampleInput>, pattern: RegExp) =>
    assert.rejects(keep({ ...COUNTDOWN, out: place(), ...more }), (error: unknown) => {
      assert.ok(error instanceof RetortError, String(error));
      assert.match(error.message, pattern);
      return true;
    });
  await refuses({ samples: 0 }, /option samples of sample: got 0/);
  await refuses({ temperature: 0 }, /samples at temperature 0: got 4; they would all be the same/);
  await refuses({ minLanguageShare: 2 }, /minLanguageShare/);
  await refuses({ choose: 'longest' as 'first' }, /choose/);
  await refuses({ model: 'no-such-model' }, /no-such-model/);
  await refuses({ template: 'r1' }, /no token for a character|context is/);
  const taken = join(folder, 'taken');
  writeFileSync(taken, '');
  await refuses({ out: taken }, /output folder/);
});
