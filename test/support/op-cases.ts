// Every operation as a case for `checkDevices`, in any shape.
import type { Parameter } from '../../src/compute/autograd.js';
import { addResidual } from '../../src/compute/op/add/add.js';
import { attention, planPacked } from '../../src/compute/op/attention/attention.js';
import { attentionGradientReference, attentionReference } from '../../src/compute/op/attention/reference.js';
import { embedding } from '../../src/compute/op/embedding/embedding.js';
import { gatherRows } from '../../src/compute/op/gather-rows/gather-rows.js';
import { linear } from '../../src/compute/op/linear/linear.js';
import { linearGradientReference, linearReference } from '../../src/compute/op/linear/reference.js';
import { rmsnormGradientReference, rmsnormReference } from '../../src/compute/op/rmsnorm/reference.js';
import { rmsnorm } from '../../src/compute/op/rmsnorm/rmsnorm.js';
import { ropeReference } from '../../src/compute/op/rope/reference.js';
import { rope, ropeTables } from '../../src/compute/op/rope/rope.js';
import { swigluGradientReference, swigluReference } from '../../src/compute/op/swiglu/reference.js';
import { swiglu } from '../../src/compute/op/swiglu/swiglu.js';
import {
  tokenLogprobGradientReference,
  tokenLogprobReference,
} from '../../src/compute/op/token-logprob/reference.js';
import { tokenLogprob } from '../../src/compute/op/token-logprob/token-logprob.js';
import type { Tensor } from '../../src/compute/tensor.js';
import { viewOf } from '../../src/compute/tensor.js';
import { input, type OpCase } from './op.js';

const t = (x: Tensor | Parameter) => x as Tensor;
const p = (x: Tensor | Parameter) => x as Parameter;

export const linearCase = (rows: number, k: number, n: number): OpCase => ({
  name: `linear ${rows} x ${k} x ${n}`,
  inputs: [input([rows, k], 1), input([n, k], 2, { parameter: true })],
  forward: ([x, w]) => linearReference(x, w, rows, k, n),
  backward: ([x, w], dy) => linearGradientReference(x, w, dy, rows, k, n),
  run: (c, [x, w]) => linear(c, t(x), p(w)),
});

export const rmsnormCase = (rows: number, n: number): OpCase => ({
  name: `rmsnorm ${rows} x ${n}`,
  inputs: [input([rows, n], 3), input([n], 4, { parameter: true })],
  forward: ([x, w]) => rmsnormReference(x, w, 1e-5),
  backward: ([x, w], dy) => rmsnormGradientReference(x, w, dy, 1e-5),
  run: (c, [x, w]) => rmsnorm(c, t(x), p(w), 1e-5),
});

export const swigluCase = (rows: number, n: number): OpCase => ({
  name: `swiglu ${rows} x ${n}`,
  inputs: [input([rows, n], 5, { scale: 6 }), input([rows, n], 6)],
  forward: ([g, u]) => swigluReference(g, u),
  backward: ([g, u], dy) => swigluGradientReference(g, u, dy),
  run: (c, [g, u]) => swiglu(c, t(g), t(u)),
});

export const addCase = (rows: number, n: number): OpCase => ({
  name: `add ${rows} x ${n}`,
  inputs: [input([rows, n], 7), input([rows, n], 8)],
  forward: ([x, z]) => x.map((v, i) => v + z[i]),
  backward: (_, dy) => [dy, dy],
  run: (c, [x, z]) => addResidual(c, t(x), t(z)),
});

export const embeddingCase = (ids: readonly number[], vocabulary: number, d: number): OpCase => ({
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

export const gatherCase = (rows: number, index: readonly number[], d: number): OpCase => ({
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

export const ropeCase = (positions: readonly number[], heads: number, headDim: number): OpCase => ({
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

export const attentionCase = (
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

export const logprobCase = (tokens: readonly number[], n: number, temperature: number): OpCase => ({
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

/** x + W_down (silu(W_gate a) * W_up a) with a = rmsnorm(x): inputs with several uses, whose gradients add up. */
export const feedForwardCase = (rows: number, d: number, inner: number): OpCase => {
  const eps = 1e-5;
  const stages = ([x, norm, gate, up]: readonly Float64Array[]) => {
    const a = rmsnormReference(x, norm, eps);
    const g = linearReference(a, gate, rows, d, inner);
    const u = linearReference(a, up, rows, d, inner);
    return { a, g, u, h: swigluReference(g, u) };
  };
  return {
    name: `feed-forward block ${rows} x ${d} x ${inner}`,
    inputs: [
      input([rows, d], 20),
      input([d], 21, { parameter: true }),
      ...[22, 23].map((seed) => input([inner, d], seed, { parameter: true })),
      input([d, inner], 24, { parameter: true }),
    ],
    forward: (inputs) => {
      const y = linearReference(stages(inputs).h, inputs[4], rows, inner, d);
      return inputs[0].map((x, i) => x + y[i]);
    },
    backward: (inputs, dy) => {
      const [x, norm, gate, up, down] = inputs;
      const { a, g, u, h } = stages(inputs);
      const [dh, ddown] = linearGradientReference(h, down, dy, rows, inner, d);
      const [dg, du] = swigluGradientReference(g, u, dh);
      const [fromGate, dgate] = linearGradientReference(a, gate, dg, rows, d, inner);
      const [fromUp, dup] = linearGradientReference(a, up, du, rows, d, inner);
      const da = fromGate.map((v, i) => v + fromUp[i]);
      const [fromNorm, dnorm] = rmsnormGradientReference(x, norm, da, eps);
      return [fromNorm.map((v, i) => v + dy[i]), dnorm, dgate, dup, ddown];
    },
    run: (c, [x, norm, gate, up, down]) => {
      const a = rmsnorm(c, t(x), p(norm), eps);
      return addResidual(c, t(x), linear(c, swiglu(c, linear(c, a, p(gate)), linear(c, a, p(up))), p(down)));
    },
  };
};
