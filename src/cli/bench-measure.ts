// Timing beside a register-only multiply-add loop: what counts is the share of what the chip gave at that moment.
import type { Device } from '../compute/device/device.js';
import { peakFlops, peakKernel } from '../compute/target/peak.js';

/** What repeated runs of one piece of work gave. */
export interface Measured {
  /** Median of a run. */
  readonly seconds: number;
  /** Median over the runs of work done against what the loop does in the same time on the same threads. */
  readonly shareOfPeak: number;
  /** The loop's best, GFLOP/s of one thread. */
  readonly peakGflops: number;
  /** How far the loop's speed varied, as a share of its best: what others took from the machine meanwhile. */
  readonly disturbance: number;
}

/** About 10 ms at 40 GFLOP/s. */
const ROUNDS = 500_000;

/** FLOP/s of the loop on all threads of the device, now. */
export function peakNow(device: Device): number {
  const mark = device.mark();
  const out = device.temporary([device.threads]);
  const kernel = device.kernel('peak', peakKernel);
  const began = performance.now();
  device.launch(kernel, device.threads, [out], [ROUNDS, 0.5, 1]);
  const seconds = (performance.now() - began) / 1000;
  device.rewind(mark);
  return (device.threads * peakFlops(device.target, ROUNDS)) / seconds;
}

/**
 * Times `work`, which does `flops` operations, after two runs for warming up.
 * @param runs of which medians are taken
 */
export function measure(device: Device, runs: number, flops: number, work: () => void): Measured {
  peakNow(device);
  work();
  work();
  let before = peakNow(device);
  const peaks = [before];
  const seconds: number[] = [];
  const shares: number[] = [];
  for (let run = 0; run < runs; run++) {
    const began = performance.now();
    work();
    const took = (performance.now() - began) / 1000;
    const after = peakNow(device);
    seconds.push(took);
    shares.push(flops / took / ((before + after) / 2));
    peaks.push(after);
    before = after;
  }
  const best = Math.max(...peaks);
  return {
    seconds: median(seconds),
    shareOfPeak: median(shares),
    peakGflops: best / device.threads / 1e9,
    disturbance: 1 - Math.min(...peaks) / best,
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length / 2;
  return sorted.length % 2 ? sorted[Math.floor(half)] : (sorted[half - 1] + sorted[half]) / 2;
}
