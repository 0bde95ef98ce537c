// Distillation from local teachers: every method learns, wrong input is refused before anything begins.
import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fakeApi } from '../../test/support/fake-api.js';
import { finish } from '../../test/support/finish.js';
import { distillText } from '../cli/distill.js';
import { RetortError } from '../errors.js';
import { makeTask } from '../task/registry.js';
import { buildCharTokenizer } from '../text/char-tokenizer.js';
import { plainTemplate } from '../text/template.js';
import { type DistillInput, type DistillSummary, distill } from './distill.js';
import { asksTeacher, settleDistillOptions } from './distill-options.js';
import { collect, questionsOf } from './distill-responses.js';
import { tokenizerDifference, wholeAnswer } from './distill-teacher.js';
import { planNewModel } from './new-model.js';
import { sft } from './supervised.js';
import type { SupervisedStep } from './supervised-loop.js';

const folder = mkdtempSync(join(tmpdir(), 'retort-distill-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string) => join(folder, name);
const small = { dModel: 32, layers: 2, heads: 2, threads: 1 };
const task = { task: 'number-sort', taskOptions: { minCount: 2, maxCount: 3, maxNumber: 9 } };

before(async () => {
  await finish(
    sft({ ...task, ...small, steps: 120, batchTokens: 1024, learningRate: 5e-3, save: at('teacher') }),
  );
});

const KEEP_ALL = { correct: false, maxRepetition: 1 };

async function run(
  input: Partial<DistillInput>,
): Promise<{ steps: SupervisedStep[]; summary: DistillSummary }> {
  const loop = distill({
    ...{ teacher: at('teacher'), ...task, dModel: 16, layers: 1, heads: 2, threads: 1, problems: 60 },
    ...{
      maxCompletionLength: 60,
      batchTokens: 512,
      learningRate: 5e-3,
      evalProblems: 8,
      ...(asksTeacher({ method: 'responses', lmbda: 0.5, seqKd: false, ...input }) && KEEP_ALL),
      ...input,
    },
  } as DistillInput);
  const { steps, result: summary } = await finish(loop);
  return { steps, summary };
}

const METHODS: readonly Partial<DistillInput>[] = [
  { method: 'responses' },
  { method: 'logits' },
  { method: 'logits', beta: 0.5, lossTemperature: 2 },
  { method: 'logits', topLogits: 4 },
  { method: 'on-policy', lmbda: 1, batchSize: 8 },
  { method: 'on-policy', batchSize: 8, beta: 1 },
  { method: 'on-policy', seqKd: true, batchSize: 8, beta: 0 },
];
for (const [i, method] of METHODS.entries())
  test(`learns: ${JSON.stringify(method)}`, async () => {
    const { steps, summary } = await run({ ...method, steps: 25, out: at(`learns-${i}`) });
    const losses = steps.map(({ metrics }) => metrics.loss);
    const mean = (of: readonly number[]) => of.reduce((a, b) => a + b, 0) / of.length;
    const [first, last] = [mean(losses.slice(0, 4)), mean(losses.slice(-4))];
    assert.ok(last < 0.9 * first, `from ${first} to ${last}`);
    assert.equal(summary.steps, 25);
    assert.ok(summary.operations.trained > 0 && summary.teacherOperations > 0);
    assert.equal(summary.operations.generated > 0, method.method === 'on-policy');
    assert.ok(summary.memory.reference.peak > 0, "the teacher's weights are told apart");
    assert.equal(typeof summary.after?.greedy, 'number');
    if (method.seqKd || method.lmbda === 1) assert.equal(summary.answers, null);
    else {
      const { answers, kept } = summary.answers as { answers: number; kept: number };
      assert.equal(answers, 60);
      const lines = readFileSync(join(at(`learns-${i}`), 'data.jsonl'), 'utf8')
        .trim()
        .split('\n');
      assert.equal(lines.length, kept);
      const { origin } = JSON.parse(lines[0]) as { origin: Record<string, unknown> };
      assert.equal(origin.model, at('teacher'));
    }
  });

const NO_TASK = { task: undefined, taskOptions: undefined };

test('logits learned from data of prompts and completions, with its loss on held-out data', async () => {
  const line = (text: string) => `${JSON.stringify({ prompt: '1 2 3', completion: text })}\n`;
  writeFileSync(at('data.jsonl'), line('1 2 3') + line('2 3 1'));
  const { steps, summary } = await run({
    ...NO_TASK,
    data: at('data.jsonl'),
    ...{ evalData: at('data.jsonl'), method: 'logits', steps: 12, evalEvery: 6 },
  });
  assert.ok(steps[11].metrics.loss < steps[0].metrics.loss);
  assert.equal(steps[5].metrics.eval_loss > (summary.evalLoss as number), true);
  assert.equal(summary.after, null);
});

test("given sequences must fit the teacher's context too, before the first step", async () => {
  const long = at('long.jsonl');
  const line = (text: string) => `${JSON.stringify({ prompt: '1 2 3', completion: text })}\n`;
  writeFileSync(long, line('1 2 3') + line('1 2 3 '.repeat(50)));
  const given = { ...NO_TASK, data: long, context: 400 };
  const methods = [
    { method: 'logits' },
    { method: 'logits', topLogits: 4 },
    { method: 'on-policy' },
  ] as const;
  for (const method of methods)
    await assert.rejects(
      run({ ...given, ...method, steps: 1 }),
      /long.jsonl:2: tokens of an example: got 30\d.*192/,
    );
});

test('wrong input is refused before anything begins, with the remedy', async () => {
  const wrong = async (input: Partial<DistillInput>, message: RegExp) =>
    assert.rejects(run({ ...input, out: at('refused') }), (error: unknown) => {
      assert.ok(error instanceof RetortError, String(error));
      assert.match(error.message, message);
      return true;
    });
  await wrong({ beta: 0.5 }, /beta.*for the methods logits and on-policy/);
  await wrong({ topLogits: 4 }, /topLogits.*for the method logits/);
  await wrong({ lmbda: 0.2 }, /lmbda.*for the method on-policy/);
  await wrong({ maxCost: 2 }, /maxCost.*for an API teacher/);
  await wrong({ system: 'x' }, /system.*for an API teacher/);
  const nothing = /nothing is asked of the teacher.*leave it out/;
  await wrong({ ...NO_TASK, data: at('data.jsonl'), method: 'logits', maxRepetition: 1 }, nothing);
  const own = { method: 'on-policy', lmbda: 1 } as const;
  await wrong({ ...own, samples: 2 }, nothing);
  await wrong({ ...own, seqKd: true, lmbda: 0.5, minReward: 0.5 }, nothing);
  await wrong(
    { ...own, gradientAccumulationSteps: 2 },
    /gradientAccumulationSteps.*methods responses and logits/,
  );
  await wrong({ data: 'x.jsonl' }, /either a task or data/);
  await wrong({ ...NO_TASK, data: at('data.jsonl'), correct: true }, /only a task tells/);
  const api = { endpoint: 'http://localhost:9/v1', termsAllowTraining: true };
  await wrong({ ...api, method: 'logits' }, /an API gives texts.*--method responses/);
  await wrong({ ...api, termsAllowTraining: false }, /terms of many providers forbid/);
  await wrong({ ...api, teacherTemplate: 'raw' }, /teacherTemplate.*for a local teacher/);
  await wrong({ ...api, topK: 4 }, /topK with an API teacher/);
  await wrong({ ...api, endpoint: 'https://api.example.org/v1' }, /budget of the API/);
  await wrong({ teacher: at('none') }, /none/);
  await wrong({ problems: 60, context: 8 }, /tokens of prompt \d+ for the student.*context is 8/);
});

test('data are asked whole, a task 1000 problems, where nobody says how many', async () => {
  const data = at('many.jsonl');
  writeFileSync(data, Array.from({ length: 1001 }, (_, i) => `{"prompt": "${i}"}\n`).join(''));
  const count = (o: { data: string; problems?: number }) =>
    questionsOf(settleDistillOptions({ teacher: 't', ...o }, false), null).length;
  assert.equal(count({ data }), 1001);
  assert.equal(count({ data, problems: 7 }), 7);
  assert.equal(settleDistillOptions({ teacher: 't', ...task }, false).problems, 1000);
});

test('another tokenizer allows responses only, and the difference is named', async () => {
  await finish(
    sft({ task: 'countdown', dModel: 16, layers: 1, heads: 2, threads: 1, steps: 1, save: at('other') }),
  );
  const other = { model: at('other'), dModel: undefined, layers: undefined, heads: undefined };
  for (const method of ['logits', 'on-policy'] as const)
    await assert.rejects(
      run({ ...other, method }),
      /the teacher has \d+ tokens, the student \d+.*--method responses/,
    );
  const { summary } = await run({
    ...other,
    method: 'responses',
    steps: 2,
    template: 'raw',
    teacherTemplate: 'terse',
  });
  assert.equal(summary.steps, 2);
});

test('an answer that the student cannot take does not hold the place of one that it can', async () => {
  const texts = ['1 2 3 4 5 6 7 8 9', 'X', '1 2 3', '3 2 1'];
  const o = settleDistillOptions(
    { teacher: 't', data: 'd', samples: texts.length, maxPerProblem: 1, context: 12 },
    false,
  );
  const responses = texts.map((text) => ({ text, whole: true, tokens: text.length, origin: {} }));
  const { examples, lines, counts } = await collect([{ index: 0, question: '7' }], {
    ...{ o, task: null, scorer: null, template: plainTemplate('t'), dir: null, onProgress: () => {} },
    student: planNewModel(o, '0123456789 '),
    teacher: {
      ...{ atOnce: 1, totals: () => null, close: async () => {} },
      ask: async () => ({ responses: [responses], operations: 0 }),
    },
  });
  assert.deepEqual(
    lines.map(({ completion }) => completion),
    ['1 2 3'],
  );
  assert.equal(examples.length, 1);
  assert.deepEqual(counts, {
    ...{ answers: 4, kept: 1 },
    dropped: { 'too-long': 1, unspellable: 1, surplus: 1 },
  });
});

test('a stop within an evaluation keeps the steps before it', async () => {
  const stop = new AbortController();
  const out = at('stopped');
  await assert.rejects(
    run({
      ...{ method: 'logits', topLogits: 4, steps: 6, saveEvery: 0, evalEvery: 3, out, signal: stop.signal },
      onProgress: (stage) => {
        if (stage.startsWith('evaluation at step 3')) stop.abort();
      },
    }),
    /stopped after step 3; go on with: retort resume/,
  );
  assert.ok(existsSync(join(out, 'checkpoints', 'step-3')));
  assert.match(readFileSync(join(out, 'metrics.jsonl'), 'utf8'), /"step":3,.*"eval\/pass1"/);
});

test('what a judge cost stands in the summary', async (t) => {
  const api = await fakeApi({ reply: () => ({ content: 'SCORE: 8' }) });
  t.after(() => api.close());
  const prompts = at('prompts.jsonl');
  writeFileSync(prompts, Array.from({ length: 80 }, (_, i) => `{"prompt": "${i}"}\n`).join(''));
  const judged = makeTask('judged', { prompts, judge: 'm', endpoint: api.endpoint, template: 'terse' });
  const asked = { method: 'responses', problems: 20, steps: 1, evalProblems: 0 } as const;
  const { summary } = await run({ ...asked, task: judged, taskOptions: undefined });
  assert.ok(api.requests.length > 0);
  assert.equal(summary.judging?.answers, api.requests.length);
  assert.match(distillText(summary), new RegExp(`judg.*${api.requests.length}`));
});

test('a run whose teacher has other weights than at first does not go on', async () => {
  const teacher = at('changing');
  cpSync(at('teacher'), teacher, { recursive: true });
  const asked = { teacher, method: 'responses', steps: 1, evalProblems: 0 } as const;
  const given = { ...NO_TASK, teacher, method: 'logits', topLogits: 4, steps: 1 } as const;
  writeFileSync(at('given.jsonl'), '{"prompt": "1 2 3", "completion": "3 2 1"}\n');
  const kept = { ...given, data: at('given.jsonl'), out: at('given') };
  const { topLogits: _, ...whole } = kept;
  const onPolicy = { ...whole, method: 'on-policy', lmbda: 1, batchSize: 2 } as const;
  const runs = [
    ['asked', asked],
    ['given', kept],
    ['whole', whole],
    ['own', onPolicy],
  ] as const;
  for (const [out, o] of runs) await run({ ...o, out: at(out) });
  const file = join(at('given'), 'top-logits.bin');
  const before = readFileSync(file);
  await run({ ...kept, out: undefined, resume: at('given') });
  assert.deepEqual(readFileSync(file), before);
  await finish(sft({ ...task, ...small, steps: 1, save: at('changed') }));
  cpSync(at('changed'), teacher, { recursive: true });
  for (const [out, o] of runs)
    await assert.rejects(
      run({ ...o, out: undefined, resume: at(out) }),
      new RegExp(`weights of .*changing.*the run .*${out} began with other weights`),
      out,
    );
});

test('how tokenizers differ', () => {
  const of = (characters: string) => buildCharTokenizer({ characters });
  assert.equal(tokenizerDifference(of('abc'), of('abc')), null);
  assert.match(tokenizerDifference(of('abc'), of('abcd')) as string, /has \d+ tokens/);
  assert.match(tokenizerDifference(of('abc'), of('abd')) as string, /token \d+ is "c" for the teacher, "d"/);
});

test('a thought stands where the template puts it', () => {
  const bare = plainTemplate('t');
  // As a chat template may end a prompt.
  const open = { ...bare, opened: '<think>\n' };
  assert.equal(wholeAnswer(bare, null, 'four'), 'four');
  assert.equal(wholeAnswer(bare, '2+2', 'four'), '<think>2+2</think>four');
  assert.equal(wholeAnswer(open, '2+2', 'four'), '<think>\n2+2</think>four');
  assert.equal(wholeAnswer(open, null, 'four'), '<think>\n</think>four');
  assert.equal(wholeAnswer(open, null, '<think>2+2</think>four'), '<think>2+2</think>four');
});
