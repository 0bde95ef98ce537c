// The bytes a run will take: its own code is played through on a dry device, which gives what it asks for, exactly.
import { machineBytes, WASM_LIMIT } from '../../compute/device/backing.js';
import type { Device } from '../../compute/device/device.js';
import { DryDevice } from '../../compute/device/dry.js';
import type { MemoryKind } from '../../compute/device/memory.js';
import type { ChangedOptions, Extent, Rehearsal } from './rehearsal.js';

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

/** What a rehearsal took. */
export interface Sizes {
  readonly bytes: PlannedBytes;
  /** As `PlannedMemory.needed`. */
  readonly needed: number;
}

/** Node, this program, and copies that are made outside device memory; seen in runs of the models that ship. */
const PROCESS_BYTES = 200 * 2 ** 20;

/** What a rehearsal takes on a device of this target and so many threads. */
export async function sizesOf(
  { target, threads }: Pick<Device, 'target' | 'threads'>,
  rehearsal: Rehearsal,
  extent: Extent,
): Promise<Sizes> {
  const device = new DryDevice(target, threads);
  await rehearsal.play(device, extent, () => {});
  const report = Object.entries(device.memory()) as [MemoryKind | 'total', { peak: number }][];
  const bytes = Object.fromEntries(report.map(([kind, { peak }]) => [kind, peak])) as PlannedBytes;
  return { bytes, needed: device.memoryReach + PROCESS_BYTES };
}

/** What a run may take on this machine: WebAssembly's memory ends sooner than the machine's. */
export function limitOf({ target }: Pick<Device, 'target'>): number {
  return Math.min(
    machineBytes(),
    target.name === 'x64' ? Number.POSITIVE_INFINITY : WASM_LIMIT + PROCESS_BYTES,
  );
}

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
  all: readonly { readonly rehearsal: Rehearsal; readonly sizes: Sizes }[],
  extent: Extent,
  limit: number,
): Promise<PlannedMemory> {
  const sizes = highest(all.map((one) => one.sizes));
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
      for (const rehearsal of rehearsals) sizes.push(await sizesOf(device, rehearsal, extent));
      const next = highest(sizes);
      if (next.bytes[kind] < now.bytes[kind])
        return { ...next, rehearsals, options: { ...now.options, ...options } };
    }
  }
  return null;
}
