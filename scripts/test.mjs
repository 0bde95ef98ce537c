// Runs every compiled *.test.js under dist with node's own test runner; arguments narrow by substring.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';

const words = process.argv.slice(2);
const files = readdirSync('dist', { recursive: true, encoding: 'utf8' })
  .filter((f) => f.endsWith('.test.js') && words.every((w) => f.includes(w)))
  .map((f) => join('dist', f))
  .sort();
if (files.length === 0) {
  console.error(`no compiled test file matches ${JSON.stringify(words)}; run npm run build first`);
  process.exit(1);
}
const stream = run({ files, concurrency: 2, timeout: 600_000 });
stream.on('test:fail', () => {
  process.exitCode = 1;
});
pipeline(stream, new spec(), process.stdout, () => {});
