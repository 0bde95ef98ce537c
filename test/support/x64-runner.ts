// Runs a kernel as machine code on buffers that end at a page nobody may touch, for tests.
import { createRequire } from 'node:module';
import type { InterpretedKernel } from '../../src/compute/kernel/interpreter.js';
import type { Kernel } from '../../src/compute/kernel/ir.js';
import { compileX64 } from '../../src/compute/target/x64/compile.js';
import { native } from '../../src/compute/target/x64/native.js';
import { RetortError } from '../../src/errors.js';

const PAGE = 4096;
const SENTINEL = 0x7fd1a5e7;

interface Region {
  readonly address: number;
  readonly bytes: number;
  readonly words: Int32Array;
}

/**
 * Regions of whole pages between pages that can be neither read nor written, kept for reuse: an access beside one ends
 * the process.
 */
const regions: Region[] = [];

function region(bytes: number, taken: ReadonlySet<Region>): Region {
  const known = regions.find((r) => r.bytes >= bytes && !taken.has(r));
  if (known) return known;
  const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
  const libc = koffi.load('libc.so.6');
  const mmap = libc.func(
    'void *mmap(void *address, size_t length, int prot, int flags, int fd, int64_t offset)',
  );
  const mprotect = libc.func('int mprotect(uint64_t address, size_t length, int prot)');
  const inside = Math.ceil(Math.max(bytes, PAGE) / PAGE) * PAGE;
  const all = mmap(null, inside + 2 * PAGE, 0, 0x22, -1, 0);
  const address = Number(koffi.address(all)) + PAGE;
  if (mprotect(address, inside, 3) !== 0) throw new Error('mprotect refused');
  const words = new Int32Array(koffi.view(BigInt(address), inside));
  const made = { address, bytes: inside, words };
  regions.push(made);
  return made;
}

/**
 * The compiled kernel with the interpreter's signature. Each buffer's end is a page's end (`at: 'end'`) or its start a
 * page's start, so that an access past it faults; the other side is filled with a pattern that is checked.
 */
export function x64Runner(kernel: Kernel, at: 'end' | 'start' = 'end'): InterpretedKernel {
  const n = native();
  if (typeof n === 'string') throw new Error(n);
  const call = n.callable(n.map(compileX64(kernel).bytes));
  const block = new BigInt64Array(new SharedArrayBuffer(8 * 64));
  const blockAddress = n.addressOf(block.buffer as SharedArrayBuffer);
  return (buffers, scalars) => {
    const taken = new Set<Region>();
    const places = buffers.map((b) => {
      const place = region(b.byteLength, taken);
      taken.add(place);
      place.words.fill(SENTINEL);
      const offset = at === 'end' ? place.words.length - b.length : 0;
      place.words.set(new Int32Array(b.buffer, b.byteOffset, b.length), offset);
      return { place, offset };
    });
    places.forEach(({ place, offset }, i) => {
      block[i] = BigInt(place.address + 4 * offset);
    });
    const view = new DataView(block.buffer);
    kernel.scalars.forEach(({ type }, i) => {
      const field = 8 * (buffers.length + i);
      if (type === 'f32') view.setFloat32(field, scalars[i], true);
      else view.setInt32(field, scalars[i], true);
    });
    call(blockAddress);
    buffers.forEach((b, i) => {
      const { place, offset } = places[i];
      new Int32Array(b.buffer, b.byteOffset, b.length).set(place.words.subarray(offset, offset + b.length));
      place.words.fill(SENTINEL, offset, offset + b.length);
      if (place.words.some((w) => w !== SENTINEL))
        throw new RetortError('bad-kernel', `kernel ${kernel.name} wrote outside its buffer ${i}`);
    });
  };
}
