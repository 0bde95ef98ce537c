// retort report as users call it.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { lastJson, retort, temporaryFolder } from './support/cli.js';

test('report: a file, its series, and an exit code of 2 for what is no run', async (t) => {
  const cwd = temporaryFolder(t);
  for (const seed of [0, 1]) {
    const dir = join(cwd, `run-${seed}`);
    mkdirSync(dir);
    const options = { model: 'm', task: 'countdown', seed, out: dir };
    const config = { command: 'grpo', options, seed, cwd, version: '0', target: null, threads: 1 };
    writeFileSync(join(dir, 'config.json'), JSON.stringify({ format: 'retort-run/1', config }));
    writeFileSync(join(dir, 'metrics.jsonl'), '{"step":1,"reward":0.5}\n{"step":2,"reward":1}\n');
  }
  const made = await retort(['report', 'run-0', 'run-1', '--out', 'sub/a.html', '--json'], { cwd });
  assert.equal(made.status, 0, made.stderr);
  const { out, bytes, series } = lastJson<{ out: string; bytes: number; series: unknown }>(made);
  assert.equal(out, 'sub/a.html');
  assert.deepEqual(series, [{ name: 'grpo', runs: ['run-0', 'run-1'] }]);
  const text = readFileSync(join(cwd, 'sub/a.html'), 'utf8');
  assert.equal(Buffer.byteLength(text), bytes);
  assert.match(text, /^<!doctype html>/);
  const plain = await retort(['report', 'run-0'], { cwd });
  assert.match(plain.stdout, /^report\.html, \d+\.\d KiB: grpo \(1 run\)\n$/);
  const refused = await retort(['report', 'run-0', 'none'], { cwd });
  assert.deepEqual([refused.status, refused.stdout], [2, '']);
  assert.match(
    refused.stderr,
    /none\/config\.json: there is no such file or folder; name the folder of a run/,
  );
});
