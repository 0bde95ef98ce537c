// The x86-64 target against the interpreter, bit for bit, on random kernels whose buffers end at guard pages.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomKernel } from '../../../../test/support/random-kernel.js';
import { x64Runner } from '../../../../test/support/x64-runner.js';
import { interpret } from '../../kernel/interpreter.js';
import { X64_TARGETS } from './compile.js';
import { whyNotX64 } from './detect.js';

type Arrays = readonly (Float32Array | Int32Array)[];

function difference(wanted: Arrays, got: Arrays): string | undefined {
  for (const [i, w] of wanted.entries())
    for (const [j, v] of w.entries())
      if (!Object.is(v, got[i][j])) return `buffer ${i} at ${j}: ${v} and ${got[i][j]}`;
  return undefined;
}

for (const instructions of ['avx2', 'avx512'] as const) {
  const target = X64_TARGETS[instructions];
  const skip = whyNotX64(instructions) ?? false;
  for (const at of ['end', 'start'] as const)
    test(`${instructions}: 1,000 random kernels as the interpreter, buffers at the ${at} of a page`, {
      skip,
    }, () => {
      let changed = 0;
      for (let seed = 1; seed <= 1000; seed++) {
        const { kernel, buffers, scalars } = randomKernel(seed, target);
        const wanted = buffers.map((b) => b.slice());
        const got = buffers.map((b) => b.slice());
        interpret(kernel, target, wanted, scalars);
        x64Runner(kernel, at)(got, scalars);
        assert.equal(difference(wanted, got), undefined, `seed ${seed}`);
        if (difference(wanted, buffers)) changed++;
      }
      assert.ok(changed > 900, `only ${changed} of the kernels wrote anything`);
    });
}
