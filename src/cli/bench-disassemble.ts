// retort bench --disassemble: the machine code of a kernel, as a small training step and a decoding round use it.
import { createDevice } from '../compute/device/device.js';
import type { Kernel } from '../compute/kernel/ir.js';
import { compileX64, x64Target } from '../compute/target/x64/compile.js';
import { whyNotX64, type X64 } from '../compute/target/x64/detect.js';
import { RetortError, refuse } from '../errors.js';
import { withDecoding, withTraining } from './bench-models.js';

/** Every kernel that training and decoding a small model takes, as built for the x86-64 target. */
export async function kernelsInUse(instructions: X64): Promise<Kernel[]> {
  // The interpreter runs them for any number of lanes, anywhere.
  const interpret = x64Target(instructions);
  const device = createDevice({ target: 'interpreter', threads: 1, interpret });
  try {
    // One tile of each size.
    withTraining(device, 16, { batch: 1, sequence: 8 + 4 + 1 }, (step) => step());
    for (const dtype of ['float32', 'bfloat16'] as const)
      withDecoding(device, 16, { batch: 2, tokens: 2, dtype }, (round) => round());
    return device.compiled();
  } finally {
    await device.close();
  }
}

/** The instructions of the kernels of this name, AVX-512's where they run here and AVX2 is not asked for. @throws RetortError bad-input where there is none */
export async function disassemble(name: string): Promise<{ kernel: string; instructions: string[] }[]> {
  const instructions = process.env.RETORT_TARGET === 'avx2' || whyNotX64('avx512') ? 'avx2' : 'avx512';
  const all = await kernelsInUse(instructions);
  const wanted = all.filter((k) => k.name === name);
  if (wanted.length === 0) {
    const names = [...new Set(all.map((k) => k.name))].sort().join(', ');
    throw refuse('bad-input', 'kernel (--disassemble)', name, `use one of ${names}`);
  }
  const { Decoder, DecoderOptions, Formatter, FormatterSyntax } = await loadIced();
  return wanted.map((kernel) => {
    const { bytes, codeSize } = compileX64(kernel);
    const decoder = new Decoder(64, bytes.subarray(0, codeSize), DecoderOptions.None);
    const formatter = new Formatter(FormatterSyntax.Intel);
    const lines: string[] = [];
    while (decoder.canDecode) {
      const instruction = decoder.decode();
      const at = Number(instruction.ip).toString(16).padStart(5, '0');
      lines.push(`${at}  ${formatter.format(instruction)}`);
      instruction.free();
    }
    decoder.free();
    formatter.free();
    return { kernel: kernel.name, instructions: lines };
  });
}

async function loadIced(): Promise<typeof import('iced-x86')> {
  try {
    return await import('iced-x86');
  } catch {
    throw new RetortError('bad-input', '--disassemble needs the package iced-x86; run: npm install iced-x86');
  }
}
