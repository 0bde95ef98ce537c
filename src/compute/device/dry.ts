// A dry device: it computes nothing and holds no floats. It counts the bytes that a run asks for, and tells each launch.
//
// A run that is played through on it allocates as it would on a real device of the same target and threads, whatever the
// memory of this machine. Integers are held, since they say how much there is to do; floats read as 0.
import { RetortError } from '../../errors.js';
import type { ElementType, Kernel, TargetInfo } from '../kernel/ir.js';
import type { Tensor } from '../tensor.js';
import type { Backing } from './backing.js';
import { type CompiledKernel, Device } from './device.js';
import type { MemoryKind } from './memory.js';

/** Memory without bytes, and without end. */
const NOTHING: Backing = {
  shared: new SharedArrayBuffer(0),
  buffer: new ArrayBuffer(0),
  start: 0,
  base: 0,
  reach() {},
};

export class DryDevice extends Device {
  readonly #built = new Map<string, CompiledKernel>();
  /** By byte offset, of tensors that were made with integers. */
  readonly #integers = new Map<number, Int32Array>();

  constructor(target: TargetInfo, threads: number) {
    super(target, threads, NOTHING);
    // What is recorded once and run again would be told once.
    this.stepwise = true;
  }

  override tensor(kind: MemoryKind, shape: readonly number[], element: ElementType = 'f32'): Tensor {
    return this.#hold(super.tensor(kind, shape, element));
  }
  override temporary(shape: readonly number[], element: ElementType = 'f32'): Tensor {
    return this.#hold(super.temporary(shape, element));
  }

  #hold(t: Tensor): Tensor {
    if (t.element === 'i32') this.#integers.set(t.byteOffset, new Int32Array(t.size));
    return t;
  }

  /** Zeros that nobody else sees. */
  override floats(t: Tensor): Float32Array {
    return new Float32Array(t.size);
  }
  override ints(t: Tensor): Int32Array {
    let start = t.byteOffset;
    let held = this.#integers.get(start);
    if (!held) {
      // A part of a tensor: of that which starts closest before it.
      start = Math.max(...[...this.#integers.keys()].filter((at) => at < t.byteOffset));
      held = this.#integers.get(start);
    }
    const skipped = (t.byteOffset - start) / 4;
    if (!held || skipped + t.size > held.length)
      throw new RetortError(
        'bad-kernel',
        `integers at ${t.byteOffset} of a dry device, which holds none there`,
      );
    return held.subarray(skipped, skipped + t.size);
  }
  override fill(t: Tensor, value: number): void {
    if (t.element === 'i32') this.ints(t).fill(value);
  }

  /** Builds the kernel, for its costs; there is nothing to compile. */
  override kernel(key: string, build: (target: TargetInfo) => Kernel): CompiledKernel {
    let known = this.#built.get(key);
    if (!known) {
      known = { id: this.#built.size, kernel: build(this.target) };
      this.#built.set(key, known);
    }
    return known;
  }
  override compiled(): Kernel[] {
    return [...this.#built.values()].map(({ kernel }) => kernel);
  }
  override launch(
    _: CompiledKernel,
    _items: number,
    _buffers: readonly Tensor[],
    _scalars: readonly number[],
    _grain?: number,
  ): void {
    this.launches++;
  }
}
