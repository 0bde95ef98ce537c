// Checks an operation: its reference against finite differences, then every device against the reference, bit for bit
// among devices that must agree, in guarded memory.
import assert from 'node:assert/strict';
import { narrow, widen } from '../../src/checkpoint/half.js';
import { type Context, type Parameter, Tape } from '../../src/compute/autograd.js';
import { createDevice, type Device, type DeviceOptions } from '../../src/compute/device/device.js';
import type { TargetInfo } from '../../src/compute/kernel/ir.js';
import { X64_TARGETS } from '../../src/compute/target/x64/compile.js';
import { whyNotX64 } from '../../src/compute/target/x64/detect.js';
import type { Tensor } from '../../src/compute/tensor.js';
import { philox } from '../../src/random.js';
import { guardMemory } from './guarded-memory.js';

/** One input of an operation: a tensor whose gradient is wanted, or a parameter. */
export interface Input {
  readonly shape: readonly number[];
  readonly values: Float64Array;
  readonly parameter?: boolean;
}

/** An operation with one output, in float64 and on a device. */
export interface OpCase {
  readonly name: string;
  readonly inputs: readonly Input[];
  /** The output in float64. */
  forward(inputs: readonly Float64Array[]): Float64Array;
  /** The gradients of all inputs in float64, from that of the output. */
  backward(inputs: readonly Float64Array[], dout: Float64Array): Float64Array[];
  /** The operation itself; inputs come as tensors or parameters, in order. */
  run(c: Context, inputs: readonly (Tensor | Parameter)[]): Tensor;
  /** Largest error allowed, relative to the norm of the reference. Default 2e-6: float32 sums of some dozens of terms. */
  readonly tolerance?: number;
}

/** Numbers in [-1, 1) that depend on the seed and look like noise; exact in float32. */
export function noise(size: number, seed: number, scale = 1): Float64Array {
  return Float64Array.from({ length: size }, (_, i) =>
    Math.fround(scale * ((philox(seed, i, 0, 0)[0] >>> 8) / 2 ** 23 - 1)),
  );
}

export function input(
  shape: readonly number[],
  seed: number,
  options: { scale?: number; parameter?: boolean } = {},
): Input {
  const size = shape.reduce((a, b) => a * b, 1);
  return { shape, values: noise(size, seed, options.scale ?? 1), parameter: options.parameter };
}

/** The nearest bfloat16 numbers. */
export function bfloat16(values: Float64Array): Float64Array {
  const into = new Float32Array(values.length);
  widen('BF16', narrow('BF16', Float32Array.from(values)), into);
  return Float64Array.from(into);
}

/** Norm of the difference over the norm of the reference (over 1 where that is smaller). */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assert.equal(actual.length, expected.length);
  let difference = 0;
  let size = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i] - expected[i]) ** 2;
    size += expected[i] ** 2;
  }
  return Math.sqrt(difference) / Math.max(1, Math.sqrt(size));
}

/** A device in guarded memory; those of one `agree` must give the same bits. */
export interface TestDevice {
  readonly name: string;
  readonly agree: string;
  readonly device: Device;
}

function open(name: string, agree: string, options: DeviceOptions): TestDevice {
  return { name, agree, device: guardMemory(createDevice(options)) };
}

/** Each target that runs here on one, two and four threads: those of a target must give the same bits. */
export function threadedDevices(): TestDevice[] {
  const native = (['avx2', 'avx512'] as const).filter((instructions) => !whyNotX64(instructions));
  const targets = ['wasm', ...native] as const;
  return targets.flatMap((target) =>
    [1, 2, 4].map((threads) => open(`${target}, ${threads} threads`, target, { target, threads })),
  );
}

/** The devices that every operation runs on. */
export function testDevices(): TestDevice[] {
  const interpreter = (lanes: number, fusedMulAdd: boolean): DeviceOptions => ({
    target: 'interpreter',
    threads: 1,
    interpret: { lanes, fusedMulAdd },
  });
  const threaded = threadedDevices();
  const { fusedMulAdd } = threaded[0].device.target;
  // One of the two as a processor that finds by itself what is read in order: machine code runs as this one is.
  const streaming: TargetInfo = { ...X64_TARGETS.avx512, streams: true };
  return [
    ...threaded,
    open('interpreter as wasm', 'wasm', interpreter(4, fusedMulAdd)),
    open('interpreter as AVX2', 'avx2', { ...interpreter(8, true), interpret: X64_TARGETS.avx2 }),
    open('interpreter as AVX-512', 'avx512', { ...interpreter(16, true), interpret: streaming }),
    open('interpreter, 8 lanes, not fused', 'b', interpreter(8, false)),
  ];
}

/** Runs the operation on one device and gives output and gradients. */
function runOn(
  device: Device,
  op: OpCase,
  dout: Float64Array,
): { out: Float32Array; gradients: Float32Array[] } {
  const mark = device.mark();
  const make = (shape: readonly number[], values: ArrayLike<number>) => {
    const t = device.temporary(shape);
    device.floats(t).set(values);
    return t;
  };
  const tape = new Tape(device);
  const captured: (Tensor | undefined)[] = [];
  const before = op.inputs.map(({ values }, i) => noise(values.length, 70 + i));
  const given = op.inputs.map(({ shape, values, parameter }, i): Tensor | Parameter => {
    const value = make(shape, values);
    if (parameter) {
      // Gradients of parameters are added to what is there.
      const gradient = make(shape, before[i]);
      return { name: `input ${i}`, value, gradient, version: 0, packed: new Map() };
    }
    // Recorded before the operation, so it runs after its backward step.
    tape.record([], () => {
      captured[i] = tape.arrived(value);
    });
    return value;
  });
  const output = op.run({ device, tape }, given);
  const out = device.floats(output).slice();
  device.floats(tape.contribute(output).tensor).set(dout);
  tape.backward();
  const gradients = given.map((g, i) => {
    if ('gradient' in g) return device.floats(g.gradient as Tensor).map((x, j) => x - before[i][j]);
    const t = captured[i];
    return t ? device.floats(t).slice() : new Float32Array(op.inputs[i].values.length);
  });
  for (const g of given) if ('packed' in g) for (const { tensor } of g.packed.values()) device.free(tensor);
  device.rewind(mark);
  return { out, gradients };
}

/** Central differences of the float64 reference agree with its gradients. */
export function checkReference(op: OpCase): void {
  const inputs = op.inputs.map((i) => i.values);
  const out = op.forward(inputs);
  const dout = noise(out.length, 99);
  const objective = (values: readonly Float64Array[]) =>
    op.forward(values).reduce((sum, x, i) => sum + x * dout[i], 0);
  const gradients = op.backward(inputs, dout);
  const step = 1e-5;
  gradients.forEach((gradient, which) => {
    const count = Math.min(gradient.length, 24);
    for (let n = 0; n < count; n++) {
      const i = Math.floor((n * gradient.length) / count);
      const at = (delta: number) => {
        const moved = inputs.map((v) => v.slice());
        moved[which][i] += delta;
        return objective(moved);
      };
      const numeric = (at(step) - at(-step)) / (2 * step);
      const scale = Math.max(1, Math.abs(numeric));
      assert.ok(
        Math.abs(numeric - gradient[i]) < 1e-6 * scale,
        `${op.name}: input ${which}[${i}]: reference gradient ${gradient[i]}, central difference ${numeric}`,
      );
    }
  });
}

/** Every device against the float64 reference, and devices that must agree bit for bit. */
export function checkDevices(op: OpCase, devices: readonly TestDevice[]): void {
  const inputs = op.inputs.map((i) => i.values);
  const expected = op.forward(inputs);
  const dout = noise(expected.length, 99);
  const gradients = op.backward(inputs, dout);
  const tolerance = op.tolerance ?? 2e-6;
  const first = new Map<string, { out: Float32Array; gradients: Float32Array[] }>();
  for (const { name, agree, device } of devices) {
    const got = runOn(device, op, dout);
    const error = relativeError(got.out, expected);
    assert.ok(error <= tolerance, `${op.name} on ${name}: output off by ${error}`);
    got.gradients.forEach((g, i) => {
      const e = relativeError(g, gradients[i]);
      assert.ok(e <= 2 * tolerance, `${op.name} on ${name}: gradient of input ${i} off by ${e}`);
    });
    const before = first.get(agree);
    if (!before) first.set(agree, got);
    else {
      assert.deepEqual(got.out, before.out, `${op.name}: output on ${name} differs in bits`);
      assert.deepEqual(got.gradients, before.gradients, `${op.name}: gradients on ${name} differ in bits`);
    }
  }
}
