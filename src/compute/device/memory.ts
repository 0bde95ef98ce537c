// Memory of a device: one range of bytes, persistent blocks by kind, and a step arena that is rewound.
import { RetortError } from '../../errors.js';
import type { Backing } from './backing.js';

/** What a block is for; peaks are reported by it. */
export type MemoryKind =
  | 'parameters'
  /** Weights of a model that is only compared with. */
  | 'reference'
  | 'gradients'
  | 'optimizer'
  | 'activations'
  | 'kvCache'
  | 'packed'
  | 'other';

export interface MemoryUse {
  readonly current: number;
  readonly peak: number;
}
export type MemoryReport = Readonly<Record<MemoryKind, MemoryUse>> & { readonly total: MemoryUse };

const KINDS: readonly MemoryKind[] = [
  'parameters',
  'reference',
  'gradients',
  'optimizer',
  'activations',
  'kvCache',
  'packed',
  'other',
];
const ALIGN = 64;
/**
 * The step arena grows by chunks that double from the first size to the last. Sizes differ from step to step: chunks
 * made to measure would be too small for the next step, and the arena would grow for ever.
 */
const FIRST_CHUNK = 4 << 20;
const LAST_CHUNK = 64 << 20;

interface Block {
  offset: number;
  bytes: number;
}

/** Hands out byte ranges. Nothing here is read or written by kernels directly. */
export class DeviceMemory {
  readonly backing: Backing;
  #end = ALIGN;
  #free: Block[] = [];
  #sizes = new Map<number, { bytes: number; kind: MemoryKind }>();
  #current = new Map<MemoryKind, number>(KINDS.map((k) => [k, 0]));
  #peak = new Map<MemoryKind, number>(KINDS.map((k) => [k, 0]));
  #total = 0;
  #totalPeak = 0;
  #chunks: Block[] = [];
  #chunk = 0;
  #used = 0;

  constructor(backing: Backing) {
    this.backing = backing;
  }

  /** Bytes from the start to the end of all that was ever handed out: peaks, and what lay between blocks. */
  get reach(): number {
    return this.#end;
  }

  /** A block that stays until `release`. Its content is unspecified. */
  allocate(kind: MemoryKind, bytes: number): number {
    const size = roundUp(Math.max(bytes, 1), ALIGN);
    const offset = this.#take(size);
    this.#sizes.set(offset, { bytes: size, kind });
    this.#count(kind, size);
    return offset;
  }

  release(offset: number): void {
    const held = this.#sizes.get(offset);
    if (!held) throw new RetortError('bad-kernel', `released memory at ${offset}, which is not allocated`);
    this.#sizes.delete(offset);
    this.#give({ offset, bytes: held.bytes });
    this.#count(held.kind, -held.bytes);
  }

  /** A block of the step arena: valid until the arena is rewound to a mark taken before. */
  allocateStep(bytes: number): number {
    const size = roundUp(Math.max(bytes, 1), ALIGN);
    while (this.#chunk < this.#chunks.length && this.#used + size > this.#chunks[this.#chunk].bytes) {
      this.#chunk++;
      this.#used = 0;
    }
    if (this.#chunk === this.#chunks.length) {
      this.#chunks.push(this.#takeChunk(size));
    }
    const offset = this.#chunks[this.#chunk].offset + this.#used;
    this.#used += size;
    this.#count('activations', size);
    return offset;
  }

  /** A chunk of a standard size that holds `size` bytes, or of just that size where memory is short. */
  #takeChunk(size: number): Block {
    const usual = Math.min(LAST_CHUNK, FIRST_CHUNK * 2 ** this.#chunks.length);
    const bytes = size > usual ? 2 ** Math.ceil(Math.log2(size)) : usual;
    try {
      return { offset: this.#take(bytes), bytes };
    } catch (error) {
      if (bytes === size) throw error;
      return { offset: this.#take(size), bytes: size };
    }
  }

  /** Where the step arena stands; pass it to `rewind`. */
  mark(): StepMark {
    return { chunk: this.#chunk, used: this.#used, bytes: this.#current.get('activations') as number };
  }

  /** Forgets every step block allocated after the mark. */
  rewind(mark: StepMark): void {
    this.#chunk = mark.chunk;
    this.#used = mark.used;
    this.#count('activations', mark.bytes - (this.#current.get('activations') as number));
  }

  report(): MemoryReport {
    const kinds = Object.fromEntries(
      KINDS.map((k) => [k, { current: this.#current.get(k) as number, peak: this.#peak.get(k) as number }]),
    ) as Record<MemoryKind, MemoryUse>;
    return { ...kinds, total: { current: this.#total, peak: this.#totalPeak } };
  }

  #count(kind: MemoryKind, bytes: number): void {
    const now = (this.#current.get(kind) as number) + bytes;
    this.#current.set(kind, now);
    if (now > (this.#peak.get(kind) as number)) this.#peak.set(kind, now);
    this.#total += bytes;
    if (this.#total > this.#totalPeak) this.#totalPeak = this.#total;
  }

  #take(size: number): number {
    const at = this.#free.findIndex((b) => b.bytes >= size);
    if (at >= 0) {
      const block = this.#free[at];
      const offset = block.offset;
      if (block.bytes === size) this.#free.splice(at, 1);
      else this.#free[at] = { offset: block.offset + size, bytes: block.bytes - size };
      return offset;
    }
    const offset = this.#end;
    this.backing.reach(offset + size);
    this.#end += size;
    return offset;
  }

  #give(block: Block): void {
    this.#free.push(block);
    this.#free.sort((a, b) => a.offset - b.offset);
    const merged: Block[] = [];
    for (const b of this.#free) {
      const last = merged.at(-1);
      if (last && last.offset + last.bytes === b.offset) last.bytes += b.bytes;
      else merged.push({ ...b });
    }
    this.#free = merged;
  }
}

export interface StepMark {
  readonly chunk: number;
  readonly used: number;
  readonly bytes: number;
}

function roundUp(n: number, to: number): number {
  return Math.ceil(n / to) * to;
}
