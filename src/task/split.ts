// Which split a problem belongs to: a hash of what makes it the same problem, so that no seed can mix the splits.
import { hashText } from './random.js';
import type { Split } from './task.js';

/** One problem in this many is held out. */
export const HELDOUT_ONE_IN = 8;

/**
 * The split of a problem, from the text that says which problems count as the same one (for countdown the sorted
 * numbers). It depends on nothing else: no seed, no index, no option.
 */
export function splitOf(key: string): Split {
  return hashText(key, 0x5eed) % HELDOUT_ONE_IN === 0 ? 'heldout' : 'train';
}
