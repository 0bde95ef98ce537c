// One lock, several processes: of those that try at the same moment one has it, whatever a process that is gone left.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { takeLock } from './lock.js';

const folder = mkdtempSync(join(tmpdir(), 'retort-lock-'));
const children: ChildProcess[] = [];
after(() => {
  for (const child of children) child.kill();
  rmSync(folder, { recursive: true, force: true });
});

/** Takes the lock that a line names at the time that it says, tells of it, and holds it. */
const CONTENDER = `
import { createInterface } from 'node:readline';
const { takeLock } = await import(process.argv[1]);
console.log('ready');
for await (const line of createInterface({ input: process.stdin })) {
  const { path, at } = JSON.parse(line);
  while (Date.now() < at);
  try {
    takeLock(path, 'it');
    console.log('taken');
  } catch (error) {
    console.log(error.code === 'bad-input' ? 'refused' : String(error));
  }
}`;

type Contender = (path: string, at: number) => Promise<string>;

async function contender(): Promise<Contender> {
  const module = new URL('./lock.js', import.meta.url).href;
  const child = spawn(process.execPath, ['--input-type=module', '-e', CONTENDER, module], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  children.push(child);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  await lines.next();
  return async (path, at) => {
    child.stdin.write(`${JSON.stringify({ path, at })}\n`);
    return (await lines.next()).value as string;
  };
}

const GONE = JSON.stringify({ pid: 2 ** 22 + 1, start: null });

test('of processes that try at the same moment one has the lock, a new one or one that was left', async () => {
  const contenders = await Promise.all(Array.from({ length: 4 }, contender));
  for (let round = 0; round < 150; round++) {
    const path = join(folder, `race-${round}`);
    // None yet; left by a process that is gone; torn; and left in the middle of replacing one.
    if (round % 4 > 0) writeFileSync(path, round % 4 === 2 ? '{"pid":' : GONE);
    if (round % 4 === 3) writeFileSync(`${path}.stale`, GONE);
    const at = Date.now() + 5;
    const said = await Promise.all(contenders.map((take) => take(path, at)));
    assert.deepEqual(said.sort(), ['refused', 'refused', 'refused', 'taken'], `round ${round}`);
  }
});

test('a lock that is let go can be taken again, and nothing lies beside it', () => {
  const own = mkdtempSync(join(folder, 'own-'));
  const path = join(own, 'lock.json');
  writeFileSync(path, GONE);
  const unlock = takeLock(path, 'the run');
  assert.deepEqual(readdirSync(own), ['lock.json']);
  assert.throws(
    () => takeLock(path, 'the run'),
    new RegExp(`the run is being written by process ${process.pid};`),
  );
  assert.deepEqual(readdirSync(own), ['lock.json']);
  unlock();
  assert.deepEqual(readdirSync(own), []);
  takeLock(path, 'the run')();
});
