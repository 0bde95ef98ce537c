// Whose request goes next: the lane with the fewest running samples, among equals the one that waited longest.
//
// A lane is a key. One that sends a thousand requests gets as many slots as one that sends ten, while both wait; a lane
// that waits alone gets them all.

export interface Waiting {
  readonly lane: string;
  /** Samples that start together. */
  readonly n: number;
}

export interface Scheduler<T extends Waiting> {
  readonly waiting: number;
  add(item: T): void;
  /** Takes out what is still waiting. */
  remove(item: T): boolean;
  /** The next to start, where its samples fit into the free slots; it is taken out and counted as running. */
  next(free: number): T | undefined;
  /** One sample of a lane has ended. */
  ended(lane: string, samples?: number): void;
}

interface Lane<T> {
  readonly queue: T[];
  running: number;
  /** When its first request came to the front. */
  since: number;
}

export function createScheduler<T extends Waiting>(): Scheduler<T> {
  const lanes = new Map<string, Lane<T>>();
  let waiting = 0;
  let clock = 0;

  function drop(name: string, lane: Lane<T>): void {
    if (lane.queue.length === 0 && lane.running === 0) lanes.delete(name);
  }

  return {
    get waiting() {
      return waiting;
    },
    add(item) {
      const lane = lanes.get(item.lane) ?? { queue: [], running: 0, since: 0 };
      lanes.set(item.lane, lane);
      if (lane.queue.length === 0) lane.since = clock++;
      lane.queue.push(item);
      waiting++;
    },
    remove(item) {
      const lane = lanes.get(item.lane);
      const at = lane?.queue.indexOf(item) ?? -1;
      if (!lane || at < 0) return false;
      lane.queue.splice(at, 1);
      waiting--;
      drop(item.lane, lane);
      return true;
    },
    next(free) {
      let best: Lane<T> | undefined;
      for (const lane of lanes.values()) {
        if (lane.queue.length === 0) continue;
        if (
          !best ||
          lane.running < best.running ||
          (lane.running === best.running && lane.since < best.since)
        )
          best = lane;
      }
      // One that does not fit waits for slots and is not passed over: smaller ones would keep it out for ever.
      if (!best || best.queue[0].n > free) return undefined;
      const item = best.queue.shift() as T;
      best.since = clock++;
      best.running += item.n;
      waiting--;
      return item;
    },
    ended(name, samples = 1) {
      const lane = lanes.get(name);
      if (!lane) return;
      lane.running -= samples;
      drop(name, lane);
    },
  };
}
