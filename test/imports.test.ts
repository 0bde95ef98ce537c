// Imports go one way: what is above may use what is below, never the other way round.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join, posix, relative } from 'node:path';
import { test } from 'node:test';

/** From the top down; folders of one level may use each other. */
const LEVELS = [
  ['index.ts', 'cli', 'serve'],
  ['train'],
  ['rollout', 'objective', 'reward', 'task', 'text'],
  ['model', 'checkpoint'],
  ['compute'],
  ['errors.ts', 'random.ts', 'version.ts'],
];

const levelOf = (path: string) => LEVELS.findIndex((names) => names.includes(path.split('/')[0]));

test('imports go one way', () => {
  const wrong: string[] = [];
  const files = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter(
    (f) => f.endsWith('.ts') && !f.endsWith('.test.ts'),
  );
  assert.ok(files.length > 50, 'run the tests from the root of the project');
  for (const file of files) {
    const from = relative('.', file).split('\\').join('/');
    assert.ok(levelOf(from) >= 0, `${from} is on no level: add its folder to LEVELS`);
    const text = readFileSync(join('src', file), 'utf8');
    for (const [, target] of text.matchAll(/from '(\.[^']+)'/g)) {
      const to = posix.normalize(posix.join(posix.dirname(from), target));
      if (to.startsWith('..')) wrong.push(`${from} imports ${to}, which is outside src`);
      else if (levelOf(to.replace(/\.js$/, '.ts')) < levelOf(from))
        wrong.push(`${from} imports ${to}, which is above it`);
    }
  }
  assert.deepEqual(wrong, []);
});
