// How launches reach the threads: a control block that all watch, and for each thread a list of commands.
//
// A command is a run of 8-byte fields: the kernel, the command's length in bytes, then what the kernel takes: each
// buffer, begin, end, part, its other scalars. A list ends with a kernel of 0. For machine code the kernel is the code's
// address and a buffer an address; for other targets they are the kernel's number and an offset into the memory.

export const EPOCH = 0;
export const DONE = 1;
export const COMMAND = 2;
/** Threads that take part in a launch: those with a lower number. */
export const PARTS = 3;
/** Set by a worker whose part threw; the message waits on its port. */
export const FAILED = 4;
/** Threads that sleep, or are about to. */
export const SLEEPERS = 5;
export const CONTROL_WORDS = 16;

export const LAUNCH = 0;
export const LOAD = 1;
export const STOP = 2;

/** 32-bit words of a field, of a command's head, and of one thread's list. */
export const FIELD = 2;
export const HEAD = 2 * FIELD;
export const LIST_WORDS = 8192;
/** Arguments of a kernel at most. */
export const MOST_ARGUMENTS = 128;

/** The fixed partition: part p of `parts` gets items [start(p), start(p + 1)). */
export function partStart(items: number, parts: number, p: number): number {
  return Math.floor((items * p) / parts);
}

/** Adds 1 to control[word] and wakes who sleeps on it. */
export function advance(control: Int32Array, word: number): void {
  Atomics.add(control, word, 1);
  // Whoever is about to sleep has said so before, and does not fall asleep on a word that has changed.
  if (Atomics.load(control, SLEEPERS) > 0) Atomics.notify(control, word);
}

/** Waits until control[word] differs from `value`: spins, then sleeps. Returns the new value. */
export function waitForChange(control: Int32Array, word: number, value: number, spins: number): number {
  const now = watch(control, word, value, spins);
  return now === value ? sleep(control, word, value) : now;
}

/** A function of its own: with the sleep behind it, code compiled while it spins would be thrown away at each sleep. */
function watch(control: Int32Array, word: number, value: number, spins: number): number {
  let now = value;
  for (let i = 0; i < spins && now === value; i++) now = Atomics.load(control, word);
  return now;
}

function sleep(control: Int32Array, word: number, value: number): number {
  Atomics.add(control, SLEEPERS, 1);
  let now = Atomics.load(control, word);
  while (now === value) {
    Atomics.wait(control, word, value);
    now = Atomics.load(control, word);
  }
  Atomics.sub(control, SLEEPERS, 1);
  return now;
}
