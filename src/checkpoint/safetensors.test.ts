// Safetensors: round trips of every type, files that lie about themselves, 10,000 mutated headers.
import assert from 'node:assert/strict';
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { RetortError } from '../errors.js';
import { type NamedTensor, openSafetensors, type TensorData, writeSafetensors } from './safetensors.js';
import { parseHeader } from './safetensors-header.js';

const scratch = mkdtempSync(join(tmpdir(), 'retort-safetensors-'));
after(() => rmSync(scratch, { recursive: true, force: true }));
const path = join(scratch, 'x.safetensors');

const refused = (message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof RetortError, String(error));
  assert.match(error.message, message);
  return true;
};

/** A file with any header text and any data. */
function writeRaw(header: unknown, data = new Uint8Array(0)): void {
  const text = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([length, text, data]));
}

test('what is written is read back bit for bit', () => {
  const floats = new Float32Array([1, -0, 1e-45, Number.NaN, Number.POSITIVE_INFINITY, 3.4e38]);
  const tensors: { name: string; shape: number[]; data: TensorData }[] = [
    { name: 'w', shape: [2, 3], data: floats },
    { name: 'ids', shape: [3], data: new Int32Array([-(2 ** 31), 0, 2 ** 31 - 1]) },
    { name: 'empty', shape: [0, 7], data: new Float32Array(0) },
    { name: 'bytes', shape: [5], data: new Uint8Array([0, 1, 127, 128, 255]) },
    { name: '__proto__', shape: [], data: new Float32Array([7]) },
  ];
  writeSafetensors(path, tensors, { format: 'pt' });
  const file = openSafetensors(path);
  assert.deepEqual(file.metadata, { format: 'pt' });
  assert.deepEqual([...file.tensors.keys()], ['w', 'ids', 'empty', 'bytes', '__proto__']);
  for (const { name, shape, data } of tensors) {
    const into = data.slice().fill(9);
    file.read(name, into);
    assert.deepEqual(file.tensors.get(name)!.shape, shape);
    assert.deepEqual(Buffer.from(into.buffer), Buffer.from(data.slice().buffer));
  }
  file.close();
  // The data starts at a multiple of 8, as readers that map the file want it.
  assert.equal(readFileSync(path).readBigUInt64LE(0) % 8n, 0n);
});

test('shared memory and views into larger memory can be read into and written from', () => {
  const shared = new Float32Array(new SharedArrayBuffer(64), 8, 4);
  shared.set([1, 2, 3, 4]);
  writeSafetensors(path, [{ name: 'w', shape: [4], data: shared }]);
  const target = new Float32Array(new SharedArrayBuffer(64));
  const file = openSafetensors(path);
  file.read('w', target.subarray(3, 7));
  file.close();
  assert.deepEqual([...target.slice(2, 8)], [0, 1, 2, 3, 4, 0]);
});

test('any tensors survive a round trip', () => {
  const shape = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 });
  const names = fc.uniqueArray(
    fc.string({ unit: 'grapheme' }).filter((name) => name !== '__metadata__'),
    { maxLength: 5 },
  );
  fc.assert(
    fc.property(names, fc.array(shape, { minLength: 5, maxLength: 5 }), (list, shapes) => {
      const tensors = list.map((name, i) => {
        const count = shapes[i]!.reduce((a, b) => a * b, 1);
        return { name, shape: shapes[i]!, data: Float32Array.from({ length: count }, (_, k) => k + i / 3) };
      });
      writeSafetensors(path, tensors);
      const file = openSafetensors(path);
      for (const { name, data } of tensors) {
        const into = new Float32Array(data.length);
        file.read(name, into);
        assert.deepEqual(into, data);
      }
      file.close();
    }),
    { numRuns: 200, seed: 3 },
  );
});

test('half precision and integers widen to float32 exactly', () => {
  const halves = new Uint16Array([
    0x0000, 0x8000, 0x3c00, 0xbc00, 0x0001, 0x03ff, 0x7bff, 0x7c00, 0xfc00, 0x3555,
  ]);
  const brains = new Uint16Array([0x3f80, 0xbf80, 0x0001, 0x7f80, 0x4049]);
  const ints = new Int32Array([-5, 0, 1 << 20]);
  const data = Buffer.concat([halves, brains, ints].map((a) => Buffer.from(a.buffer)));
  writeRaw(
    {
      h: { dtype: 'F16', shape: [10], data_offsets: [0, 20] },
      b: { dtype: 'BF16', shape: [5], data_offsets: [20, 30] },
      i: { dtype: 'I32', shape: [3], data_offsets: [30, 42] },
    },
    data,
  );
  const file = openSafetensors(path);
  const read = (name: string, count: number) => {
    const into = new Float32Array(count);
    file.read(name, into);
    return [...into];
  };
  const third = 0x555 / 4096 + 0; // 0x3555: exponent 13, fraction 0x155
  assert.deepEqual(read('h', 10), [
    0,
    -0,
    1,
    -1,
    2 ** -24,
    1023 * 2 ** -24,
    65504,
    Infinity,
    -Infinity,
    third,
  ]);
  assert.deepEqual(read('b', 5), [1, -1, 2 ** -133, Infinity, 3.140625]);
  assert.deepEqual(read('i', 3), [-5, 0, 1 << 20]);
  assert.throws(() => file.read('b', new Int32Array(5)), refused(/data type of tensor b .*got "BF16"/));
  file.close();
});

test('conversion works across block borders', () => {
  const count = 70_001;
  const brains = Uint16Array.from({ length: count }, (_, i) => (i * 7) & 0x7f7f);
  writeRaw(
    { b: { dtype: 'BF16', shape: [count], data_offsets: [0, 2 * count] } },
    new Uint8Array(brains.buffer),
  );
  const into = new Float32Array(count);
  const file = openSafetensors(path);
  file.read('b', into);
  file.close();
  const bits = new Uint32Array(into.buffer);
  for (let i = 0; i < count; i++) assert.equal(bits[i], brains[i]! << 16);
});

test('files that are not there, cut, or no safetensors', () => {
  const open = (message: RegExp) => assert.throws(() => openSafetensors(path), refused(message));
  rmSync(path);
  open(/x\.safetensors: there is no such file/);
  mkdirSync(path);
  open(/it is not a file/);
  rmSync(path, { recursive: true });
  writeFileSync(path, '');
  open(/has 0 bytes/);
  writeFileSync(path, Buffer.alloc(8));
  open(/8 bytes, too few/);
  writeFileSync(path, Buffer.alloc(100, 0xff));
  open(/header claims 18446744073709551615 bytes/);
  writeFileSync(path, Buffer.concat([Buffer.from([90, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{}')]));
  open(/only 2 are there: the file is truncated/);
  writeSafetensors(path, [{ name: 'w', shape: [100], data: new Float32Array(100) }]);
  const whole = readFileSync(path);
  truncateSync(path, whole.length - 1);
  open(/tensor "w": data_offsets \[0, 400\] point outside the file, which has 399 bytes/);
  writeFileSync(path, Buffer.concat([whole, Buffer.alloc(3)]));
  open(/3 bytes after the last tensor/);
  writeFileSync(path, whole);
  const file = openSafetensors(path);
  assert.throws(() => file.read('v', new Float32Array(1)), refused(/no tensor of this name/));
  assert.throws(() => file.read('w', new Float32Array(99)), refused(/got 99; it has 100 elements/));
  truncateSync(path, 100);
  assert.throws(() => file.read('w', new Float32Array(100)), refused(/was cut while it was read/));
  file.close();
});

test('headers that do not fit their file', () => {
  const w = { dtype: 'F32', shape: [2], data_offsets: [0, 8] };
  const cases: Array<[unknown, RegExp]> = [
    ['[]', /not a JSON object/],
    ['{"w"', /not JSON/],
    [{ w: 1 }, /"w": its entry is not an object/],
    [{ w: { ...w, dtype: 'F31' } }, /unknown data type "F31"/],
    [{ w: { ...w, dtype: 'toString' } }, /unknown data type "toString"/],
    [{ w: { ...w, shape: [-2] } }, /shape \[-2\]/],
    [{ w: { ...w, shape: 'x' } }, /shape "x"/],
    [{ w: { ...w, shape: [3] } }, /takes 12 bytes, data_offsets give 8/],
    [{ w: { ...w, shape: [2 ** 53 - 1, 2 ** 53 - 1] } }, /data_offsets give 8/],
    [{ w: { ...w, data_offsets: [0] } }, /not \[begin, end\]/],
    [{ w: { ...w, data_offsets: [8, 0] } }, /run backwards/],
    [{ w: { ...w, data_offsets: [0, 1e15] } }, /outside the file/],
    [{ w, v: w }, /"v": its data overlaps/],
    [{ w: { ...w, shape: [1], data_offsets: [4, 8] } }, /bytes 0 to 4 of the data belong to no tensor/],
    [`{"w":${JSON.stringify(w)},"\\u0077":${JSON.stringify(w)}}`, /the name "w" is twice/],
    [`{"w":${JSON.stringify(w).replace('{', '{"shape":[1],')}}`, /the name "shape" is twice/],
    [{ w, __metadata__: { a: 1 } }, /__metadata__ must be an object of strings/],
    [{ w, __metadata__: [] }, /__metadata__/],
  ];
  for (const [header, message] of cases) {
    writeRaw(header, new Uint8Array(8));
    assert.throws(() => openSafetensors(path), refused(message), JSON.stringify(header));
  }
  const long = 'n\\"'.repeat(1_000_000);
  assert.equal(parseHeader(`{"${long}":${JSON.stringify(w)}}`, 8, 'x').tensors.size, 1);
});

test('10,000 mutated headers: a RetortError or a file that reads, nothing else', () => {
  writeSafetensors(
    path,
    [
      { name: 'model.embed_tokens.weight', shape: [4, 3], data: new Float32Array(12) },
      { name: 'model.norm.weight', shape: [3], data: new Float32Array(3) },
      { name: 'ids', shape: [2, 1], data: new Int32Array(2) },
    ],
    { format: 'pt' },
  );
  const whole = readFileSync(path);
  const headerEnd = 8 + Number(whole.readBigUInt64LE(0));
  let state = 7;
  const next = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  let worked = 0;
  const fd = openSync(path, 'r+');
  for (let i = 0; i < 10_000; i++) {
    const bytes = Buffer.from(whole);
    for (let times = 1 + next(3); times > 0; times--) {
      const at = next(headerEnd);
      if (i % 3 === 0) bytes[at] = next(256);
      else if (i % 3 === 1) bytes[at] = '0123456789[]{}",:'.charCodeAt(next(17));
      else bytes.copyWithin(at, next(headerEnd), headerEnd);
    }
    // In place: making 10,000 files would take most of the time.
    writeSync(fd, bytes, 0, bytes.length, 0);
    ftruncateSync(fd, i % 7 === 0 ? next(bytes.length) : bytes.length);
    try {
      const file = openSafetensors(path);
      try {
        for (const [name, { shape, dtype }] of file.tensors) {
          const count = shape.reduce((a, b) => a * b, 1);
          assert.ok(count * 4 <= statSync(path).size * 4, 'a shape larger than the file got through');
          file.read(name, dtype === 'U8' ? new Uint8Array(count) : new Float32Array(count));
        }
        worked++;
      } finally {
        file.close();
      }
    } catch (error) {
      assert.ok(error instanceof RetortError, `mutation ${i}: ${String((error as Error).stack)}`);
    }
  }
  closeSync(fd);
  assert.ok(worked > 200 && worked < 5000, `${worked} of 10,000 could be read`);
});

test('writing refuses wrong sizes and repeated names', () => {
  const data = new Float32Array(4);
  const write = (tensors: NamedTensor[]) => () => writeSafetensors(path, tensors);
  assert.throws(write([{ name: 'a', shape: [3], data }]), refused(/elements of tensor a: got 4/));
  assert.throws(
    write([
      { name: 'a', shape: [4], data },
      { name: 'a', shape: [4], data },
    ]),
    refused(/got "a"; each must be there once/),
  );
  assert.throws(write([{ name: '__metadata__', shape: [4], data }]), refused(/__metadata__/));
});
