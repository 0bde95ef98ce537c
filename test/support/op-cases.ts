// Every operation as a case for `checkDevices`, in any shape.
import type { Parameter } from '../../src/compute/autograd.js';
import type { Device } from '../../src/compute/device/device.js';
import { attention, planPacked } from '../../src/compute/op/attention/attention.js';
import { rowWidth } from '../../src/compute/op/attention/layout.js';
import { attentionGradientReference, attentionReference } from '../../src/compute/op/attention/reference.js';
import { addBias } from '../../src/compute/op/bias/bias.js';
import { headDivergence } from '../../src/compute/op/divergence/head-divergence.js';
import {
  divergenceGradientReference,
  divergenceReference,
  topOf,
} from '../../src/compute/op/divergence/reference.js';
import { embedding } from '../../src/compute/op/embedding/embedding.js';
import { gatherRows } from '../../src/compute/op/gather-rows/gather-rows.js';
import { headNorm } from '../../src/compute/op/head-norm/head-norm.js';
import { linear } from '../../src/compute/op/linear/linear.js';
import { linearGradientReference, linearReference } from '../../src/compute/op/linear/reference.js';
import { rmsnormGradientReference, rmsnormReference } from '../../src/compute/op/rmsnorm/reference.js';
import { rmsnorm } from '../../src/compute/op/rmsnorm/rmsnorm.js';
import { ropeReference } from '../../src/compute/op/rope/reference.js';
import { rope, ropeTables } from '../../src/compute/op/rope/rope.js';
import { swigluGradientReference, swigluReference } from '../../src/compute/op/swiglu/reference.js';
import { swiglu } from '../../src/compute/op/swiglu/swiglu.js';
import { headLogprob } from '../../src/compute/op/token-logprob/head-logprob.js';
import {
  tokenLogprobGradientReference,
  tokenLogprobReference,
} from '../../src/compute/op/token-logprob/reference.js';
import type { Tensor } from '../../src/compute/tensor.js';
import { viewOf } from '../../src/compute/tensor.js';
import { input, noise, type OpCase } from './op.js';

/** The columns of x[rows, sum of widths] as one matrix for each width. */
function split(x: Float64Array, widths: readonly number[]): Float64Array[] {
  const width = widths.reduce((a, b) => a + b, 0);
  return widths.map((own, part) => {
    const first = widths.slice(0, part).reduce((a, b) => a + b, 0);
    return x.filter((_, i) => i % width >= first && i % width < first + own);
  });
}

/** Matrices of these widths side by side. */
export function beside(parts: readonly Float64Array[], widths: readonly number[]): Float64Array {
  const rows = parts[0].length / widths[0];
  return Float64Array.from(
    Array.from({ length: rows }, (_, r) =>
      parts.flatMap((x, part) => [...x.subarray(r * widths[part], (r + 1) * widths[part])]),
    ).flat(),
  );
}

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

/** Rows of `before` elements, the normalised heads, and one element more. */
export const headNormCase = (rows: number, before: number, heads: number, n: number): OpCase => {
  const widths = [before, heads * n, 1];
  return {
    name: `norm of ${heads} heads of ${n} after ${before}, ${rows} rows`,
    inputs: [input([rows, before + heads * n + 1], 25), input([n], 26, { parameter: true })],
    forward: ([x, w]) => {
      const [first, middle, last] = split(x, widths);
      return beside([first, rmsnormReference(middle, w, 1e-5), last], widths);
    },
    backward: ([x, w], dy) => {
      const [first, d, last] = split(dy, widths);
      const [dx, dw] = rmsnormGradientReference(split(x, widths)[1], w, d, 1e-5);
      return [beside([first, dx, last], widths), dw];
    },
    run: (c, [x, w]) => {
      headNorm(c, t(x), before, heads, p(w), 1e-5);
      return t(x);
    },
  };
};

export const biasCase = (rows: number, n: number): OpCase => ({
  name: `bias ${rows} x ${n}`,
  inputs: [input([rows, n], 27), input([n], 28, { parameter: true })],
  forward: ([x, bias]) => x.map((v, i) => v + bias[i % n]),
  backward: (_, dy) => {
    const db = new Float64Array(n);
    for (const [i, d] of dy.entries()) db[i % n] += d;
    return [dy, db];
  },
  run: (c, [x, bias]) => {
    addBias(c, t(x), p(bias));
    return t(x);
  },
});

export const swigluCase = (rows: number, n: number): OpCase => ({
  name: `swiglu ${rows} x ${n}`,
  inputs: [input([rows, 2 * n], 5, { scale: 6 })],
  forward: ([x]) => {
    const [g, u] = split(x, [n, n]);
    return swigluReference(g, u);
  },
  backward: ([x], dy) => {
    const [g, u] = split(x, [n, n]);
    return [beside(swigluGradientReference(g, u, dy), [n, n])];
  },
  run: (c, [x]) => swiglu(c, t(x)),
});

/** x V^T + x W^T, the first as the residual of the second: x has two uses, whose gradients add up. */
export const twoLinearCase = (rows: number, k: number, n: number): OpCase => ({
  name: `two linear layers ${rows} x ${k} x ${n}`,
  inputs: [
    input([rows, k], 7),
    input([n, k], 8, { parameter: true }),
    input([n, k], 19, { parameter: true }),
  ],
  forward: ([x, v, w]) => {
    const y = linearReference(x, w, rows, k, n);
    return linearReference(x, v, rows, k, n).map((z, i) => z + y[i]);
  },
  backward: ([x, v, w], dy) => {
    const [fromV, dv] = linearGradientReference(x, v, dy, rows, k, n);
    const [fromW, dw] = linearGradientReference(x, w, dy, rows, k, n);
    return [fromV.map((d, i) => d + fromW[i]), dv, dw];
  },
  run: (c, [x, v, w]) => linear(c, t(x), p(w), linear(c, t(x), p(v))),
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

/** Rows of `heads` heads that are turned and one more that is not. */
export const ropeCase = (
  positions: readonly number[],
  heads: number,
  headDim: number,
  factors: readonly number[] | null = null,
): OpCase => {
  const widths = [heads * headDim, headDim];
  const turned = (x: Float64Array, direction: number) => {
    const [first, last] = split(x, widths);
    return beside([ropeReference(first, positions, headDim, 10000, direction, factors), last], widths);
  };
  return {
    name: `rope of ${positions.length} rows, ${heads} heads of ${headDim}`,
    inputs: [input([positions.length, (heads + 1) * headDim], 11)],
    forward: ([x]) => turned(x, 1),
    backward: (_, dy) => [turned(dy, -1)],
    run: (c, [x]) => {
      // In place: the output is another view, so that its gradient is the input's own.
      const tables = ropeTables(c.device, 64, headDim, 10000, factors);
      rope(c, t(x), heads, c.device.upload(positions, 'i32'), tables);
      c.tape?.record([], () => {
        c.device.free(tables.cos);
        c.device.free(tables.sin);
      });
      return t(x);
    },
  };
};

export const attentionCase = (
  heads: number,
  kvHeads: number,
  headDim: number,
  lengths: readonly number[],
): OpCase => {
  const rows = lengths.reduce((a, b) => a + b, 0);
  const shape = { heads, kvHeads, headDim };
  const widths = [heads * headDim, kvHeads * headDim, kvHeads * headDim];
  const parts = [input([rows, widths[0]], 12, { scale: 2 }), input([rows, widths[1]], 13, { scale: 2 })];
  const values = beside(
    [...parts, input([rows, widths[2]], 14)].map((i) => i.values),
    widths,
  );
  return {
    name: `attention ${heads}/${kvHeads} heads of ${headDim}, lengths ${lengths.join(' ')}`,
    inputs: [{ shape: [rows, rowWidth(shape)], values }],
    forward: ([qkv]) => {
      const [q, k, v] = split(qkv, widths);
      return attentionReference(shape, q, k, v, lengths);
    },
    backward: ([qkv], dout) => {
      const [q, k, v] = split(qkv, widths);
      return [beside(attentionGradientReference(shape, q, k, v, dout, lengths), widths)];
    },
    run: (c, [qkv]) => attention(c, shape, t(qkv), planPacked(c.device, lengths)),
  };
};

/** From hidden states of width d; `rowsAtOnce` says how many rows of logits lie in memory. */
export const logprobCase = (
  tokens: readonly number[],
  d: number,
  n: number,
  temperature: number,
  rowsAtOnce = tokens.length,
): OpCase => {
  const rows = tokens.length;
  return {
    name: `token log-probability ${rows} x ${d} x ${n} at temperature ${temperature}, ${rowsAtOnce} rows at once`,
    inputs: [input([rows, d], 15, { scale: 3 }), input([n, d], 16, { scale: 3, parameter: true })],
    forward: ([x, head]) =>
      tokenLogprobReference(linearReference(x, head, rows, d, n), tokens, n, temperature),
    backward: ([x, head], dout) => {
      const logits = linearReference(x, head, rows, d, n);
      const dlogits = tokenLogprobGradientReference(logits, tokens, n, temperature, dout);
      return linearGradientReference(x, head, dlogits, rows, d, n);
    },
    // Both outputs as one tensor, so that both gradients are tested at once.
    run: (c, [x, head]) => {
      const ids = c.device.upload(tokens, 'i32');
      const options = { temperature, logitsBytes: 4 * n * rowsAtOnce };
      const { logprob, entropy } = headLogprob(c, t(x), p(head), ids, options);
      const both = c.device.temporary([2 * rows]);
      c.device.floats(viewOf(both, [rows])).set(c.device.floats(logprob));
      c.device.floats(viewOf(both, [rows], rows)).set(c.device.floats(entropy));
      c.tape?.record([both], () => {
        const dboth = c.tape?.arrived(both);
        if (!dboth) return;
        for (const [output, start] of [
          [logprob, 0],
          [entropy, rows],
        ] as const) {
          const into = c.tape?.contribute(output).tensor;
          if (into) c.device.floats(into).set(c.device.floats(viewOf(dboth, [rows], start)));
        }
      });
      return both;
    },
  };
};

/** A student of width d against a teacher of width 3, whole or by its `top` likeliest tokens. */
export const divergenceCase = (
  rows: number,
  d: number,
  n: number,
  options: { readonly beta: number; readonly temperature: number; readonly top: number | null },
  rowsAtOnce = rows,
): OpCase => {
  const { beta, temperature, top } = options;
  const [hidden, matrix] = [noise(rows * 3, 31, 3), noise(n * 3, 32, 2)];
  const teacher = linearReference(hidden, matrix, rows, 3, n);
  const name = top === null ? 'whole' : `top ${top}`;
  return {
    name: `divergence ${rows} x ${d} x ${n}, beta ${beta}, temperature ${temperature}, ${name}, ${rowsAtOnce} rows at once`,
    inputs: [input([rows, d], 29, { scale: 2 }), input([n, d], 30, { scale: 2, parameter: true })],
    forward: ([x, head]) => divergenceReference(linearReference(x, head, rows, d, n), teacher, n, options),
    backward: ([x, head], dout) => {
      const logits = linearReference(x, head, rows, d, n);
      const dlogits = divergenceGradientReference(logits, teacher, n, options, dout);
      return linearGradientReference(x, head, dlogits, rows, d, n);
    },
    run: (c, [x, head]) => {
      const { device } = c;
      const how = { beta, temperature, logitsBytes: 8 * n * rowsAtOnce };
      if (top !== null)
        return headDivergence(c, t(x), p(head), topTeacher(c.device, teacher, n, top, temperature), how);
      const value = device.upload(matrix, 'f32', [n, 3]);
      const given = { name: 'teacher', value, gradient: null, version: 0, packed: new Map() };
      c.tape?.record([], () => {
        for (const { tensor } of given.packed.values()) device.free(tensor);
      });
      return headDivergence(
        c,
        t(x),
        p(head),
        { hidden: device.upload(hidden, 'f32', [rows, 3]), head: given },
        how,
      );
    },
  };
};

function topTeacher(device: Device, teacher: Float64Array, n: number, k: number, temperature: number) {
  const ids: number[] = [];
  const logprobs: number[] = [];
  const rest: number[] = [];
  for (let at = 0; at < teacher.length; at += n) {
    const row = teacher.subarray(at, at + n);
    const sum = row.reduce((total, x) => total + Math.exp(x / temperature), 0);
    const kept = topOf(row, k);
    ids.push(...kept);
    logprobs.push(...kept.map((i) => row[i] / temperature - Math.log(sum)));
    const others = row.reduce(
      (total, x, i) => (kept.includes(i) ? total : total + Math.exp(x / temperature)),
      0,
    );
    rest.push(Math.max(-100, Math.log(others / sum)));
  }
  const rows = rest.length;
  return {
    ids: device.upload(ids, 'i32', [rows, k]),
    logprobs: device.upload(logprobs, 'f32', [rows, k]),
    rest: device.upload(rest, 'f32'),
  };
}

/** x + W_down (silu(W_gate a) * W_up a) with a = rmsnorm(x): inputs with several uses, whose gradients add up. */
export const feedForwardCase = (rows: number, d: number, inner: number): OpCase => {
  const eps = 1e-5;
  const stages = ([x, norm, gateUp]: readonly Float64Array[]) => {
    const a = rmsnormReference(x, norm, eps);
    const [g, u] = split(linearReference(a, gateUp, rows, d, 2 * inner), [inner, inner]);
    return { a, g, u, h: swigluReference(g, u) };
  };
  return {
    name: `feed-forward block ${rows} x ${d} x ${inner}`,
    inputs: [
      input([rows, d], 20),
      input([d], 21, { parameter: true }),
      input([2 * inner, d], 22, { parameter: true }),
      input([d, inner], 24, { parameter: true }),
    ],
    forward: (inputs) => {
      const y = linearReference(stages(inputs).h, inputs[3], rows, inner, d);
      return inputs[0].map((x, i) => x + y[i]);
    },
    backward: (inputs, dy) => {
      const [x, norm, gateUp, down] = inputs;
      const { a, g, u, h } = stages(inputs);
      const [dh, ddown] = linearGradientReference(h, down, dy, rows, inner, d);
      const both = beside(swigluGradientReference(g, u, dh), [inner, inner]);
      const [da, dgateUp] = linearGradientReference(a, gateUp, both, rows, d, 2 * inner);
      const [fromNorm, dnorm] = rmsnormGradientReference(x, norm, da, eps);
      return [fromNorm.map((v, i) => v + dy[i]), dnorm, dgateUp, ddown];
    },
    run: (c, [x, norm, gateUp, down]) => {
      const a = rmsnorm(c, t(x), p(norm), eps);
      return linear(c, swiglu(c, linear(c, a, p(gateUp))), p(down), t(x));
    },
  };
};
