// Random numbers keyed by text: the same key gives the same stream on every machine and in every process.

/** A stream of random numbers. Integer arithmetic only, so no rounding differs between machines. */
export interface Random {
  /** A whole number from `low` to `high`, both included. */
  integer(low: number, high: number): number;
  /** A number from 0 (included) to 1 (excluded), with 32 random bits. */
  fraction(): number;
  /** True with the given probability. */
  chance(probability: number): boolean;
  /** One element of a list that is not empty. */
  pick<T>(items: readonly T[]): T;
  /** A new list with the same elements in random order (Fisher-Yates). */
  shuffle<T>(items: readonly T[]): T[];
}

/** A well-mixed 32-bit hash of a text (FNV-1a over UTF-16 units, then the finaliser of MurmurHash3). */
export function hashText(text: string, salt = 0): number {
  let h = (0x811c9dc5 ^ salt) >>> 0;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** The stream that belongs to a list of keys, for instance `randomFor('countdown', split, seed, index)`. */
export function randomFor(...keys: readonly (string | number)[]): Random {
  const next = sfc32(keys.join('/'));
  const fraction = () => next() / 2 ** 32;
  const integer = (low: number, high: number) => low + Math.floor(fraction() * (high - low + 1));
  return {
    integer,
    fraction,
    chance: (probability) => fraction() < probability,
    pick: (items) => items[integer(0, items.length - 1)],
    shuffle(items) {
      const list = [...items];
      for (let i = list.length - 1; i > 0; i--) {
        const j = integer(0, i);
        [list[i], list[j]] = [list[j], list[i]];
      }
      return list;
    },
  };
}

// Chris Doty-Humphrey's sfc32 (PractRand): 128 bits of state, small and well tested.
function sfc32(key: string): () => number {
  let a = hashText(key, 1);
  let b = hashText(key, 2);
  let c = hashText(key, 3);
  let counter = 1;
  const next = () => {
    const out = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + out;
    c |= 0;
    return out >>> 0;
  };
  for (let i = 0; i < 12; i++) next();
  return next;
}
