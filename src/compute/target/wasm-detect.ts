// What WebAssembly can do here: runtime switches that help kernels, and whether multiply-add is fused.
import v8 from 'node:v8';
import type { TargetInfo } from '../kernel/ir.js';
import { plain, simd, unsigned } from './wasm-encoder.js';

let found: TargetInfo | undefined;

/**
 * The WebAssembly target of this runtime. Call it before anything else compiles WebAssembly: V8 reads its switches
 * then, and they hold for the whole process. mulAdd counts as fused only where f32x4.relaxed_madd is there and rounds once (it may not, by its
 * specification, on chips without such an instruction).
 */
export function wasmTarget(): TargetInfo {
  found ??= detect();
  return found;
}

function detect(): TargetInfo {
  // Kernels run for most of the time, so they are optimised before their first call, not after many slow ones.
  v8.setFlagsFromString('--no-liftoff');
  v8.setFlagsFromString('--no-wasm-lazy-compilation');
  // V8 before 13 unrolls a matrix product's inner loop such that its sums no longer fit the registers: half the speed.
  v8.setFlagsFromString('--no-wasm-loop-unrolling');
  const probe = probeModule();
  // Node 20 has the instruction behind a switch; newer V8 has no such switch and would complain of it.
  if (!WebAssembly.validate(probe)) v8.setFlagsFromString('--experimental-wasm-relaxed-simd');
  return {
    name: 'wasm',
    lanes: 4,
    // x86-64 has 16, and V8 keeps one to itself.
    vectorRegisters: 15,
    fusedMulAdd: WebAssembly.validate(probe) && isFused(probe),
  };
}

/** The probe computes a*b+c in one lane. */
function isFused(probe: Uint8Array<ArrayBuffer>): boolean {
  const instance = new WebAssembly.Instance(new WebAssembly.Module(probe));
  const run = instance.exports.run as (a: number, b: number, c: number) => number;
  const x = 1 + 2 ** -12;
  // x*x is 1 + 2^-11 + 2^-24, whose last bit is lost when the product is rounded by itself.
  return run(2, 3, 5) === 11 && run(x, x, -1) === 2 ** -11 + 2 ** -24;
}

function probeModule(): Uint8Array<ArrayBuffer> {
  const operand = (i: number) => [plain.localGet, i, 0xfd, simd.f32x4Splat];
  const madd = [0xfd, ...unsigned(simd.f32x4RelaxedMadd)];
  const lane = [0xfd, simd.f32x4ExtractLane, 0];
  const body = [0, ...operand(0), ...operand(1), ...operand(2), ...madd, ...lane, plain.end];
  return new Uint8Array([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...[1, 8, 1, 0x60, 3, 0x7d, 0x7d, 0x7d, 1, 0x7d],
    ...[3, 2, 1, 0],
    ...[7, 7, 1, 3, 0x72, 0x75, 0x6e, 0, 0],
    ...[10, body.length + 2, 1, body.length, ...body],
  ]);
}
