// Makes a device surround everything it allocates with guard zones, and hand out memory that holds NaN.
//
// A kernel that writes past its buffers changes a zone; one that reads past them, or relies on fresh memory being
// zero, computes with NaN. Nothing in the device knows of it, so it works for operations and for whole models.
// On the interpreter every kernel gets buffers of just their tensors' sizes, so that it throws at any index outside.
import assert from 'node:assert/strict';
import type { Device } from '../../src/compute/device/device.js';
import type { StepMark } from '../../src/compute/device/memory.js';
import { prepareInterpreter } from '../../src/compute/kernel/interpreter.js';
import type { ElementType } from '../../src/compute/kernel/ir.js';
import type { Tensor } from '../../src/compute/tensor.js';

/** Elements of a zone: as many as the most lanes there are, and a cache line, so that alignment stays. */
const ZONE = 16;
/** A NaN with a payload that no arithmetic gives; as an integer it lies outside every index. */
const SENTINEL = 0x7fc0dead;

/** Runs kernels by the interpreter over views that end where their tensors end. */
function boundBuffers(device: Device): void {
  const { launch } = device;
  const prepared = new Map<number, ReturnType<typeof prepareInterpreter>>();
  device.stepwise = true;
  device.launch = (compiled, items, buffers, scalars, grain) => {
    // What the device itself checks of a launch.
    launch.call(device, compiled, 0, buffers, scalars, grain);
    const { id, kernel } = compiled;
    const run = prepared.get(id) ?? prepareInterpreter(kernel, device.target);
    prepared.set(id, run);
    const views = buffers.map((t) => (t.element === 'f32' ? device.floats(t) : device.ints(t)));
    if (items > 0) run(views, [0, items, 0, ...scalars]);
  };
}

/** Guards what the device allocates from now on. The zones are checked whenever memory is given back. */
export function guardMemory(device: Device): Device {
  const { temporary, tensor, free, mark, rewind } = device;
  let zones: Tensor[] = [];
  const persistent = new Map<number, Tensor>();
  const marks = new WeakMap<StepMark, number>();

  const surround = (whole: Tensor, shape: readonly number[], element: ElementType): Tensor => {
    device.ints({ ...whole, element: 'i32' }).fill(SENTINEL);
    return { shape, element, size: whole.size - 2 * ZONE, byteOffset: whole.byteOffset + 4 * ZONE };
  };
  const padded = (shape: readonly number[]) => [shape.reduce((a, b) => a * b, 1) + 2 * ZONE];
  const check = (whole: Tensor) => {
    const words = device.ints({ ...whole, element: 'i32' });
    for (let i = 0; i < ZONE; i++) {
      assert.equal(
        words[i],
        SENTINEL,
        `memory written ${ZONE - i} elements before a tensor of ${whole.size - 2 * ZONE}`,
      );
      assert.equal(
        words.at(i - ZONE),
        SENTINEL,
        `memory written ${i + 1} elements past a tensor of ${whole.size - 2 * ZONE}`,
      );
    }
  };

  device.temporary = (shape, element = 'f32') => {
    const whole = temporary.call(device, padded(shape), element);
    zones.push(whole);
    return surround(whole, shape, element);
  };
  device.tensor = (kind, shape, element = 'f32') => {
    const whole = tensor.call(device, kind, padded(shape), element);
    const inner = surround(whole, shape, element);
    persistent.set(inner.byteOffset, whole);
    return inner;
  };
  device.free = (t) => {
    const whole = persistent.get(t.byteOffset);
    assert.ok(whole, 'freed a tensor that was not allocated under guard');
    check(whole);
    persistent.delete(t.byteOffset);
    free.call(device, whole);
  };
  device.mark = () => {
    const m = mark.call(device);
    marks.set(m, zones.length);
    return m;
  };
  device.rewind = (m) => {
    const first = marks.get(m) ?? 0;
    for (const whole of zones.slice(first)) check(whole);
    for (const whole of persistent.values()) check(whole);
    zones = zones.slice(0, first);
    rewind.call(device, m);
  };
  if (device.target.name === 'interpreter') boundBuffers(device);
  return device;
}
