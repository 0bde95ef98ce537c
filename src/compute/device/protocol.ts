// The shared control block by which a launch reaches the workers: one epoch counter, one count of the finished.

export const EPOCH = 0;
export const DONE = 1;
export const COMMAND = 2;
export const KERNEL = 3;
export const ITEMS = 4;
export const PARTS = 5;
/** Set by a worker whose part threw; the message waits on its port. */
export const FAILED = 6;
export const ARGUMENTS = 16;
export const CONTROL_WORDS = 128;

export const LAUNCH = 0;
export const LOAD = 1;
export const STOP = 2;

/** The fixed partition: part p of `parts` gets items [start(p), start(p + 1)). */
export function partStart(items: number, parts: number, p: number): number {
  return Math.floor((items * p) / parts);
}

/** Waits until control[word] differs from `value`: spins, then sleeps. Returns the new value. */
export function waitForChange(control: Int32Array, word: number, value: number, spins: number): number {
  for (let i = 0; i < spins; i++) {
    const now = Atomics.load(control, word);
    if (now !== value) return now;
  }
  for (;;) {
    Atomics.wait(control, word, value);
    const now = Atomics.load(control, word);
    if (now !== value) return now;
  }
}
