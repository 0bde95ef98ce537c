// Machine code in memory, through koffi: pages are filled while writable, then made executable, never both at once.
import { createRequire } from 'node:module';
import { RetortError } from '../../../errors.js';

/** Calls code with one argument: the address of a kernel's argument block, or of a list of commands. */
export type NativeCall = (address: number) => void;

/**
 * void run(commands): calls each command's kernel with the address of its arguments. A command is the kernel's address,
 * the command's length in bytes, and the arguments; an address of 0 ends the list.
 */
const RUN_LIST = Uint8Array.of(
  ...[0x53], //                    push rbx
  ...[0x48, 0x89, 0xfb], //        mov rbx, rdi
  ...[0x48, 0x8b, 0x03], //  next: mov rax, [rbx]
  ...[0x48, 0x85, 0xc0], //        test rax, rax
  ...[0x74, 12], //                jz done
  ...[0x48, 0x8d, 0x7b, 16], //    lea rdi, [rbx + 16]
  ...[0xff, 0xd0], //              call rax
  ...[0x48, 0x03, 0x5b, 8], //     add rbx, [rbx + 8]
  ...[0xeb, 0x100 - 20], //        jmp next
  ...[0x5b, 0xc3], //        done: pop rbx; ret
);

export interface Native {
  /** Maps machine code and gives its address, valid in every thread of the process. It stays to the process's end. */
  map(code: Uint8Array): number;
  /** The function at an address that `map` gave. */
  callable(address: number): NativeCall;
  /** Runs the list of commands at an address; see RUN_LIST. */
  readonly runList: NativeCall;
  /** The address of memory that does not move: that of a SharedArrayBuffer or a shared WebAssembly.Memory. */
  addressOf(memory: SharedArrayBuffer): number;
  /** Leaves whole pages out of the copy of this process that a starting child begins as. */
  keepFromChildren(address: number, bytes: number): void;
  /** Asks for huge pages where whole ones fit: fewer translations of addresses to look up. */
  useHugePages(address: number, bytes: number): void;
}

type Koffi = typeof import('koffi');

const READ = 1;
const WRITE = 2;
const EXECUTE = 4;
const PRIVATE_ANONYMOUS = 0x22;
const DONT_FORK = 10;
const HUGE_PAGE_ADVICE = 14;
const PAGE = 4096;
const HUGE_PAGE = 2 ** 21;
/** What mmap gives where it could not: -1. */
const MAP_FAILED = 2n ** 64n - 1n;

let loaded: Native | string | undefined;

/** Machine code on this machine, or why there is none. */
export function native(): Native | string {
  loaded ??= open();
  return loaded;
}

function open(): Native | string {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return `machine code is made for Linux on x86-64, not ${process.platform} on ${process.arch}`;
  let koffi: Koffi;
  try {
    koffi = createRequire(import.meta.url)('koffi') as Koffi;
  } catch (error) {
    return `koffi, which calls machine code, does not load: ${(error as Error).message.split('\n')[0]}`;
  }
  const libc = koffi.load('libc.so.6');
  const mmap = libc.func(
    'void *mmap(void *address, size_t length, int prot, int flags, int fd, int64_t offset)',
  );
  const mprotect = libc.func('int mprotect(void *address, size_t length, int prot)');
  const madvise = libc.func('int madvise(uint64_t address, size_t length, int advice)');
  const kernel = koffi.proto('void retort_kernel(uint64_t arguments)');
  const map = (code: Uint8Array): number => {
    const length = Math.ceil(code.length / PAGE) * PAGE;
    const at = mmap(null, length, READ | WRITE, PRIVATE_ANONYMOUS, -1, 0);
    const address = koffi.address(at);
    if (address === MAP_FAILED)
      throw new RetortError('out-of-memory', `no memory for ${length} bytes of machine code`);
    new Uint8Array(koffi.view(at, code.length)).set(code);
    if (mprotect(at, length, READ | EXECUTE) !== 0)
      throw new RetortError('bad-kernel', 'this system refuses executable memory');
    return Number(address);
  };
  const callable = (address: number) => koffi.decode(BigInt(address), kernel) as unknown as NativeCall;
  const addressOf = (memory: SharedArrayBuffer) => Number(koffi.address(new Uint8Array(memory, 0, 1)));
  let runList: NativeCall;
  try {
    runList = callable(map(RUN_LIST));
    // Whether code can be run at all: an empty list.
    runList(addressOf(new SharedArrayBuffer(16)));
  } catch (error) {
    return (error as Error).message;
  }
  return {
    map,
    callable,
    runList,
    addressOf,
    keepFromChildren: (address, bytes) => {
      // Where the system does not heed it, starting a child may fail, and that is all.
      madvise(address, Math.floor(bytes / PAGE) * PAGE, DONT_FORK);
    },
    useHugePages: (address, bytes) => {
      const first = Math.ceil(address / HUGE_PAGE) * HUGE_PAGE;
      const whole = Math.floor((address + bytes - first) / HUGE_PAGE) * HUGE_PAGE;
      // Where the system has none, its small pages do.
      if (whole > 0) madvise(first, whole, HUGE_PAGE_ADVICE);
    },
  };
}
