// Whether this processor has what the x86-64 target's code needs, by asking it (CPUID).
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

let asked: { why: string | undefined } | undefined;

/** Undefined where the target's code runs here; else why not. */
export function whyNotX64(): string | undefined {
  asked ??= { why: ask() };
  return asked.why;
}

function ask(): string | undefined {
  const n = native();
  if (typeof n === 'string') return n;
  const out = new Int32Array(new SharedArrayBuffer(12));
  n.callable(n.map(PROBE))(n.addressOf(out.buffer as SharedArrayBuffer));
  const [one, seven, saved] = out;
  const missing = [
    bit(one, 12) ? '' : 'FMA',
    bit(one, 28) ? '' : 'AVX',
    bit(seven, 5) ? '' : 'AVX2',
    // XCR0: the system keeps the state of SSE and of AVX.
    (saved & 6) === 6 ? '' : 'AVX state',
  ].filter(Boolean);
  return missing.length > 0 ? `the processor or system lacks ${missing.join(', ')}` : undefined;
}
