// retort bench --profile: where the time of a training step and of a decoding step goes, kernel by kernel.
import type { Device } from '../compute/device/device.js';
import { type Cost, costOf, NOTHING, plus } from '../compute/kernel/cost.js';
import { peakNow } from './bench-measure.js';
import { percent, table } from './terminal.js';

/** One kernel's part of a step. */
export interface KernelProfile {
  readonly kernel: string;
  /** Per step. */
  readonly launches: number;
  readonly seconds: number;
  readonly flops: number;
  /** Whether flops and bytes are exact, or at most those. */
  readonly exact: boolean;
  /** Bytes that its instructions load and store, from caches or memory. */
  readonly bytes: number;
  /** Of the step's time. */
  readonly shareOfTime: number;
  /** Of what the multiply-add loop does in the kernel's time. */
  readonly shareOfPeak: number;
}

export interface Profile {
  readonly secondsPerStep: number;
  readonly kernels: readonly KernelProfile[];
  /** Of the step's time: JavaScript between the kernels. */
  readonly outside: number;
}

/**
 * Profiles `work`, which runs `steps` steps each time: twice to warm up, once to count what each launch costs, once for
 * the time.
 */
export function profile(device: Device, steps: number, work: () => void): Profile {
  work();
  work();
  const costs = new Map<string, Cost>();
  const times = new Map<string, { launches: number; seconds: number }>();
  const { launch, stepwise } = device;
  // A step that is run again as one list tells nothing of its kernels.
  device.stepwise = true;
  device.launch = (compiled, items, buffers, scalars, grain) => {
    const { kernel } = compiled;
    const ints = (i: number, at: number) => device.ints(buffers[i])[at];
    const cost = items > 0 ? costOf(kernel, [0, items, 0, ...scalars], ints) : NOTHING;
    costs.set(kernel.name, plus(costs.get(kernel.name) ?? NOTHING, cost));
    launch.call(device, compiled, items, buffers, scalars, grain);
  };
  try {
    work();
    device.launch = (compiled, items, buffers, scalars, grain) => {
      const began = performance.now();
      launch.call(device, compiled, items, buffers, scalars, grain);
      const entry = times.get(compiled.kernel.name) ?? { launches: 0, seconds: 0 };
      if (items > 0) entry.launches++;
      entry.seconds += (performance.now() - began) / 1000;
      times.set(compiled.kernel.name, entry);
    };
    const before = peakNow(device);
    times.clear();
    const began = performance.now();
    work();
    const total = (performance.now() - began) / 1000;
    const peak = (before + peakNow(device)) / 2;
    const launched = [...costs].filter(([kernel]) => times.get(kernel)?.launches);
    const kernels = launched.map(([kernel, { flops, loaded, stored, exact }]): KernelProfile => {
      const { launches, seconds } = times.get(kernel) ?? { launches: 0, seconds: 0 };
      return {
        kernel,
        launches: launches / steps,
        seconds: seconds / steps,
        flops: flops / steps,
        exact,
        bytes: (loaded + stored) / steps,
        shareOfTime: seconds / total,
        shareOfPeak: flops / seconds / peak,
      };
    });
    kernels.sort((a, b) => b.seconds - a.seconds);
    const inside = kernels.reduce((sum, k) => sum + k.shareOfTime, 0);
    return { secondsPerStep: total / steps, kernels, outside: 1 - inside };
  } finally {
    device.launch = launch;
    device.stepwise = stepwise;
  }
}

export function profileTable(title: string, { secondsPerStep, kernels, outside }: Profile): string {
  const header = ['kernel', 'launches', 'us each', 'of time', 'MB moved', 'GFLOP/s', 'of peak'];
  const rows = kernels.map((k) => [
    k.kernel,
    k.launches.toFixed(1),
    ((1e6 * k.seconds) / k.launches).toFixed(1),
    percent(k.shareOfTime),
    `${k.exact ? '' : '<'}${(k.bytes / 1e6).toFixed(1)}`,
    `${k.exact ? '' : '<'}${(k.flops / k.seconds / 1e9).toFixed(1)}`,
    `${k.exact ? '' : '<'}${percent(k.shareOfPeak)}`,
  ]);
  const rest = ['between kernels', '', '', percent(outside), '', '', ''];
  return `${title}, ${(1000 * secondsPerStep).toFixed(2)} ms a step\n${table([header, ...rows, rest])}`;
}
