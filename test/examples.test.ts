// The examples run, and the README shows the one that it names.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

const folder = mkdtempSync(join(tmpdir(), 'retort-examples-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const run = (...args: string[]) => execFileSync(process.execPath, args, { encoding: 'utf8' });

test('a custom task: the model gets better at it', () => {
  const output = run('dist/examples/custom-task.js', join(folder, 'parity'));
  const shares = [...output.matchAll(/right (\d+)%/g)].map(([, share]) => Number(share));
  assert.equal(shares.length, 4, output);
  assert.ok(shares[3] > 80 && shares[3] > shares[0], output);
});

test('samples from the model that ships', () => {
  const lines = run('dist/examples/generate.js').trim().split('\n');
  assert.equal(lines.length, 4);
  for (const line of lines) assert.match(line, /\(log-probability -[\d.]+\)$/);
});

test('a reward module is taken up by name', () => {
  const problem = { numbers: [3, 7, 12], target: 43 };
  const file = join(folder, 'completions.jsonl');
  const completion = '<think></think><answer>3*12+7</answer>';
  execFileSync('sh', ['-c', `echo '${JSON.stringify({ problem, completion })}' > ${file}`]);
  const output = run(
    'dist/src/cli/main.js',
    'score',
    '--task',
    'countdown',
    '--file',
    file,
    '--rewards',
    './dist/examples/short-answers.js',
  );
  const scored = JSON.parse(output) as { rewards: Record<string, number>; reward: number; correct: boolean };
  assert.deepEqual(scored.rewards, { answer: 1, short: 1 });
  assert.ok(scored.correct && Math.abs(scored.reward - 1.1) < 1e-12);
});

test('the first example of the README is the file it names', () => {
  const readme = readFileSync('README.md', 'utf8');
  const [, path, code] = /<!-- example: (\S+) -->\n```ts\n([\s\S]*?)```/.exec(readme) ?? [];
  assert.ok(path && code, 'README.md names its example');
  assert.equal(code, readFileSync(path, 'utf8'));
});
