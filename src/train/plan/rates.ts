// Speeds of kernels as they were measured, and the seconds of other work at those speeds.
import type { KernelWork, Times, Work } from './work.js';

export interface Rates {
  /** Seconds of an operation of each kernel; of a byte, where it only moves them. */
  readonly kernels: ReadonlyMap<string, number>;
  /** Of a kernel that was not among them. */
  readonly others: number;
  /** Seconds between one launch and the next. */
  readonly between: number;
  /** What all of it is to be multiplied with. */
  readonly correction: number;
}

interface Measured {
  readonly work: Work;
  readonly times: Times;
}

const unitsOf = ({ flops, bytes }: KernelWork) => (flops > 0 ? flops : bytes);
const sum = (values: Iterable<number>) => [...values].reduce((a, b) => a + b, 0);
const launchesOf = (work: Work) => sum([...work.values()].map(({ launches }) => launches));

/**
 * Speeds from work whose launches were timed one by one, corrected so that they give the time of work that was timed as a
 * whole.
 */
export function ratesOf({ work, times }: Measured, whole: Measured): Rates {
  const kernels = new Map<string, number>();
  for (const [name, one] of work) kernels.set(name, (times.kernels.get(name) ?? 0) / unitsOf(one));
  const inside = sum(times.kernels.values());
  const rates = {
    kernels,
    others: inside / sum([...work.values()].map(unitsOf)),
    between: Math.max(0, times.wall - inside) / launchesOf(work),
    correction: 1,
  };
  return { ...rates, correction: whole.times.wall / secondsOf(whole.work, rates) };
}

export function secondsOf(work: Work, { kernels, others, between, correction }: Rates): number {
  let seconds = between * launchesOf(work);
  for (const [name, one] of work) seconds += unitsOf(one) * (kernels.get(name) ?? others);
  return correction * seconds;
}
