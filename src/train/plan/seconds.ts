// The seconds a run will take. A dry device tells, kernel by kernel, how much there is to compute; the same in smaller
// (shorter completions, fewer layers, fewer groups, until a step takes some tenths of a second) is played on the real device,
// and each kernel's speed there gives the time of the whole.
import type { Device } from '../../compute/device/device.js';
import { DryDevice } from '../../compute/device/dry.js';
import { sizesOf } from './memory.js';
import { type Rates, ratesOf, secondsOf } from './rates.js';
import type { Extent, Phase, Rehearsal } from './rehearsal.js';
import { countWork, type Times, timeWork, type Work } from './work.js';

export interface PlannedSeconds {
  /** The mean of a step by phase. */
  readonly phases: Readonly<Partial<Record<Phase, number>>>;
  /** Everything but evaluations. */
  readonly step: number;
}

/** By phase, step by step. */
type Steps<T> = ReadonlyMap<Phase, readonly T[]>;

/** Operations a measured step may have, for each lane of each thread: some tenths of a second. */
const MEASURED_FLOPS = 2.5e9;
/** Steps of a measurement: one to warm up, one whose launches are timed, one that is timed as a whole. */
const MEASURED_STEPS = 3;

async function workOf(device: Device, rehearsal: Rehearsal, extent: Extent): Promise<Steps<Work>> {
  const dry = new DryDevice(device.target, device.threads);
  const watch = countWork(dry);
  const work = new Map<Phase, Work[]>();
  await rehearsal.play(dry, extent, (phase) => {
    work.set(phase, [...(work.get(phase) ?? []), watch.take()]);
  });
  return work;
}

/** Of a step, without evaluations. */
function flopsOf(work: Steps<Work>): number {
  const phases = [...work].filter(([phase]) => phase !== 'evaluation');
  const last = phases.flatMap(([, steps]) => [...(steps.at(-1)?.values() ?? [])]);
  return last.reduce((sum, { flops }) => sum + flops, 0);
}

/**
 * Measures the run in smaller and gives the seconds of the steps in `extent`; null where even the smaller one does not fit
 * the limit.
 */
export async function planSeconds(
  device: Device,
  rehearsal: Rehearsal,
  extent: Extent,
  limit: number,
  onStage: (stage: string) => void = () => {},
): Promise<PlannedSeconds | null> {
  onStage('counting operations');
  const work = await workOf(device, rehearsal, extent);
  const { signal } = extent;
  const most = MEASURED_FLOPS * device.target.lanes * device.threads;
  let small = rehearsal;
  for (let flops = flopsOf(work); flops > most; ) {
    const smaller = small.smaller();
    if (!smaller) break;
    small = smaller;
    flops = flopsOf(await workOf(device, small, { steps: 1, evaluate: false, signal }));
  }
  const measured = { steps: MEASURED_STEPS, evaluate: false, signal };
  if ((await sizesOf(device, small, measured)).needed > limit) return null;
  const counted = await workOf(device, small, measured);
  onStage('measuring this machine');
  const times = await timesOf(device, small, measured);
  const rates = new Map<Phase, Rates>();
  for (const [phase, [, single, whole]] of counted) {
    const [, timesOfSingle, timesOfWhole] = times.get(phase) as readonly Times[];
    rates.set(phase, ratesOf({ work: single, times: timesOfSingle }, { work: whole, times: timesOfWhole }));
  }
  const phases: Partial<Record<Phase, number>> = {};
  let step = 0;
  for (const [phase, steps] of work) {
    // An evaluation computes as what is measured: as rollouts where there are some.
    const known = rates.get(phase) ?? rates.get('rollout') ?? (rates.get('update') as Rates);
    const seconds = steps.reduce((sum, one) => sum + secondsOf(one, known), 0) / steps.length;
    phases[phase] = seconds;
    if (phase !== 'evaluation') step += seconds;
  }
  return { phases, step };
}

/** The times of launches hold in the second step, where each runs as it is made. */
async function timesOf(device: Device, rehearsal: Rehearsal, extent: Extent): Promise<Steps<Times>> {
  const times = new Map<Phase, Times[]>();
  const watch = timeWork(device);
  try {
    await rehearsal.play(device, extent, (phase, step) => {
      times.set(phase, [...(times.get(phase) ?? []), watch.take()]);
      if (phase === 'update') device.stepwise = step === 1;
    });
  } finally {
    device.stepwise = false;
    watch.end();
  }
  return times;
}
