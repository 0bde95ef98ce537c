// Atomic writes: a full disk, missing permission and interruptions at every step leave the old or the new content.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, mock, test } from 'node:test';
import { RetortError } from '../errors.js';
import {
  recoverDirectory,
  recoverEntries,
  writeAll,
  writeDirectoryAtomically,
  writeFileAtomically,
} from './atomic.js';
import { writeSafetensors } from './safetensors.js';

const scratch = fs.mkdtempSync(join(tmpdir(), 'retort-atomic-'));
after(() => fs.rmSync(scratch, { recursive: true, force: true }));
const folder = join(scratch, 'step-1');
beforeEach(() => {
  mock.restoreAll();
  fs.rmSync(folder, { recursive: true, force: true });
});

const fill = (text: string) => (dir: string) => {
  fs.writeFileSync(join(dir, 'a.txt'), text);
  fs.mkdirSync(join(dir, 'inner'));
  writeSafetensors(join(dir, 'inner', 'w.safetensors'), [
    { name: 'w', shape: [2], data: new Float32Array(2) },
  ]);
};
const content = () => fs.readFileSync(join(folder, 'a.txt'), 'utf8');

/** The disk is full from the `after`-th call on. */
function failing(
  name: 'writeSync' | 'fsyncSync' | 'renameSync' | 'mkdirSync',
  code: string,
  after = 0,
): void {
  const real = fs[name] as (...words: unknown[]) => unknown;
  let calls = 0;
  mock.method(fs, name, (...words: unknown[]) => {
    if (calls++ < after) return real(...words);
    throw Object.assign(new Error(`${code}: simulated`), { code });
  });
}

const storage = (message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof RetortError, String(error));
  assert.equal(error.code, 'storage');
  assert.match(error.message, message);
  return true;
};

test('a folder arrives whole, and replaces an older one', () => {
  writeDirectoryAtomically(folder, fill('one'));
  assert.equal(content(), 'one');
  writeDirectoryAtomically(folder, fill('two'));
  assert.equal(content(), 'two');
  assert.deepEqual(fs.readdirSync(scratch), ['step-1']);
  assert.deepEqual(fs.readdirSync(join(folder, 'inner')), ['w.safetensors']);
});

test('a full disk or missing permission at any call leaves the old folder', () => {
  writeDirectoryAtomically(folder, fill('old'));
  let failures = 0;
  for (const name of ['writeSync', 'fsyncSync', 'mkdirSync', 'renameSync'] as const)
    for (const code of ['ENOSPC', 'EACCES'])
      for (let call = 0; call < 7; call++) {
        failing(name, code, call);
        try {
          writeDirectoryAtomically(folder, fill('new'));
          // Fewer calls than that: the folder was written whole.
          assert.equal(content(), 'new');
          mock.restoreAll();
          writeDirectoryAtomically(folder, fill('old'));
        } catch (error) {
          mock.restoreAll();
          storage(code === 'ENOSPC' ? /the disk is full; .*free space/ : /no permission for it/)(error);
          recoverDirectory(folder);
          assert.equal(content(), 'old');
          assert.deepEqual(fs.readdirSync(scratch), ['step-1'], `${name} ${code} ${call}`);
          failures++;
        }
      }
  // 3 writes, 6 syncs, 3 folders made and 2 renames, each with two codes.
  assert.equal(failures, 28);
});

test('what a kill leaves is cleaned: half a new folder goes, a folder moved aside comes back', () => {
  fs.mkdirSync(`${folder}.new.tmp`);
  fs.mkdirSync(`${folder}.old.tmp`);
  fs.writeFileSync(join(`${folder}.old.tmp`, 'a.txt'), 'kept');
  recoverEntries(scratch);
  assert.equal(content(), 'kept');
  assert.deepEqual(fs.readdirSync(scratch), ['step-1']);
  fs.mkdirSync(`${folder}.old.tmp`);
  recoverEntries(scratch);
  assert.deepEqual(fs.readdirSync(scratch), ['step-1']);
});

test('an error of the filler passes unchanged and leaves nothing', () => {
  const mine = new RetortError('numerics', 'NaN');
  assert.throws(
    () =>
      writeDirectoryAtomically(folder, () => {
        throw mine;
      }),
    (error) => error === mine,
  );
  assert.deepEqual(fs.readdirSync(scratch), []);
});

test('a file is whole or as before', () => {
  const path = join(scratch, 'config.json');
  writeFileAtomically(path, 'one');
  for (const name of ['writeSync', 'fsyncSync', 'renameSync'] as const) {
    failing(name, 'ENOSPC');
    assert.throws(
      () => writeFileAtomically(path, 'two'),
      storage(/the disk is full; config\.json is as it was/),
    );
    mock.restoreAll();
    assert.equal(fs.readFileSync(path, 'utf8'), 'one');
    assert.deepEqual(fs.readdirSync(scratch), ['config.json']);
  }
  writeFileAtomically(path, 'two');
  assert.equal(fs.readFileSync(path, 'utf8'), 'two');
  fs.rmSync(path);
});

test('a safetensors file on a full disk', () => {
  failing('writeSync', 'ENOSPC', 2);
  const tensors = [{ name: 'w', shape: [2], data: new Float32Array(2) }];
  assert.throws(() => writeSafetensors(join(scratch, 'w.safetensors'), tensors), storage(/the disk is full/));
});

test('more bytes than one call of the system takes', { skip: !fs.existsSync('/dev/null') }, () => {
  const write = mock.method(fs, 'writeSync');
  const fd = fs.openSync('/dev/null', 'w');
  // Never touched, so it takes no memory.
  writeAll(fd, new Uint8Array(2 ** 31 + 5));
  fs.closeSync(fd);
  const written = write.mock.calls.reduce((sum, { result }) => sum + (result ?? 0), 0);
  assert.equal(written, 2 ** 31 + 5);
});
