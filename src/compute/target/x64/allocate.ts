// Linear-scan register allocation: each virtual register gets one machine register or one place in memory. What lives in
// memory and is only read in an innermost loop is another virtual register there, which may find a machine register.
// Poletto and Sarkar (1999), "Linear scan register allocation", with weights by loop depth to choose what is spilled.
import type { Register } from './encoder.js';
import {
  type Machine,
  type MachineCode,
  type RegisterClass,
  readInPlace,
  readsOf,
  type Virtual,
  withReads,
  writeOf,
} from './machine.js';

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
/** How often what innermost loops read from memory is looked for: what moves into a register may push out another. */
const ROUNDS = 2;
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

/** Code whose virtual registers have found their places. */
export interface Allocated {
  readonly code: MachineCode;
  readonly allocation: Allocation;
}

export function allocate(code: MachineCode): Allocated {
  const vectors = vectorFile(code.lanes);
  const intervals = intervalsOf(code);
  const full = scan(code, intervals, { general: GENERAL, vector: vectors });
  const { general, vector } = full.spilled;
  if (general === 0 && vector === 0)
    return { code, allocation: { ...full, scratch: { general: [], vector: [] } } };
  // What lives in memory passes through registers kept for it, so there are fewer for the rest.
  const files = {
    general: general > 0 ? GENERAL.filter((r) => r !== RCX) : GENERAL,
    vector: vector > 0 ? vectors.slice(SCRATCH) : vectors,
  };
  const scratch = { general: GENERAL_SCRATCH, vector: vectors.slice(0, SCRATCH) };
  const places = (c: MachineCode, of: readonly Interval[]): Allocated => ({
    code: c,
    allocation: { ...scan(c, of, files), scratch },
  });
  let best = places(code, intervals);
  let fewest = readsFromMemory(best);
  let last = best;
  for (let round = 0; round < ROUNDS && fewest > 0; round++) {
    const split = splitAtLoops(last, code.classes.length);
    last = places(split, intervalsOf(split));
    const reads = readsFromMemory(last);
    if (reads < fewest) [best, fewest] = [last, reads];
  }
  return best;
}

/**
 * Gives what innermost loops read from memory, and do not write, a virtual register of their own.
 * @param known virtual registers from this number on are such ones already
 */
function splitAtLoops({ code, allocation: { locations } }: Allocated, known: number): MachineCode {
  const classes = [...code.classes];
  const instructions = [...code.instructions];
  // From the last to the first: what is put in before a loop moves only what stands behind.
  for (const [begin, end] of innermostLoops(code.instructions).reverse()) {
    const written = new Set<Virtual | undefined>();
    for (let i = begin; i < end; i++) written.add(writeOf(instructions[i]));
    const own = new Map<Virtual, Virtual>();
    for (let i = begin; i < end; i++) {
      for (const v of loadedFor(instructions[i], locations)) {
        if (v >= known || written.has(v) || own.has(v)) continue;
        own.set(v, classes.push(classes[v]) - 1);
      }
    }
    for (let i = begin; i < end; i++) instructions[i] = withReads(instructions[i], own);
    const moves = [...own].map(
      ([a, dst]): Machine => ({ op: classes[dst] === 'general' ? 'move' : 'vectorMove', dst, a }),
    );
    instructions.splice(begin, 0, ...moves);
  }
  return { ...code, classes, instructions };
}

/** Where loops with none inside them begin and end, in order. */
function innermostLoops(instructions: readonly Machine[]): [number, number][] {
  const found: [number, number][] = [];
  let begin = -1;
  instructions.forEach(({ op }, i) => {
    if (op === 'loopBegin') begin = i;
    if (op !== 'loopEnd') return;
    if (begin >= 0) found.push([begin, i]);
    begin = -1;
  });
  return found;
}

/** What an instruction reads that has to be loaded for it. */
function loadedFor(m: Machine, locations: Allocation['locations']): Virtual[] {
  return readsOf(m).filter((v) => !('register' in locations[v]!) && !readInPlace(m, v));
}

/** How many reads of innermost loops have to be loaded first. */
function readsFromMemory({ code: { instructions }, allocation: { locations } }: Allocated): number {
  let count = 0;
  for (const [begin, end] of innermostLoops(instructions))
    for (let i = begin; i < end; i++) count += loadedFor(instructions[i], locations).length;
  return count;
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
