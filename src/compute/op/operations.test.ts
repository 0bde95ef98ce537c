// Every operation: references against central differences, then all devices against the references.
import { after, test } from 'node:test';
import { checkDevices, checkReference, input, type OpCase, testDevices } from '../../../test/support/op.js';
import type { Parameter } from '../autograd.js';
import type { Tensor } from '../tensor.js';
import { viewOf } from '../tensor.js';
import { addResidual } from './add/add.js';
import { attention, planPacked } from './attention/attention.js';
import { attentionGradientReference, attentionReference } from './attention/reference.js';
import { embedding } from './embedding/embedding.js';
import { gatherRows } from './gather-rows/gather-rows.js';
import { linear } from './linear/linear.js';
import { linearGradientReference, linearReference } from './linear/reference.js';
import { rmsnormGradientReference, rmsnormReference } from './rmsnorm/reference.js';
import { rmsnorm } from './rmsnorm/rmsnorm.js';
import { ropeReference } from './rope/reference.js';
import { rope, ropeTables } from './rope/rope.js';
import { swigluGradientReference, swigluReference } from './swiglu/reference.js';
import { swiglu } from './swiglu/swiglu.js';
import { tokenLogprobGradientReference, tokenLogprobReference } from './token-logprob/reference.js';
import { tokenLogprob } from './token-logprob/token-logprob.js';

const devices = testDevices();
after(() => Promise.all(devices.map(({ device }) => device.close())));

const t = (x: Tensor | Parameter) => x as Tensor;
const p = (x: Tensor | Parameter) => x as Parameter;

const linearCase = (rows: number, k: number, n: number): OpCase => ({
  name: `linear ${rows} x ${k} x ${n}`,
  inputs: [input([rows, k], 1), input([n, k], 2, { parameter: true })],
  forward: ([x, w]) => linearReference(x, w, rows, k, n),
  backward: ([x, w], dy) => linearGradientReference(x, w, dy, rows, k, n),
  run: (c, [x, w]) => linear(c, t(x), p(w)),
});

const rmsnormCase = (rows: number, n: number): OpCase => ({
  name: `rmsnorm ${rows} x ${n}`,
  inputs: [input([rows, n], 3), input([n], 4, { parameter: true })],
  forward: ([x, w]) => rmsnormReference(x, w, 1e-5),
  backward: ([x, w], dy) => rmsnormGradientReference(x, w, dy, 1e-5),
  run: (c, [x, w]) => rmsnorm(c, t(x), p(w), 1e-5),
});

const swigluCase = (rows: number, n: number): OpCase => ({
  name: `swiglu ${rows} x ${n}`,
  inputs: [input([rows, n], 5, { scale: 6 }), input([rows, n], 6)],
  forward: ([g, u]) => swigluReference(g, u),
  backward: ([g, u], dy) => swigluGradientReference(g, u, dy),
  run: (c, [g, u]) => swiglu(c, t(g), t(u)),
});

const addCase = (rows: number, n: number): OpCase => ({
  name: `add ${rows} x ${n}`,
  inputs: [input([rows, n], 7), input([rows, n], 8)],
  forward: ([x, z]) => x.map((v, i) => v + z[i]),
  backward: (_, dy) => [dy, dy],
  run: (c, [x, z]) => addResidual(c, t(x), t(z)),
});

const embeddingCase = (ids: readonly number[], vocabulary: number, d: number): OpCase => ({
  name: `embedding of ${ids.length} ids, ${vocabulary} x ${d}`,
  inputs: [input([vocabulary, d], 9, { parameter: true })],
  forward: ([table]) => Float64Array.from(ids.flatMap((id) => [...table.slice(id * d, (id + 1) * d)])),
  backward: ([table], dy) => {
    const out = new Float64Array(table.length);
    ids.forEach((id, r) => {
      for (let i = 0; i < d; i++) out[id * d + i] += dy[r * d + i];
    });
    return [out];
  },
  run: (c, [table]) => embedding(c, p(table), c.device.upload(ids, 'i32')),
});

const gatherCase = (rows: number, index: readonly number[], d: number): OpCase => ({
  name: `gather ${index.length} of ${rows} rows of ${d}`,
  inputs: [input([rows, d], 10)],
  forward: ([x]) => Float64Array.from(index.flatMap((r) => [...x.slice(r * d, (r + 1) * d)])),
  backward: ([x], dy) => {
    const out = new Float64Array(x.length);
    index.forEach((r, n) => {
      for (let i = 0; i < d; i++) out[r * d + i] += dy[n * d + i];
    });
    return [out];
  },
  run: (c, [x]) => gatherRows(c, t(x), c.device.upload(index, 'i32')),
});

const ropeCase = (positions: readonly number[], heads: number, headDim: number): OpCase => ({
  name: `rope of ${positions.length} rows, ${heads} heads of ${headDim}`,
  inputs: [input([positions.length, heads * headDim], 11)],
  forward: ([x]) => ropeReference(x, positions, headDim, 10000),
  backward: (_, dy) => [ropeReference(dy, positions, headDim, 10000, -1)],
  run: (c, [x]) => {
    // In place: the output is another view, so that its gradient is the input's own.
    const tables = ropeTables(c.device, 64, headDim, 10000);
    rope(c, t(x), c.device.upload(positions, 'i32'), tables);
    c.tape?.record([], () => {
      c.device.free(tables.cos);
      c.device.free(tables.sin);
    });
    return t(x);
  },
});

const attentionCase = (
  heads: number,
  kvHeads: number,
  headDim: number,
  lengths: readonly number[],
): OpCase => {
  const rows = lengths.reduce((a, b) => a + b, 0);
  const shape = { heads, kvHeads, headDim };
  return {
    name: `attention ${heads}/${kvHeads} heads of ${headDim}, lengths ${lengths.join(' ')}`,
    inputs: [
      input([rows, heads * headDim], 12, { scale: 2 }),
      input([rows, kvHeads * headDim], 13, { scale: 2 }),
      input([rows, kvHeads * headDim], 14),
    ],
    forward: ([q, k, v]) => attentionReference(shape, q, k, v, lengths),
    backward: ([q, k, v], dout) => attentionGradientReference(shape, q, k, v, dout, lengths),
    run: (c, [q, k, v]) => attention(c, shape, t(q), t(k), t(v), planPacked(c.device, lengths)),
  };
};

const logprobCase = (tokens: readonly number[], n: number, temperature: number): OpCase => ({
  name: `token log-probability ${tokens.length} x ${n} at temperature ${temperature}`,
  inputs: [input([tokens.length, n], 15, { scale: 5 })],
  forward: ([logits]) => tokenLogprobReference(logits, tokens, n, temperature),
  backward: ([logits], dout) => [tokenLogprobGradientReference(logits, tokens, n, temperature, dout)],
  // Both outputs as one tensor, so that both gradients are tested at once.
  run: (c, [logits]) => {
    const { logprob, entropy } = tokenLogprob(c, t(logits), c.device.upload(tokens, 'i32'), temperature);
    const rows = tokens.length;
    const both = c.device.temporary([2 * rows]);
    c.device.floats(viewOf(both, [rows])).set(c.device.floats(logprob));
    c.device.floats(viewOf(both, [rows], rows)).set(c.device.floats(entropy));
    c.tape?.record([both], () => {
      const d = c.tape?.arrived(both);
      if (!d) return;
      for (const [output, start] of [
        [logprob, 0],
        [entropy, rows],
      ] as const) {
        const into = c.tape?.contribute(output).tensor;
        if (into) c.device.floats(into).set(c.device.floats(viewOf(d, [rows], start)));
      }
    });
    return both;
  },
});

const range = (n: number, f: (i: number) => number) => Array.from({ length: n }, (_, i) => f(i));

const small: OpCase[] = [
  ...[
    [1, 1, 1],
    [1, 5, 3],
    [2, 7, 9],
    [3, 16, 8],
    [5, 3, 17],
    [6, 8, 16],
    [7, 33, 15],
    [13, 17, 33],
    [0, 4, 4],
  ].map(([r, k, n]) => linearCase(r, k, n)),
  ...[
    [1, 1],
    [1, 7],
    [3, 8],
    [5, 17],
    [2, 33],
    [0, 8],
  ].map(([r, n]) => rmsnormCase(r, n)),
  ...[
    [1, 1],
    [3, 7],
    [2, 33],
    [0, 8],
  ].map(([r, n]) => swigluCase(r, n)),
  ...[
    [1, 1],
    [3, 7],
    [0, 8],
  ].map(([r, n]) => addCase(r, n)),
  embeddingCase([0], 1, 1),
  embeddingCase([3, 0, 3, 6, 3], 7, 5),
  embeddingCase(
    range(19, (i) => (i * 5) % 11),
    11,
    17,
  ),
  gatherCase(5, [4, 0, 2], 7),
  gatherCase(
    33,
    range(15, (i) => 2 * i),
    16,
  ),
  ropeCase([0], 1, 2),
  ropeCase([0, 1, 2, 0, 5], 3, 6),
  ropeCase(
    range(9, (i) => 7 * i),
    2,
    10,
  ),
  ropeCase(
    range(5, (i) => i),
    2,
    16,
  ),
  attentionCase(1, 1, 2, [1]),
  attentionCase(2, 1, 6, [3, 1, 5]),
  attentionCase(4, 2, 10, [15, 16, 17]),
  attentionCase(2, 2, 8, [4, 33, 2]),
  attentionCase(3, 1, 5 * 2, [20]),
  logprobCase([0], 1, 1),
  logprobCase([2, 0, 4], 5, 1),
  logprobCase(
    range(9, (i) => i % 7),
    7,
    0.7,
  ),
  logprobCase(
    range(17, (i) => (i * 3) % 33),
    33,
    1.5,
  ),
];

/** Past the blocks: more k than K_BLOCK, more rows than an item, more elements than a chunk. Devices only. */
const large: OpCase[] = [
  { ...linearCase(5, 1030, 9), tolerance: 1e-5 },
  linearCase(101, 9, 20),
  rmsnormCase(70, 40),
  swigluCase(40, 70),
  addCase(40, 70),
];

test('references agree with central differences', () => {
  for (const op of small) checkReference(op);
});

for (const op of [...small, ...large]) test(op.name, () => checkDevices(op, devices));
