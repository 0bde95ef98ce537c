// JSON lines: offsets, cutting back, torn lines, a full disk, line numbers in errors.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, mock, test } from 'node:test';
import { RetortError } from '../errors.js';
import { openJsonlWriter, readJsonl, readLines } from './jsonl.js';

const scratch = fs.mkdtempSync(join(tmpdir(), 'retort-jsonl-'));
after(() => fs.rmSync(scratch, { recursive: true, force: true }));
const path = join(scratch, 'x.jsonl');
beforeEach(() => {
  mock.restoreAll();
  fs.rmSync(path, { force: true });
});
const text = () => fs.readFileSync(path, 'utf8');
const options = { code: 'bad-data', remedy: 'correct the line' } as const;

const refused = (code: string, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof RetortError, String(error));
  assert.equal(error.code, code);
  assert.match(error.message, message);
  return true;
};

test('offsets are byte offsets, and cutting back to one goes on from there', () => {
  const writer = openJsonlWriter(path);
  assert.equal(writer.offset(), 0);
  writer.append({ step: 1, text: '世' });
  const offset = writer.offset();
  assert.equal(offset, Buffer.byteLength(text()));
  writer.append({ step: 2 });
  writer.sync();
  writer.close();
  const again = openJsonlWriter(path, { truncateTo: offset });
  assert.equal(again.offset(), offset);
  again.append({ step: 3 });
  again.close();
  assert.deepEqual(
    [...readJsonl(path, options)],
    [
      { number: 1, value: { step: 1, text: '世' } },
      { number: 2, value: { step: 3 } },
    ],
  );
});

test('a torn last line is cut when writing goes on, and left out when reading', () => {
  fs.writeFileSync(path, '{"a":1}\n{"b":');
  assert.deepEqual(
    [...readJsonl(path, { ...options, tornLastLine: true })],
    [{ number: 1, value: { a: 1 } }],
  );
  assert.throws(() => [...readJsonl(path, options)], refused('bad-data', /x\.jsonl:2: the line is not JSON/));
  const writer = openJsonlWriter(path);
  writer.append({ b: 2 });
  writer.close();
  assert.equal(text(), '{"a":1}\n{"b":2}\n');
  // A torn line longer than a block.
  fs.writeFileSync(path, `{"a":1}\n${'x'.repeat(200_000)}`);
  assert.equal(openJsonlWriter(path).offset(), 8);
  fs.writeFileSync(path, 'x'.repeat(200_000));
  assert.equal(openJsonlWriter(path).offset(), 0);
});

test('an offset that does not fit the file is refused', () => {
  fs.writeFileSync(path, '{"a":1}\n');
  assert.throws(
    () => openJsonlWriter(path, { truncateTo: 9 }),
    refused('bad-checkpoint', /has 8 bytes.*recorded 9/),
  );
  assert.throws(
    () => openJsonlWriter(path, { truncateTo: 3 }),
    refused('bad-checkpoint', /offset 3 is inside a line/),
  );
  assert.equal(text(), '{"a":1}\n');
});

test('a full disk in the middle of a line leaves whole lines', () => {
  const writer = openJsonlWriter(path);
  writer.append({ a: 1 });
  const real = fs.writeSync;
  let calls = 0;
  // Takes three bytes, then the disk is full.
  mock.method(fs, 'writeSync', (fd: number, bytes: Uint8Array, from: number, _count: number, at: number) => {
    if (calls++ === 0) return real(fd, bytes, from, 3, at);
    throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
  });
  assert.throws(
    () => writer.append({ b: 2 }),
    refused('storage', /the disk is full; the lines written to .* before are intact/),
  );
  assert.equal(text(), '{"a":1}\n');
  mock.restoreAll();
  writer.append({ c: 3 });
  writer.close();
  assert.equal(text(), '{"a":1}\n{"c":3}\n');
});

test('a folder that cannot be written is a storage error', () => {
  assert.throws(
    () => openJsonlWriter(join(scratch, 'no', 'x.jsonl')),
    refused('storage', /no such file or folder/),
  );
});

test('lines of any length, with numbers; byte-order mark and carriage returns dropped', () => {
  const long = '世'.repeat(50_000);
  fs.writeFileSync(path, `\uFEFFone\r\n\n${long}\nlast`);
  assert.deepEqual(
    [...readLines(path, 'bad-data', '')],
    [
      { number: 1, text: 'one', complete: true },
      { number: 2, text: '', complete: true },
      { number: 3, text: long, complete: true },
      { number: 4, text: 'last', complete: false },
    ],
  );
  fs.writeFileSync(path, '');
  assert.deepEqual([...readLines(path, 'bad-data', '')], []);
  assert.throws(
    () => [...readLines(scratch, 'bad-data', 'name a file')],
    refused('bad-data', /it is a folder/),
  );
});
