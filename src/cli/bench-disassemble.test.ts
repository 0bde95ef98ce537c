// Every kernel in use, and random ones, decode to valid instructions from the first byte to the last, with jumps where the
// processor keeps them decoded.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, Decoder, DecoderOptions, FlowControl, Mnemonic } from 'iced-x86';
import { randomKernel } from '../../test/support/random-kernel.js';
import { buildKernel } from '../compute/kernel/builder.js';
import type { Kernel } from '../compute/kernel/ir.js';
import { compileX64, X64_TARGETS } from '../compute/target/x64/compile.js';
import { whyNotX64 } from '../compute/target/x64/detect.js';
import { disassemble, kernelsInUse } from './bench-disassemble.js';

const JUMPS = [FlowControl.ConditionalBranch, FlowControl.UnconditionalBranch];

/** What is asked of an instruction; the decoder's own is freed. */
interface Decoded {
  readonly at: number;
  readonly next: number;
  readonly code: Code;
  readonly mnemonic: Mnemonic;
  readonly flowControl: FlowControl;
  readonly isInvalid: boolean;
}

function instructionsOf(kernel: Kernel): Decoded[] {
  const { bytes, codeSize } = compileX64(kernel);
  const decoder = new Decoder(64, bytes.subarray(0, codeSize), DecoderOptions.None);
  const all: Decoded[] = [];
  while (decoder.canDecode) {
    const instruction = decoder.decode();
    const { code, mnemonic, flowControl, isInvalid } = instruction;
    const [at, next] = [Number(instruction.ip), Number(instruction.nextIP)];
    all.push({ at, next, code, mnemonic, flowControl, isInvalid });
    instruction.free();
  }
  decoder.free();
  return all;
}

/**
 * Instructions of the kernel's code; fails at one that is none, or that goes past the code's end, and at a jump that, with
 * the comparison before it, crosses or ends a line of 32 bytes.
 */
function decode(kernel: Kernel): number {
  const all = instructionsOf(kernel);
  let compared = -1;
  for (const { at, next, mnemonic, flowControl, isInvalid } of all) {
    assert.ok(!isInvalid, `${kernel.name}: no instruction at ${at}`);
    if (JUMPS.includes(flowControl))
      assert.equal(
        (compared < 0 ? at : compared) >> 5,
        next >> 5,
        `${kernel.name}: a jump at ${at} in one line`,
      );
    compared = mnemonic === Mnemonic.Cmp ? at : -1;
  }
  assert.equal(all.at(-1)?.code, Code.Retnq, `${kernel.name} ends with ret`);
  return all.length;
}

for (const instructions of ['avx2', 'avx512'] as const)
  test(`the code of kernels in use and of 300 random ones decodes: ${instructions}`, async () => {
    const kernels = await kernelsInUse(instructions);
    assert.ok(kernels.length > 20);
    for (const kernel of kernels) assert.ok(decode(kernel) > 5);
    for (let seed = 1; seed <= 300; seed++) decode(randomKernel(seed, X64_TARGETS[instructions]).kernel);
  });

test('what is asked for later goes to the second-level cache, also where a loop takes several turns at once', () => {
  for (const later of [false, true]) {
    const kernel = buildKernel('asking', X64_TARGETS.avx2, { x: 'f32*' }, (b, { x }) => {
      b.items((i) => {
        b.prefetch(x, b.add(i, 64), 0, { later });
        b.store(x, i, b.add(b.load(x, i), 1));
      });
    });
    const asked = instructionsOf(kernel)
      .map(({ mnemonic }) => mnemonic)
      .filter((m) => [Mnemonic.Prefetcht0, Mnemonic.Prefetcht1].includes(m));
    assert.ok(asked.length > 1);
    assert.ok(asked.every((m) => m === (later ? Mnemonic.Prefetcht1 : Mnemonic.Prefetcht0)));
  }
});

test('a kernel is disassembled by name, and an unknown name lists the known ones', async () => {
  const [{ kernel, instructions }] = await disassemble('matmul');
  assert.equal(kernel, 'matmul');
  assert.ok(instructions.filter((line) => line.includes('vfmadd231ps')).length >= 12);
  // The code that runs here: with AVX-512 the tile takes more registers than AVX2 has.
  if (!whyNotX64('avx512') && process.env.RETORT_TARGET !== 'avx2')
    assert.ok(instructions.some((line) => line.includes('zmm28')));
  await assert.rejects(disassemble('nothing'), /"nothing"; use one of adamw, .*matmul, /s);
});
