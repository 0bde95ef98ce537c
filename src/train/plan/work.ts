// What a run has to do, kernel by kernel: counted from the launches, or timed as they are made.
import type { CompiledKernel, Device } from '../../compute/device/device.js';
import { type Cost, costOf } from '../../compute/kernel/cost.js';
import type { Tensor } from '../../compute/tensor.js';

/** A kernel's part of some work. */
export interface KernelWork {
  readonly launches: number;
  readonly flops: number;
  /** Loaded and stored, from caches or memory. */
  readonly bytes: number;
}
/** By the kernel's name. */
export type Work = ReadonlyMap<string, KernelWork>;

/** Seconds by the kernel's name, and in all, what is between kernels included. */
export interface Times {
  readonly kernels: ReadonlyMap<string, number>;
  readonly wall: number;
}

/** Watches launches until `end`; `take` gives what came since the last time. */
export interface Watch<T> {
  take(): T;
  end(): void;
}

/**
 * A cost that depends on tables of integers, attention's, changes little from one token to the next: so many launches of
 * the same items and scalars go by before it is counted again.
 */
const COUNTED_AGAIN = 64;

/** Counts what each launch costs. */
export function countWork(device: Device): Watch<Work> {
  const counted = new Map<string, { cost: Cost; left: number }>();
  let work = new Map<string, KernelWork>();

  const costFor = ({ kernel }: CompiledKernel, items: number, buffers: readonly Tensor[], rest: number[]) => {
    const key = `${kernel.name} ${items} ${rest}`;
    const known = counted.get(key);
    if (known && known.left-- > 0) return known.cost;
    let reads = false;
    const views = new Map<number, Int32Array>();
    const cost = costOf(kernel, [0, items, 0, ...rest], (buffer, index) => {
      reads = true;
      let view = views.get(buffer);
      if (!view) {
        view = device.ints(buffers[buffer]);
        views.set(buffer, view);
      }
      return view[index];
    });
    counted.set(key, { cost, left: reads ? COUNTED_AGAIN : Number.POSITIVE_INFINITY });
    return cost;
  };

  const end = hook(device, (launch, [compiled, items, buffers, scalars, grain]) => {
    if (items > 0) {
      const { flops, loaded, stored } = costFor(compiled, items, buffers, [...scalars]);
      const before = work.get(compiled.kernel.name) ?? { launches: 0, flops: 0, bytes: 0 };
      work.set(compiled.kernel.name, {
        launches: before.launches + 1,
        flops: before.flops + flops,
        bytes: before.bytes + loaded + stored,
      });
    }
    launch(compiled, items, buffers, scalars, grain);
  });
  return {
    take() {
      const taken = work;
      work = new Map();
      return taken;
    },
    end,
  };
}

/** Times each launch. */
export function timeWork(device: Device): Watch<Times> {
  let kernels = new Map<string, number>();
  let began = performance.now();
  const end = hook(device, (launch, args) => {
    const started = performance.now();
    launch(...args);
    const { name } = args[0].kernel;
    kernels.set(name, (kernels.get(name) ?? 0) + (performance.now() - started) / 1000);
  });
  return {
    take() {
      const now = performance.now();
      const taken = { kernels, wall: (now - began) / 1000 };
      kernels = new Map();
      began = now;
      return taken;
    },
    end,
  };
}

type Launch = Device['launch'];

function hook(device: Device, instead: (launch: Launch, args: Parameters<Launch>) => void): () => void {
  const { launch } = device;
  device.launch = (...args) => instead(launch.bind(device), args);
  return () => {
    device.launch = launch;
  };
}
