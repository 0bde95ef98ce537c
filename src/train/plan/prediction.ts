// What a run will take: bytes by kind, exactly, and seconds, by a measurement.
//
// The run's own code is played through on a dry device, which gives the bytes it asks for and, kernel by kernel, how much
// there is to compute. The same in smaller (shorter completions, fewer layers, fewer groups, until it takes about a
// second) is then played on the real device, and each kernel's speed there gives the time of the whole.
import { machineBytes, WASM_LIMIT } from '../../compute/device/backing.js';
import type { Device } from '../../compute/device/device.js';
import { DryDevice } from '../../compute/device/dry.js';
import type { MemoryKind } from '../../compute/device/memory.js';
import { type Rates, ratesOf, secondsOf } from './rates.js';
import type { ChangedOptions, Extent, Phase, Rehearsal } from './rehearsal.js';
import { countWork, type Times, timeWork, type Work } from './work.js';

/** Peaks, as `device.memory()` reports them. */
export type PlannedBytes = Readonly<Record<MemoryKind | 'total', number>>;

export interface PlannedMemory {
  /** Peak of device memory for whatever lengths come, gaps between blocks and the process itself included. */
  readonly needed: number;
  /** What this machine has, or the process may have of it, or WebAssembly. */
  readonly machine: number;
  readonly fits: boolean;
  /** Where it does not fit: options with which it does; null where none were found. */
  readonly instead: { readonly options: ChangedOptions; readonly needed: number } | null;
}

export interface PlannedSeconds {
  /** The mean of a step by phase. */
  readonly phases: Readonly<Partial<Record<Phase, number>>>;
  /** Everything but evaluations. */
  readonly step: number;
}

export interface Played {
  readonly bytes: PlannedBytes;
  readonly needed: number;
  /** By phase, step by step. */
  readonly work: ReadonlyMap<Phase, readonly Work[]>;
}

/** Node, this program, and copies that are made outside device memory; seen in runs of the models that ship. */
const PROCESS_BYTES = 200 * 2 ** 20;
/** Operations a measured step may have, for each lane of each thread: some tenths of a second. */
const MEASURED_FLOPS = 2.5e9;

export async function playDry(
  { target, threads }: Pick<Device, 'target' | 'threads'>,
  rehearsal: Rehearsal,
  extent: Extent,
): Promise<Played> {
  const device = new DryDevice(target, threads);
  const work = new Map<Phase, Work[]>();
  const watch = countWork(device);
  await rehearsal.play(device, extent, (phase) => {
    work.set(phase, [...(work.get(phase) ?? []), watch.take()]);
  });
  const report = Object.entries(device.memory()) as [MemoryKind | 'total', { peak: number }][];
  const bytes = Object.fromEntries(report.map(([kind, { peak }]) => [kind, peak])) as PlannedBytes;
  return { bytes, needed: device.memoryReach + PROCESS_BYTES, work };
}

/** What a run may take on this machine: WebAssembly's memory ends sooner than the machine's. */
export function limitOf({ target }: Pick<Device, 'target'>): number {
  return Math.min(
    machineBytes(),
    target.name === 'x64' ? Number.POSITIVE_INFINITY : WASM_LIMIT + PROCESS_BYTES,
  );
}

type Sizes = Pick<Played, 'bytes' | 'needed'>;

/** The highest peaks of several. */
function highest(all: readonly Sizes[]): Sizes {
  const kinds = Object.keys(all[0].bytes) as (keyof PlannedBytes)[];
  const peaks = kinds.map((kind) => [kind, Math.max(...all.map(({ bytes }) => bytes[kind]))]);
  return {
    bytes: Object.fromEntries(peaks) as PlannedBytes,
    needed: Math.max(...all.map(({ needed }) => needed)),
  };
}

interface Tried extends Sizes {
  readonly rehearsals: readonly Rehearsal[];
  readonly options: ChangedOptions;
}

/** Kinds of memory that options change. */
const CHANGEABLE = ['activations', 'kvCache'] as const;

/** Whether all of them fit, and if not, the options that make them fit, each halved until they do. */
export async function planMemory(
  device: Pick<Device, 'target' | 'threads'>,
  all: readonly { readonly rehearsal: Rehearsal; readonly played: Sizes }[],
  extent: Extent,
  limit: number,
): Promise<PlannedMemory> {
  const sizes = highest(all.map(({ played }) => played));
  const plan = { needed: sizes.needed, machine: limit, fits: sizes.needed <= limit, instead: null };
  let now: Tried | null = { ...sizes, rehearsals: all.map((one) => one.rehearsal), options: {} };
  while (now && now.needed > limit) now = await lighten(device, now, extent);
  return !now || plan.fits ? plan : { ...plan, instead: { options: now.options, needed: now.needed } };
}

/** The first change that takes less of the dearest kind, or of another where nothing does; null where there is none. */
async function lighten(
  device: Pick<Device, 'target' | 'threads'>,
  now: Tried,
  extent: Extent,
): Promise<Tried | null> {
  for (const kind of [...CHANGEABLE].sort((a, b) => now.bytes[b] - now.bytes[a])) {
    for (const options of now.rehearsals[0].lighter(kind)) {
      const rehearsals = now.rehearsals.map((r) => r.with(options));
      const sizes: Sizes[] = [];
      for (const rehearsal of rehearsals) sizes.push(await playDry(device, rehearsal, extent));
      const next = highest(sizes);
      if (next.bytes[kind] < now.bytes[kind])
        return { ...next, rehearsals, options: { ...now.options, ...options } };
    }
  }
  return null;
}

function flopsOf(work: ReadonlyMap<Phase, readonly Work[]>): number {
  const last = [...work.values()].flatMap((steps) => [...(steps.at(-1)?.values() ?? [])]);
  return last.reduce((sum, { flops }) => sum + flops, 0);
}

/** Steps of a measurement: one to warm up, one whose launches are timed, one that is timed as a whole. */
const MEASURED_STEPS = 3;

/** Measures the run in smaller and gives the seconds of `work`; null where even that does not fit this machine. */
export async function planSeconds(
  device: Device,
  rehearsal: Rehearsal,
  work: ReadonlyMap<Phase, readonly Work[]>,
  limit: number,
  { signal, onStage }: { readonly signal?: AbortSignal; readonly onStage?: (stage: string) => void },
): Promise<PlannedSeconds | null> {
  const extent = { steps: MEASURED_STEPS, evaluate: false, signal };
  const most = MEASURED_FLOPS * device.target.lanes * device.threads;
  let small = rehearsal;
  let counted = await playDry(device, small, extent);
  while (flopsOf(counted.work) > most) {
    const smaller = small.smaller();
    if (!smaller) break;
    small = smaller;
    counted = await playDry(device, small, extent);
  }
  if (counted.needed > limit) return null;
  onStage?.('measuring this machine');
  const times = await playTimed(device, small, extent);
  const rates = new Map<Phase, Rates>();
  for (const [phase, measured] of times) {
    const [, single, whole] = counted.work.get(phase) as readonly Work[];
    rates.set(phase, ratesOf({ work: single, times: measured[1] }, { work: whole, times: measured[2] }));
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

/** The times of each phase, step by step; those of launches hold in the second step, where each runs as it is made. */
async function playTimed(device: Device, rehearsal: Rehearsal, extent: Extent): Promise<Map<Phase, Times[]>> {
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
