// What a run has to do, kernel by kernel: counted from the launches, or timed as they are made.
import type { CompiledKernel, Device } from '../../compute/device/device.js';
import { type Cost, costOf, NOTHING, plus, times } from '../../compute/kernel/cost.js';
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
 * A cost that depends on what is in memory, attention's on the lengths of sequences, changes little from one token to the
 * next: for so many launches an item costs what it did.
 */
const COUNTED_AGAIN = 64;

/** Windows of items that stand for all of them, and the items of one, where there are more than they hold. */
const WINDOWS = 16;
const WINDOW = 16;

/** The cost of all items; of many that tables tell apart, that of windows among them makes the rest. */
function costOfItems(items: number, tables: boolean, count: (begin: number, end: number) => Cost): Cost {
  if (!tables || items <= WINDOWS * WINDOW) return count(0, items);
  let cost = NOTHING;
  for (let i = 0; i < WINDOWS; i++) {
    const begin = Math.floor(((items - WINDOW) * i) / (WINDOWS - 1));
    cost = plus(cost, count(begin, begin + WINDOW));
  }
  return times(cost, items / (WINDOWS * WINDOW));
}

/** Counts what each launch costs. */
export function countWork(device: Device): Watch<Work> {
  /** Where only the items and the scalars say what a launch costs. */
  const certain = new Map<string, Cost>();
  /** Of one item, where memory says it too. */
  const tabled = new Map<string, { cost: Cost; left: number }>();
  let work = new Map<string, KernelWork>();

  const costFor = (
    { id, kernel }: CompiledKernel,
    items: number,
    buffers: readonly Tensor[],
    rest: readonly number[],
  ) => {
    // Kernels made for different shapes may share a name.
    const key = `${id} ${rest}`;
    const exact = certain.get(`${key} ${items}`);
    if (exact) return exact;
    const known = tabled.get(key);
    if (known && known.left-- > 0) return times(known.cost, items);
    const views = new Map<number, Int32Array>();
    const tables = kernel.buffers.some(({ element }) => element === 'i32');
    const cost = costOfItems(items, tables, (begin, end) =>
      costOf(kernel, [begin, end, 0, ...rest], (buffer, index) => {
        let view = views.get(buffer);
        if (!view) {
          view = device.ints(buffers[buffer]);
          views.set(buffer, view);
        }
        return view[index];
      }),
    );
    if (views.size === 0 && cost.exact) certain.set(`${key} ${items}`, cost);
    else tabled.set(key, { cost: times(cost, 1 / items), left: COUNTED_AGAIN });
    return cost;
  };

  const end = hook(device, (launch, [compiled, items, buffers, scalars, grain]) => {
    if (items > 0) {
      const { flops, loaded, stored } = costFor(compiled, items, buffers, scalars);
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
