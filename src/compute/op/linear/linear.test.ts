// The matrix product in both layouts, accumulating or not, at sizes around its tiles and blocks; what linear keeps.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { bfloat16, noise, relativeError, testDevices } from '../../../../test/support/op.js';
import { type Parameter, Tape } from '../../autograd.js';
import type { Device } from '../../device/device.js';
import type { Dtype } from '../../kernel/bfloat16.js';
import { rowBlock } from './kernel.js';
import { linear, matmul, matmulColumns, pack, packTransposed } from './linear.js';
import { matmulReference } from './reference.js';

const devices = testDevices();
const wasm = devices[0].device;
after(() => Promise.all(devices.map(({ device }) => device.close())));

interface Product {
  readonly m: number;
  readonly k: number;
  readonly n: number;
  readonly layout: 'rows' | 'columns';
  readonly accumulate: boolean;
  /** Elements between the rows of A beyond their own. */
  readonly gap: number;
  /** Whether B is packed from its transpose; the product by columns takes it as it is. */
  readonly transposed: boolean;
}

/** A as it lies in memory, B [k, n], C before. */
function operands({ m, k, n, layout, gap }: Product) {
  const [rows, width] = layout === 'rows' ? [m, k] : [k, m];
  return { lda: width + gap, a: noise(rows * (width + gap), 1), b: noise(k * n, 2), c: noise(m * n, 3) };
}

function transpose(x: Float64Array, rows: number, columns: number): Float64Array {
  return x.map((_, i) => x[(i % rows) * columns + Math.floor(i / rows)]);
}

function run(device: Device, p: Product): Float32Array {
  const { lda, a, b, c } = operands(p);
  const mark = device.mark();
  const into = device.upload(c, 'f32', [p.m, p.n]);
  const source = device.upload(p.transposed && p.layout === 'rows' ? transpose(b, p.k, p.n) : b, 'f32');
  const left = { m: p.m, a: device.upload(a, 'f32'), c: into, lda };
  if (p.layout === 'columns')
    matmulColumns(device, { ...left, n: p.n, k: p.k, b: source, add: p.accumulate });
  else {
    const packed = (p.transposed ? packTransposed : pack)(device, source, p.k, p.n);
    matmul(device, { ...left, b: packed, add: p.accumulate ? into : undefined });
  }
  const got = device.floats(into).slice();
  device.rewind(mark);
  return got;
}

function check(p: Product, on: typeof devices): void {
  const { lda, a, b, c } = operands(p);
  const product = matmulReference(a, b, p.m, p.k, p.n, p.layout, lda);
  const expected = p.accumulate ? product.map((x, i) => x + c[i]) : product;
  const first = new Map<string, Float32Array>();
  for (const { name, agree, device } of on) {
    const got = run(device, p);
    const error = relativeError(got, expected);
    assert.ok(error < (p.k > 100 ? 5e-6 : 1e-6), `${JSON.stringify(p)} on ${name}: off by ${error}`);
    const before = first.get(agree);
    if (before) assert.deepEqual(got, before, `${JSON.stringify(p)} on ${name}: differs in bits`);
    first.set(agree, got);
  }
}

const SIZES: readonly (readonly [m: number, k: number, n: number])[] = [
  [1, 1, 1],
  [2, 3, 5],
  [3, 2, 7],
  [4, 5, 8],
  [5, 1, 9],
  [6, 4, 15],
  [7, 7, 16],
  [8, 9, 17],
  [9, 8, 31],
  [12, 3, 32],
  [13, 5, 33],
];

for (const layout of ['rows', 'columns'] as const)
  for (const accumulate of [false, true])
    test(`product of A by ${layout}, ${accumulate ? 'added' : 'written'}: every device`, () => {
      for (const [m, k, n] of SIZES)
        for (const gap of [0, 3])
          check({ m, k, n, layout, accumulate, gap, transposed: (m + n) % 2 === 0 }, devices);
    });

for (const layout of ['rows', 'columns'] as const)
  test(`product of A by ${layout} past the blocks of rows, columns and k`, () => {
    const threaded = devices.filter(({ name }) => name.includes('threads'));
    for (const k of [511, 512, 513, 704, 705, 1025])
      for (const accumulate of [false, true])
        for (const m of [7, 25])
          check({ m, k, n: 19, layout, accumulate, gap: 1, transposed: accumulate }, threaded);
    const blocks = new Set(devices.map(({ device }) => rowBlock(device.target)));
    for (const block of blocks)
      for (const m of [block - 1, block, block + 1, 2 * block + 3])
        check({ m, k: 20, n: 37, layout, accumulate: false, gap: 0, transposed: false }, threaded);
    for (const k of [530, 709, 1030])
      check({ m: 301, k, n: 70, layout, accumulate: true, gap: 0, transposed: false }, threaded);
    check({ m: 2, k: 20, n: 1000, layout, accumulate: false, gap: 0, transposed: true }, threaded);
  });

test('product of A by columns in several parts, past the rows that are packed at once', () => {
  const threaded = devices.filter(({ name }) => name.includes('threads'));
  for (const [m, k, n] of [
    [485, 130, 70],
    [963, 130, 257],
    [130, 65, 963],
  ])
    for (const accumulate of [false, true])
      check({ m, k, n, layout: 'columns', accumulate, gap: 3, transposed: false }, threaded);
});

test('tiles of two panels, one panel after them, and more than a block of k: every device', () => {
  for (const layout of ['rows', 'columns'] as const)
    check({ m: 13, k: 720, n: 97, layout, accumulate: true, gap: 0, transposed: false }, devices);
});

test('a row of a product is the same alone and among others', () => {
  for (const { name, device } of devices) {
    const mark = device.mark();
    const [rows, k, n] = [13, 21, 19];
    const b = packTransposed(device, device.upload(noise(n * k, 5), 'f32'), k, n);
    const product = (a: Float64Array, m: number) => {
      const c = device.temporary([m, n]);
      const options = { b, c, m, lda: k } as const;
      matmul(device, { ...options, a: device.upload(a, 'f32') });
      return device.floats(c).slice();
    };
    const a = noise(rows * k, 4);
    const together = product(a, rows);
    for (let r = 0; r < rows; r++)
      assert.deepEqual(product(a.slice(r * k, (r + 1) * k), 1), together.slice(r * n, (r + 1) * n), name);
    device.rewind(mark);
  }
});

test('a matrix kept as bfloat16 gives the bits of one that is rounded', () => {
  const sizes = [...SIZES, [23, 70, 100], [25, 513, 67], [301, 20, 130]] as const;
  for (const [m, k, n] of sizes) {
    const [a, b] = [noise(m * k, 1), noise(n * k, 2)];
    for (const { name, device } of devices) {
      const mark = device.mark();
      const product = (values: Float64Array, dtype: Dtype) => {
        const c = device.temporary([m, n]);
        const packed = packTransposed(device, device.upload(values, 'f32'), k, n, dtype);
        const options = { a: device.upload(a, 'f32'), b: packed, c, m, lda: k };
        matmul(device, options);
        const plain = device.floats(c).slice();
        matmul(device, { ...options, add: device.upload(noise(m * n, 3), 'f32') });
        return [plain, device.floats(c).slice()];
      };
      const of = `${m} x ${k} x ${n} on ${name}`;
      assert.deepEqual(product(b, 'bfloat16'), product(bfloat16(b), 'float32'), of);
      device.rewind(mark);
    }
  }
});

test('no rows leave the result alone; shapes that do not fit are refused', () => {
  const mark = wasm.mark();
  const b = pack(wasm, wasm.upload(noise(12, 1), 'f32'), 3, 4);
  const c = wasm.upload(noise(8, 2), 'f32', [2, 4]);
  const a = wasm.upload(noise(6, 3), 'f32', [2, 3]);
  const options = { a, b, c, lda: 3 } as const;
  const before = wasm.floats(c).slice();
  matmul(wasm, { ...options, m: 0 });
  assert.deepEqual(wasm.floats(c), before);
  for (const wrong of [{ m: 3 }, { m: 2, lda: 4 }])
    assert.throws(() => matmul(wasm, { ...options, ...wrong }), /shapes must fit/);
  const columns = { a, b: c, c: wasm.temporary([3, 4]), m: 3, n: 4, k: 2, lda: 3, add: false };
  for (const wrong of [{ k: 3 }, { m: 4 }, { n: 5 }, { lda: 4 }])
    assert.throws(() => matmulColumns(wasm, { ...columns, ...wrong }), /shapes must fit/);
  wasm.rewind(mark);
});

test('packed copies of a weight are made anew when its version moves, and only then', () => {
  const mark = wasm.mark();
  const value = wasm.upload([2, 0, 0, 2], 'f32', [2, 2]);
  const w: Parameter = { name: 'w', value, gradient: null, version: 0, packed: new Map() };
  const x = wasm.upload([3, 5], 'f32', [1, 2]);
  const y = () => [...wasm.floats(linear({ device: wasm, tape: null }, x, w))];
  assert.deepEqual(y(), [6, 10]);
  wasm.floats(value).set([0, 1, 1, 0]);
  assert.deepEqual(y(), [6, 10]);
  w.version++;
  assert.deepEqual(y(), [5, 3]);
  assert.throws(
    () => linear({ device: wasm, tape: null }, wasm.temporary([1, 3]), w),
    /linear w with W \[2,2\]: got \[1,3\]; shapes must fit/,
  );
  for (const { tensor } of w.packed.values()) wasm.free(tensor);
  wasm.rewind(mark);
});

test('a frozen weight passes the gradient on and keeps none', () => {
  const mark = wasm.mark();
  const value = wasm.upload([1, 2, 3, 4, 5, 6], 'f32', [3, 2]);
  const w: Parameter = { name: 'w', value, gradient: null, version: 0, packed: new Map() };
  const x = wasm.upload([3, 5], 'f32', [1, 2]);
  const tape = new Tape(wasm);
  let dx: number[] = [];
  tape.record([], () => {
    dx = [...wasm.floats(tape.arrived(x)!)];
  });
  const y = linear({ device: wasm, tape }, x, w);
  wasm.floats(tape.contribute(y).tensor).set([1, 10, 100]);
  tape.backward();
  assert.deepEqual(dx, [531, 642]);
  for (const { tensor } of w.packed.values()) wasm.free(tensor);
  wasm.rewind(mark);
});
