// Where the bytes of device memory lie: in a WebAssembly memory, or outside it, for machine code.
import os from 'node:os';
import { RetortError, refuse } from '../../errors.js';
import { native } from '../target/x64/native.js';

/** Memory that all threads reach. Offsets count from `start`; an offset of a block is a multiple of 64. */
export interface Backing {
  /** What a worker gets: who holds it keeps the memory. A WebAssembly memory is never for machine code. */
  readonly shared: SharedMemory;
  /** What views are made of. Where memory grows, an older buffer does not reach its end. */
  readonly buffer: ArrayBufferLike;
  /** Where offset 0 lies in the buffer, in bytes. */
  readonly start: number;
  /** What a kernel takes for offset 0: an address for machine code. */
  readonly base: number;
  /** Makes the bytes below `end` usable. @throws RetortError out-of-memory */
  reach(end: number): void;
}

/** Structured-cloneable. */
export type SharedMemory = WebAssembly.Memory | SharedArrayBuffer;

const WASM_PAGE = 65536;
/** Where WebAssembly's memory ends. */
export const WASM_LIMIT = 2 ** 32;
const PAGE = 4096;
/** Reserving less than this is given up. */
const LEAST = 2 ** 28;

/**
 * One WebAssembly memory, grown as needed.
 * @param maxBytes limit; undefined: 4 GiB
 * @throws RetortError bad-input for a limit that cannot be
 */
export function wasmBacking(maxBytes: number = WASM_LIMIT): Backing {
  checkLimit(maxBytes);
  if (maxBytes > WASM_LIMIT) {
    const remedy =
      'WebAssembly ends at 4294967296 (4 GiB); use machine code, which does not: RETORT_TARGET=x64';
    throw refuse('bad-input', 'maxBytes', maxBytes, remedy);
  }
  const maximum = Math.max(1, Math.floor(maxBytes / WASM_PAGE));
  const wasm = new WebAssembly.Memory({ initial: 1, maximum, shared: true });
  const more =
    maxBytes < WASM_LIMIT
      ? 'raise maxBytes'
      : 'use machine code, which does not end at 4 GiB: RETORT_TARGET=x64';
  return {
    shared: wasm,
    get buffer() {
      return wasm.buffer;
    },
    start: 0,
    base: 0,
    reach(end) {
      const missing = end - wasm.buffer.byteLength;
      if (missing <= 0) return;
      try {
        wasm.grow(Math.ceil(missing / WASM_PAGE));
      } catch (cause) {
        const limit = maximum * WASM_PAGE;
        throw full(end, end > limit ? limit : wasm.buffer.byteLength, more, cause);
      }
    },
  };
}

/**
 * Memory for machine code: a range of addresses reserved at once. The system gives a page, of 2 MiB where
 * it has such, when it is first touched, so what is not used costs nothing.
 * @param maxBytes bytes to reserve; undefined: what the machine has, or less where the system refuses that
 * @throws RetortError bad-input for a limit that cannot be, out-of-memory where the system refuses it
 */
export function nativeBacking(maxBytes?: number): Backing {
  const n = native();
  if (typeof n === 'string') throw new RetortError('bad-kernel', n);
  const { buffer, more } = maxBytes === undefined ? reserveMost() : reserveAsked(maxBytes);
  const address = n.addressOf(buffer);
  // The allocator's own header comes first, but blocks lie best at the start of a cache line.
  const start = -address & (PAGE - 1);
  const size = buffer.byteLength - PAGE;
  // Else the system would count the whole reservation again when this process starts another, and refuse.
  n.keepFromChildren(address + start, size);
  n.useHugePages(address + start, size);
  return {
    shared: buffer,
    buffer,
    start,
    base: address + start,
    reach(end) {
      if (end > size) throw full(end, size, more);
    },
  };
}

interface Reservation {
  /** A page more than was wanted, so that it can start where a page starts. */
  readonly buffer: SharedArrayBuffer;
  /** How there could be more. */
  readonly more: string;
}

function reserveAsked(maxBytes: number): Reservation {
  checkLimit(maxBytes);
  try {
    return { buffer: new SharedArrayBuffer(maxBytes + PAGE), more: 'raise maxBytes' };
  } catch (cause) {
    const message = `maxBytes: got ${maxBytes}; the system refuses to reserve that much: give less`;
    throw new RetortError('out-of-memory', message, { cause });
  }
}

/** What the machine has; a half, a quarter and so on where the address space or the commitment is limited. */
function reserveMost(): Reservation {
  const most = machineBytes();
  for (let size = most; ; size = Math.floor(size / 2)) {
    try {
      const buffer = new SharedArrayBuffer(size + PAGE);
      const limits = 'see ulimit -v and vm.overcommit_memory';
      const more = size === most ? 'a machine with more memory' : `let this process reserve more (${limits})`;
      return { buffer, more };
    } catch (cause) {
      if (size > LEAST) continue;
      const message = `the system refuses to reserve ${mib(size)} MiB for the device memory; end other programs`;
      throw new RetortError('out-of-memory', message, { cause });
    }
  }
}

/** What this machine has, or of it this process may have. */
export function machineBytes(): number {
  const constrained = process.constrainedMemory();
  // 0 or a number beyond all memory where there is no constraint.
  const bytes = Math.min(os.totalmem(), constrained > 0 ? constrained : Number.POSITIVE_INFINITY);
  // Linux refuses a reservation of more than all memory; a little is added to this one.
  return bytes - 2 ** 20;
}

function checkLimit(maxBytes: number): void {
  if (!Number.isSafeInteger(maxBytes) || maxBytes < 1)
    throw refuse('bad-input', 'maxBytes', maxBytes, 'give a whole number of bytes, at least 1');
}

function full(end: number, size: number, more: string, cause?: unknown): RetortError {
  const what = `the device memory cannot grow to ${mib(end)} MiB: it ends at ${mib(size)} MiB`;
  const remedy = `use a smaller batch, a shorter context or a smaller model, or ${more}`;
  return new RetortError('out-of-memory', `${what}; ${remedy}`, { cause });
}

function mib(bytes: number): string {
  return (Math.ceil(bytes / 104857.6) / 10).toFixed(1);
}
