// Device memory: no two live blocks overlap, every byte is accounted for, and running out is survived.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RetortError } from '../../errors.js';
import { whyNotX64 } from '../target/x64/detect.js';
import { nativeBacking, wasmBacking } from './backing.js';
import { DeviceMemory, type MemoryKind, type StepMark } from './memory.js';

const MIB = 1 << 20;
const rounded = (bytes: number) => Math.ceil(Math.max(bytes, 1) / 64) * 64;

interface Live {
  readonly offset: number;
  readonly bytes: number;
  readonly kind: MemoryKind;
}

type Action =
  | { readonly do: 'allocate' | 'step'; readonly bytes: number }
  | { readonly do: 'release' | 'mark' | 'rewind'; readonly which: number };

const bytes = fc.oneof(fc.nat(300), fc.nat(200_000), fc.nat(9 * MIB));
const action: fc.Arbitrary<Action> = fc.oneof(
  fc.record({ do: fc.constantFrom('allocate', 'step'), bytes }),
  fc.record({ do: fc.constantFrom('release', 'mark', 'rewind'), which: fc.nat() }),
);

const KINDS: readonly MemoryKind[] = ['parameters', 'gradients', 'kvCache', 'other'];

function checkAll(memory: DeviceMemory, live: readonly Live[], peak: number): void {
  const sorted = [...live].sort((a, b) => a.offset - b.offset);
  sorted.forEach(({ offset, bytes }, i) => {
    assert.equal(offset % 64, 0);
    const { buffer, start } = memory.backing;
    assert.ok(offset > 0 && start + offset + bytes <= buffer.byteLength, 'inside the memory');
    if (i > 0) assert.ok(sorted[i - 1].offset + sorted[i - 1].bytes <= offset, 'blocks do not overlap');
  });
  const report = memory.report();
  for (const kind of [...KINDS, 'activations'] as const) {
    const sum = live.reduce((total, b) => total + (b.kind === kind ? rounded(b.bytes) : 0), 0);
    assert.equal(report[kind].current, sum, kind);
    assert.ok(report[kind].peak >= sum);
  }
  const total = live.reduce((sum, b) => sum + rounded(b.bytes), 0);
  assert.deepEqual(report.total, { current: total, peak });
}

for (const [name, backing, skip] of [
  ['wasm', wasmBacking, false],
  ['x64', nativeBacking, whyNotX64() ?? false],
] as const) {
  test(`${name}: any sequence of allocations, releases, marks and rewinds keeps blocks apart and the books right`, {
    skip,
  }, () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
        const memory = new DeviceMemory(backing(256 * MIB));
        let live: Live[] = [];
        let marks: { mark: StepMark; steps: number }[] = [];
        let peak = 0;
        const steps = () => live.filter(({ kind }) => kind === 'activations');
        for (const a of actions) {
          try {
            if (a.do === 'allocate') {
              const kind = KINDS[a.bytes % KINDS.length];
              live.push({ offset: memory.allocate(kind, a.bytes), bytes: a.bytes, kind });
            } else if (a.do === 'step') {
              live.push({ offset: memory.allocateStep(a.bytes), bytes: a.bytes, kind: 'activations' });
            } else if (a.do === 'release') {
              const held = live.filter(({ kind }) => kind !== 'activations');
              if (held.length === 0) continue;
              const gone = held[a.which % held.length];
              memory.release(gone.offset);
              live = live.filter((b) => b !== gone);
            } else if (a.do === 'mark') {
              marks.push({ mark: memory.mark(), steps: steps().length });
            } else if (a.do === 'rewind' && marks.length > 0) {
              const at = a.which % marks.length;
              memory.rewind(marks[at].mark);
              const kept = new Set(steps().slice(0, marks[at].steps));
              live = live.filter((b) => b.kind !== 'activations' || kept.has(b));
              marks = marks.slice(0, at + 1);
            }
          } catch (error) {
            assert.ok(error instanceof RetortError && error.code === 'out-of-memory', String(error));
          }
          peak = Math.max(
            peak,
            live.reduce((sum, b) => sum + rounded(b.bytes), 0),
          );
          checkAll(memory, live, peak);
        }
      }),
      { numRuns: 60, seed: 1 },
    );
  });

  test(`${name}: what is released serves again, also when neighbours are released in any order`, {
    skip,
  }, () => {
    for (const order of [
      [0, 1, 2],
      [2, 1, 0],
      [1, 0, 2],
      [0, 2, 1],
    ]) {
      const memory = new DeviceMemory(backing(4 * MIB));
      const blocks = [0, 1, 2].map(() => memory.allocate('other', MIB));
      for (const i of order) memory.release(blocks[i]);
      assert.equal(memory.allocate('other', 3 * MIB), blocks[0]);
    }
  });

  test(`${name}: running out changes nothing: what was live stays, what fits still fits`, { skip }, () => {
    const memory = new DeviceMemory(backing(16 * MIB));
    const kept = memory.allocate('parameters', 4 * MIB);
    const before = memory.report();
    for (let i = 0; i < 3; i++) {
      for (const take of [() => memory.allocate('gradients', 13 * MIB), () => memory.allocateStep(13 * MIB)])
        assert.throws(take, (e) => e instanceof RetortError && e.code === 'out-of-memory');
      assert.deepEqual(memory.report(), before);
    }
    const mark = memory.mark();
    const step = memory.allocateStep(2 * MIB);
    assert.ok(step >= kept + 4 * MIB || step + 2 * MIB <= kept);
    memory.rewind(mark);
    memory.release(kept);
    assert.equal(memory.report().total.current, 0);
  });

  test(`${name}: the step arena takes what is left when a standard chunk does not fit any more`, {
    skip,
  }, () => {
    const memory = new DeviceMemory(backing(16 * MIB));
    // The standard chunk for it has 16 MiB.
    memory.allocateStep(9 * MIB);
    memory.allocateStep(5 * MIB);
    assert.equal(memory.report().activations.current, 14 * MIB);
  });

  test(`${name}: memory that is not allocated cannot be released, nor twice`, { skip }, () => {
    const memory = new DeviceMemory(backing(4 * MIB));
    const block = memory.allocate('other', 100);
    assert.throws(() => memory.release(block + 64), /not allocated/);
    memory.release(block);
    assert.throws(() => memory.release(block), /not allocated/);
  });
}
