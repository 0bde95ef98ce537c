// Imports go one way: what is above may use what is below, never the other way round.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { posix } from 'node:path';
import { test } from 'node:test';

/** From the top down; folders of one level may use each other. */
const LEVELS = [
  ['index.ts', 'cli', 'serve'],
  ['publish', 'hub'],
  ['train'],
  ['rollout', 'objective', 'reward', 'task', 'text', 'api'],
  ['model', 'checkpoint'],
  ['compute'],
  ['errors.ts', 'random.ts', 'remedy.ts', 'version.ts'],
];

/** Inside `compute`, what each part may use beside itself: no operation knows a target, no target an operation. */
const COMPUTE: Readonly<Record<string, readonly string[]>> = {
  op: ['autograd.ts', 'tensor.ts', 'device', 'kernel'],
  'autograd.ts': ['device', 'tensor.ts'],
  device: ['target', 'kernel', 'tensor.ts'],
  target: ['kernel'],
  'tensor.ts': ['kernel'],
  kernel: [],
};

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

/** Every way to name another module: import and export from, a bare import, and import() of a fixed path. */
const NAMED = /\b(import|export)\s+(type\s)?[^'";]*?\bfrom\s+'(\.[^']+)'/g;
const BARE = /\bimport\s*\(?\s*'(\.[^']+)'/g;

function importsIn(from: string, text: string): Import[] {
  const found = [
    ...[...text.matchAll(NAMED)].map(([, , type, target]) => ({ target, typeOnly: type !== undefined })),
    ...[...text.matchAll(BARE)].map(([, target]) => ({ target, typeOnly: false })),
  ];
  return found.map(({ target, typeOnly }) => ({
    from,
    to: posix.normalize(posix.join(posix.dirname(from), target)).replace(/\.js$/, '.ts'),
    typeOnly,
  }));
}

const files = readdirSync('src', { recursive: true, encoding: 'utf8' })
  .map((file) => file.split('\\').join('/'))
  .filter((file) => file.endsWith('.ts') && !/\.(test|d)\.ts$/.test(file));
const imports = files.flatMap((file) => importsIn(file, readFileSync(`src/${file}`, 'utf8')));

const levelOf = (path: string) => LEVELS.findIndex((names) => names.includes(path.split('/')[0]));
const show = ({ from, to, typeOnly }: Import, why: string) =>
  `src/${from} imports ${typeOnly ? 'a type of ' : ''}${to}: ${why}`;

test('every form of import is seen', () => {
  const text = `import { a } from './a.js';\nimport type { B } from '../b.js';\nimport {\n  c,\n  type D,\n} from './c.js';
export { e } from './e.js';\nexport * from './f.js';\nimport './g.js';\nconst h = await import('./h.js');
import { readFileSync } from 'node:fs';`;
  const found = importsIn('x/y.ts', text).map(({ to, typeOnly }) => `${to}${typeOnly ? ' (type)' : ''}`);
  assert.deepEqual(found, ['x/a.ts', 'b.ts (type)', 'x/c.ts', 'x/e.ts', 'x/f.ts', 'x/g.ts', 'x/h.ts']);
});

test('the source is there, every file of it on a level', () => {
  assert.ok(files.length > 50, `only ${files.length} files: run the tests from the root of the project`);
  assert.ok(imports.length > files.length, `only ${imports.length} imports were seen`);
  for (const file of files)
    assert.ok(levelOf(file) >= 0, `src/${file} is on no level: add its folder to LEVELS`);
});

test('imports go one way', () => {
  const wrong = imports.flatMap((i) => {
    if (i.to.startsWith('..')) return [show(i, 'it lies outside src')];
    return levelOf(i.to) < levelOf(i.from)
      ? [show(i, 'it lies above; move what both need further down')]
      : [];
  });
  assert.deepEqual(wrong, []);
});

test('no operation knows a target, and no target an operation', () => {
  const part = (path: string) => path.split('/')[1];
  const inside = (path: string) => path.startsWith('compute/');
  const wrong = imports
    .filter(({ from, to }) => inside(from) && inside(to))
    .filter(({ from, to }) => part(from) !== part(to) && !COMPUTE[part(from)]?.includes(part(to)))
    .map((i) => show(i, `${part(i.from)} may use ${COMPUTE[part(i.from)] ?? 'nothing that COMPUTE names'}`));
  assert.deepEqual(wrong, []);
});
