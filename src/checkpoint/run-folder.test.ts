// Run folders: a run killed at any file operation resumes from a whole checkpoint; unreadable ones are passed over.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, mock, test } from 'node:test';
import { RetortError } from '../errors.js';
import { elementCount, type LlamaConfig, parameterShapes } from '../model/config.js';
import { readModelFolder } from './folder.js';
import { readJsonl } from './jsonl.js';
import {
  type Checkpoint,
  createRun,
  listCheckpoints,
  loadCheckpoint,
  newestCheckpoint,
  openJournal,
  openRun,
  type Run,
  resumeRun,
  saveCheckpoint,
} from './run-folder.js';

const scratch = fs.mkdtempSync(join(tmpdir(), 'retort-run-'));
after(() => fs.rmSync(scratch, { recursive: true, force: true }));
const dir = join(scratch, 'run');
beforeEach(() => {
  mock.restoreAll();
  fs.rmSync(dir, { recursive: true, force: true });
});

const config: LlamaConfig = {
  vocabSize: 4,
  hiddenSize: 2,
  intermediateSize: 3,
  numHiddenLayers: 1,
  numAttentionHeads: 1,
  numKeyValueHeads: 1,
  headDim: 2,
  maxPositionEmbeddings: 8,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenIds: [3],
};
const shapes = parameterShapes(config);

function content(step: number) {
  const tensors = shapes.map(({ name, shape }) => ({
    name,
    shape,
    data: new Float32Array(elementCount(shape)).fill(step),
  }));
  const moments = tensors.map((one) => ({ ...one, name: `m.${one.name}` }));
  const count = { name: 'count', shape: [1], data: new Int32Array([step]) };
  return {
    model: { config, tensors },
    groups: { optimizer: [...moments, count] },
    state: { position: step * 10, seed: 0.1 + step },
  };
}

/** All of the checkpoint is of its step. */
function check(checkpoint: Checkpoint): void {
  const { step } = checkpoint;
  assert.deepEqual(checkpoint.state, { position: step * 10, seed: 0.1 + step });
  for (const { name, shape } of shapes) {
    const into = new Float32Array(elementCount(shape));
    checkpoint.model.read(name, into);
    assert.equal(
      into.every((value) => value === step),
      true,
    );
    checkpoint.groups.optimizer!.read(`m.${name}`, into);
    assert.equal(
      into.every((value) => value === step),
      true,
    );
  }
  const count = new Int32Array(1);
  checkpoint.groups.optimizer!.read('count', count);
  assert.equal(count[0], step);
  checkpoint.close();
}

const refused = (code: string, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof RetortError, String(error));
  assert.equal(error.code, code);
  assert.match(error.message, message);
  return true;
};
const silent = (message: string) => assert.fail(`unexpected warning: ${message}`);
const steps = (run: Run) => listCheckpoints(run).map(({ step }) => step);

test('a run is made, opened, and refuses a second one in its folder', () => {
  const made = createRun(dir, { verb: 'grpo', seed: 7, list: [1, { a: null }] });
  assert.deepEqual(openRun(dir), made);
  assert.deepEqual(made.config, { verb: 'grpo', seed: 7, list: [1, { a: null }] });
  assert.throws(
    () => createRun(dir, {}),
    refused('bad-input', /holds another run: resume that one, or name another/),
  );
  assert.deepEqual(listCheckpoints(made), []);
  assert.throws(
    () => newestCheckpoint(made, silent),
    refused('bad-checkpoint', /no readable checkpoint \(0 found\)/),
  );
});

test('folders that are no run', () => {
  assert.throws(
    () => openRun(dir),
    refused('bad-input', /config\.json: there is no such file.*folder of a run/),
  );
  fs.mkdirSync(dir);
  fs.writeFileSync(join(dir, 'notes.txt'), '');
  assert.throws(() => createRun(dir, {}), refused('bad-input', /holds other files \(notes\.txt\)/));
  assert.throws(
    () => createRun(join(dir, 'notes.txt'), {}),
    refused('bad-input', /a file of that name is in the way/),
  );
  assert.throws(() => openRun('models/countdown-base'), refused('bad-input', /not that of a run/));
  fs.writeFileSync(join(dir, 'config.json'), '{"format":"retort-run/9","config":{}}');
  assert.throws(
    () => openRun(dir),
    refused('bad-input', /got "retort-run\/9"; this version of Retort reads/),
  );
});

test('values that JSON would change are refused', () => {
  for (const bad of [Number.NaN, new Float32Array(1), 1n, new Map()])
    assert.throws(
      () => createRun(dir, { deep: [{ bad }] }),
      refused('bad-checkpoint', /config\.json.*plain JSON/),
    );
  assert.equal(createRun(dir, {}).dir, dir);
});

test('checkpoints: save, list, keep the last, load, use as a model folder', () => {
  const run = createRun(dir, {});
  for (const step of [0, 5, 10, 100]) saveCheckpoint(run, step, content(step), { keepLast: 3 });
  assert.deepEqual(steps(run), [5, 10, 100]);
  for (const place of listCheckpoints(run)) check(loadCheckpoint(place));
  const newest = newestCheckpoint(run, silent);
  assert.equal(newest.step, 100);
  check(newest);
  assert.throws(
    () => readModelFolder(dir),
    refused('bad-model', /is that of a run, not of a model; .*checkpoints\/step-N/),
  );
  const folder = readModelFolder(newest.path);
  assert.deepEqual(folder.config, config);
  folder.close();
  saveCheckpoint(run, 100, content(100), { keepLast: 1 });
  assert.deepEqual(steps(run), [100]);
});

test('journals are cut back to the checkpoint', () => {
  const run = createRun(dir, {});
  const journals = [openJournal(run, 'metrics.jsonl')];
  journals[0]!.append({ step: 1 });
  saveCheckpoint(run, 1, content(1), { journals });
  journals[0]!.append({ step: 2 });
  journals[0]!.close();
  openJournal(run, 'late.jsonl').append({ lost: true });
  fs.appendFileSync(join(dir, 'metrics.jsonl'), '{"step":');
  const checkpoint = newestCheckpoint(resumeRun(dir), silent);
  const metrics = openJournal(run, 'metrics.jsonl', checkpoint);
  metrics.append({ step: 2, again: true });
  metrics.close();
  assert.equal(openJournal(run, 'late.jsonl', checkpoint).offset(), 0);
  const lines = [...readJsonl(join(dir, 'metrics.jsonl'), { code: 'bad-data', remedy: '' })];
  assert.deepEqual(
    lines.map(({ value }) => value),
    [{ step: 1 }, { step: 2, again: true }],
  );
  checkpoint.close();
});

test('an unreadable checkpoint is passed over with a warning that says why', () => {
  const run = createRun(dir, {});
  for (const step of [1, 2, 3, 4]) saveCheckpoint(run, step, content(step));
  const file = (step: number, name: string) => join(dir, 'checkpoints', `step-${step}`, name);
  fs.truncateSync(file(4, 'model.safetensors'), 200);
  fs.writeFileSync(file(3, 'state.json'), '{"format":"retort-checkpoint/1"');
  fs.rmSync(file(2, 'optimizer.safetensors'));
  const warnings: string[] = [];
  const checkpoint = newestCheckpoint(run, (message) => warnings.push(message));
  assert.equal(checkpoint.step, 1);
  check(checkpoint);
  assert.match(
    warnings[0]!,
    /step 4 cannot be read and is passed over: .*model\.safetensors: the header claims/,
  );
  assert.match(warnings[1]!, /step 3 .*state\.json is not JSON/);
  assert.match(warnings[2]!, /step 2 .*optimizer\.safetensors: there is no such file/);
  // The run goes on, and writes over the broken ones.
  for (const step of [2, 3, 4]) saveCheckpoint(run, step, content(step));
  check(newestCheckpoint(run, silent));
  fs.rmSync(file(1, ''), { recursive: true });
  for (const step of [2, 3, 4]) fs.rmSync(file(step, 'state.json'));
  assert.throws(
    () => newestCheckpoint(run, () => {}),
    refused('bad-checkpoint', /no readable checkpoint \(3 found\)/),
  );
});

test('a full disk leaves the checkpoints before', () => {
  const run = createRun(dir, {});
  saveCheckpoint(run, 1, content(1));
  let calls = 0;
  const real = fs.writeSync as (...words: unknown[]) => number;
  mock.method(fs, 'writeSync', (...words: unknown[]) => {
    if (calls++ < 5) return real(...words);
    throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
  });
  assert.throws(
    () => saveCheckpoint(run, 2, content(2)),
    refused(
      'storage',
      /cannot write \S*checkpoints\/step-2: the disk is full; what \S*checkpoints held before is unchanged/,
    ),
  );
  mock.restoreAll();
  assert.deepEqual(fs.readdirSync(join(dir, 'checkpoints')), ['step-1']);
  check(newestCheckpoint(run, silent));
});

const operations = [
  'writeSync',
  'writeFileSync',
  'fsyncSync',
  'mkdirSync',
  'renameSync',
  'rmSync',
  'openSync',
] as const;

/** From the `after`-th call that changes files on, none does anything any more, cleaning up included: a kill. */
function killAfter(after: number): () => number {
  let calls = 0;
  for (const name of operations) {
    const real = fs[name] as (...words: unknown[]) => unknown;
    mock.method(fs, name, (...words: unknown[]) => {
      if (calls++ < after) return real(...words);
      throw new Error('killed');
    });
  }
  return () => calls;
}

test('killed at any file operation, a run has a whole checkpoint and goes on', () => {
  const total = (() => {
    const run = createRun(dir, {});
    saveCheckpoint(run, 1, content(1));
    const calls = killAfter(Number.POSITIVE_INFINITY);
    saveCheckpoint(run, 2, content(2), { keepLast: 1 });
    mock.restoreAll();
    return calls();
  })();
  assert.ok(total > 20, `${total} operations`);
  const reached = new Set<number>();
  for (let moment = 0; moment < total; moment++) {
    fs.rmSync(dir, { recursive: true });
    const run = createRun(dir, {});
    const metrics = openJournal(run, 'metrics.jsonl');
    metrics.append({ step: 1 });
    saveCheckpoint(run, 1, content(1), { journals: [metrics] });
    metrics.append({ step: 2 });
    killAfter(moment);
    try {
      saveCheckpoint(run, 2, content(2), { journals: [metrics], keepLast: 1 });
    } catch (error) {
      assert.match(String(error), /killed/);
    }
    mock.restoreAll();
    metrics.close();
    const again = resumeRun(dir);
    const checkpoint = newestCheckpoint(again, silent);
    const { step } = checkpoint;
    reached.add(step);
    check(checkpoint);
    assert.deepEqual(
      fs.readdirSync(join(dir, 'checkpoints')).filter((name) => name.endsWith('.tmp')),
      [],
    );
    openJournal(again, 'metrics.jsonl', checkpoint).close();
    assert.equal([...readJsonl(join(dir, 'metrics.jsonl'), { code: 'bad-data', remedy: '' })].length, step);
    saveCheckpoint(again, 3, content(3), { keepLast: 1 });
    assert.deepEqual(steps(again), [3]);
  }
  assert.deepEqual([...reached].sort(), [1, 2]);
});

test('folders above are made; a file system that takes no folders is an error, not a wait', () => {
  const deep = join(dir, 'a', 'b');
  createRun(deep, {});
  assert.ok(fs.existsSync(join(deep, 'config.json')));
  if (process.platform === 'linux') assert.throws(() => createRun('/proc/retort-run', {}), /retort-run/);
});
