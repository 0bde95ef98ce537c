// Linear-scan register allocation: each virtual register gets one machine register or one place in memory.
// Poletto and Sarkar (1999), "Linear scan register allocation", with weights by loop depth to choose what is spilled.
import type { Register } from './encoder.js';
import { type MachineCode, type RegisterClass, readsOf, type Virtual, writeOf } from './machine.js';

/** Where a virtual register lives: a machine register, or the number of a stack slot, or its own argument. */
export type Location =
  | { readonly register: Register }
  | { readonly slot: number }
  | { readonly argument: true };

export interface Allocation {
  readonly locations: readonly (Location | undefined)[];
  readonly slots: number;
  /** Registers into which emission loads what lives in memory. */
  readonly scratch: Readonly<Record<RegisterClass, readonly Register[]>>;
  /** How many virtual registers of each file live in memory. */
  readonly spilled: Readonly<Record<RegisterClass, number>>;
}

// rsp is the stack, rdi the argument block; rax and rdx belong to division, single conditions and what lives in memory.
const GENERAL: readonly Register[] = [1, 6, 8, 9, 10, 11, 3, 5, 12, 13, 14, 15];
const RCX = 1;
/** AVX2 has 16 vector registers, AVX-512 has 32. */
const vectorFile = (lanes: number): Register[] => Array.from({ length: lanes === 16 ? 32 : 16 }, (_, i) => i);
/** Turns that a loop is taken to make: what is used in a loop matters more than what is used around it, however often. */
const TURNS = 64;
/** As many as one instruction reads at most. */
const SCRATCH = 3;
const GENERAL_SCRATCH: readonly Register[] = [RCX, 2, 0];

interface Interval {
  readonly virtual: Virtual;
  readonly start: number;
  end: number;
  /** Reads and writes, each counted as often as its loops are taken to turn. */
  uses: number;
  /** A register that would save a move: that of this virtual register. */
  hint?: Virtual;
}

export function allocate(code: MachineCode): Allocation {
  const intervals = intervalsOf(code);
  const vectors = vectorFile(code.lanes);
  const full = scan(code, intervals, { general: GENERAL, vector: vectors });
  const spills = full.spilled;
  if (spills.general === 0 && spills.vector === 0) return { ...full, scratch: { general: [], vector: [] } };
  // What lives in memory passes through registers kept for it, so there are fewer for the rest.
  const files = {
    general: spills.general > 0 ? GENERAL.filter((r) => r !== RCX) : GENERAL,
    vector: spills.vector > 0 ? vectors.slice(SCRATCH) : vectors,
  };
  return {
    ...scan(code, intervals, files),
    scratch: { general: GENERAL_SCRATCH, vector: vectors.slice(0, SCRATCH) },
  };
}

/** Positions: instruction i reads at 2i and writes at 2i + 1, so that a result may take the place of an operand. */
function intervalsOf({ instructions, classes, parameters }: MachineCode): Interval[] {
  const open = new Map<Virtual, Interval>();
  const loops: { begin: number; touched: Set<Interval> }[] = [];
  const touch = (virtual: Virtual, position: number) => {
    let interval = open.get(virtual);
    if (!interval) {
      interval = { virtual, start: position, end: position, uses: 0 };
      open.set(virtual, interval);
    }
    interval.end = Math.max(interval.end, position);
    interval.uses += TURNS ** loops.length;
    for (const loop of loops) if (interval.start < loop.begin) loop.touched.add(interval);
  };
  for (const virtual of parameters.keys()) touch(virtual, -1);
  instructions.forEach((m, i) => {
    if (m.op === 'loopBegin') loops.push({ begin: 2 * i, touched: new Set() });
    else if (m.op === 'loopEnd') {
      // What a loop touches and was there before must last until the loop's end: the next turn needs it.
      for (const interval of loops.pop()!.touched) interval.end = Math.max(interval.end, 2 * i + 1);
    }
    const reads = readsOf(m);
    for (const virtual of reads) touch(virtual, 2 * i);
    const written = writeOf(m);
    if (written === undefined) return;
    const fresh = !open.has(written);
    touch(written, 2 * i + 1);
    if (fresh) {
      const alike = reads.filter((v) => classes[v] === classes[written]);
      // Of a multiply-add, the sum is the best to overwrite, and it stands last.
      open.get(written)!.hint = m.op === 'fma' ? alike.at(-1) : alike[0];
    }
  });
  return [...open.values()].sort((a, b) => a.start - b.start);
}

function scan(
  { classes, parameters }: MachineCode,
  intervals: readonly Interval[],
  files: Readonly<Record<RegisterClass, readonly Register[]>>,
): Omit<Allocation, 'scratch'> {
  const locations: (Location | undefined)[] = new Array(classes.length).fill(undefined);
  const free = { general: [...files.general].reverse(), vector: [...files.vector].reverse() };
  const active = { general: [] as Interval[], vector: [] as Interval[] };
  const spilled = { general: 0, vector: 0 };
  let slots = 0;
  const weight = (x: Interval) => x.uses / (x.end - x.start + 1);
  const spill = (x: Interval) => {
    spilled[classes[x.virtual]]++;
    locations[x.virtual] = parameters.has(x.virtual) ? { argument: true } : { slot: slots++ };
  };
  const registerOf = (v: Virtual) => (locations[v] as { register: Register }).register;
  for (const interval of intervals) {
    const file = classes[interval.virtual];
    active[file] = active[file].filter((x) => {
      if (x.end >= interval.start) return true;
      free[file].push(registerOf(x.virtual));
      return false;
    });
    const wanted = interval.hint === undefined ? undefined : locations[interval.hint];
    let register: Register | undefined;
    if (wanted && 'register' in wanted && free[file].includes(wanted.register)) {
      register = wanted.register;
      free[file].splice(free[file].indexOf(register), 1);
    } else register = free[file].pop();
    if (register === undefined) {
      const lightest = active[file].reduce((a, b) => (weight(b) < weight(a) ? b : a), interval);
      if (lightest !== interval) {
        register = registerOf(lightest.virtual);
        active[file].splice(active[file].indexOf(lightest), 1);
      }
      spill(lightest);
    }
    if (register !== undefined) {
      locations[interval.virtual] = { register };
      active[file].push(interval);
    }
  }
  return { locations, slots, spilled };
}
