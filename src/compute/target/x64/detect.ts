// Whether this processor has what the x86-64 target's code needs, by asking it (CPUID).
import { cpus } from 'node:os';
import { native } from './native.js';

/**
 * void probe(int32 *out): writes ecx of leaf 1, ebx of leaf 7, and, where the system saves vector registers' state
 * (OSXSAVE), the low half of XCR0.
 */
const PROBE = Uint8Array.of(
  ...[0x53], //                         push rbx
  ...[0xb8, 1, 0, 0, 0], //             mov eax, 1
  ...[0x31, 0xc9], //                   xor ecx, ecx
  ...[0x0f, 0xa2], //                   cpuid
  ...[0x89, 0x0f], //                   mov [rdi], ecx
  ...[0xb8, 7, 0, 0, 0], //             mov eax, 7
  ...[0x31, 0xc9], //                   xor ecx, ecx
  ...[0x0f, 0xa2], //                   cpuid
  ...[0x89, 0x5f, 4], //                mov [rdi + 4], ebx
  ...[0xf7, 0x07, 0, 0, 0, 0x08], //    test dword [rdi], 1 << 27
  ...[0x74, 8], //                      jz past the next three
  ...[0x31, 0xc9], //                   xor ecx, ecx
  ...[0x0f, 0x01, 0xd0], //             xgetbv
  ...[0x89, 0x47, 8], //                mov [rdi + 8], eax
  ...[0x5b, 0xc3], //                   pop rbx; ret
);

const bit = (word: number, n: number) => ((word >>> n) & 1) === 1;

export type X64 = 'avx2' | 'avx512';

let asked: Readonly<Record<X64, string | undefined>> | undefined;

/** Undefined where code for these instructions runs here; else why not. */
export function whyNotX64(instructions: X64 = 'avx2'): string | undefined {
  asked ??= ask();
  return asked[instructions];
}

/** Whether this processor fetches ahead what is read in order: Intel's do so well that asking costs decoding 0 to 5%; AMD's gain by it. */
export function streams(): boolean {
  return cpus()[0]?.model.includes('Intel') ?? false;
}

function ask(): Readonly<Record<X64, string | undefined>> {
  const n = native();
  if (typeof n === 'string') return { avx2: n, avx512: n };
  const out = new Int32Array(new SharedArrayBuffer(12));
  n.callable(n.map(PROBE))(n.addressOf(out.buffer as SharedArrayBuffer));
  const [one, seven, saved] = out;
  const lacks = (features: Readonly<Record<string, boolean>>) => {
    const missing = Object.keys(features).filter((name) => !features[name]);
    return missing.length > 0 ? `the processor or system lacks ${missing.join(', ')}` : undefined;
  };
  // XCR0 tells which registers the system keeps for each process.
  const avx2 = {
    FMA: bit(one, 12),
    AVX: bit(one, 28),
    AVX2: bit(seven, 5),
    'the state of AVX': (saved & 0x06) === 0x06,
  };
  const avx512 = {
    ...avx2,
    AVX512F: bit(seven, 16),
    AVX512DQ: bit(seven, 17),
    AVX512VL: bit(seven, 31),
    'the state of AVX-512': (saved & 0xe6) === 0xe6,
  };
  return { avx2: lacks(avx2), avx512: lacks(avx512) };
}
