// Accuracies with 95% intervals: pass@1 (Wilson), pass@k (unbiased), maj@k; and the moments they stand on.
import { refuse } from '../errors.js';

/** A share from 0 to 1 with its interval. */
export interface Estimate {
  readonly value: number;
  /** 95% unless another z was asked for. */
  readonly interval: readonly [low: number, high: number];
}

/** One sample of a problem, as maj@k needs it. */
export interface Vote {
  /** The answer reduced for voting; null does not vote. */
  readonly key: string | null;
  readonly correct: boolean;
}

/** The 97.5% point of the normal distribution. */
export const Z95 = 1.959963984540054;

/**
 * The Wilson score interval of a share (E. B. Wilson, JASA 22, 1927): right also for few problems and shares near 0
 * or 1. `successes` need not be whole.
 *
 * @throws RetortError (bad-input) unless 0 <= successes <= trials and trials > 0.
 */
export function wilson(successes: number, trials: number, z = Z95): Estimate {
  if (!(trials > 0 && successes >= 0 && successes <= trials)) {
    throw refuse(
      'bad-input',
      'successes and trials',
      [successes, trials],
      'give 0 <= successes <= trials, trials > 0',
    );
  }
  const p = successes / trials;
  const centre = p + z ** 2 / (2 * trials);
  const half = z * Math.sqrt((p * (1 - p)) / trials + z ** 2 / (4 * trials ** 2));
  const scale = 1 + z ** 2 / trials;
  // At the ends the formula gives 0 and 1 up to rounding; there they are exact.
  const low = successes === 0 ? 0 : (centre - half) / scale;
  const high = successes === trials ? 1 : (centre + half) / scale;
  return { value: p, interval: [low, high] };
}

/**
 * pass@k of one problem: the chance that k of its n samples, drawn without replacement, hold one of the c right ones,
 * 1 - C(n-c, k) / C(n, k) (Chen et al., arXiv 2107.03374, equation 1). Unbiased.
 *
 * @throws RetortError (bad-input) unless 0 <= c <= n and 1 <= k <= n, all whole.
 */
export function passAtK(n: number, c: number, k: number): number {
  if (!([n, c, k].every(Number.isInteger) && c >= 0 && c <= n && k >= 1 && k <= n)) {
    throw refuse(
      'bad-input',
      'samples, right ones and k',
      [n, c, k],
      'give whole 0 <= right <= samples, 1 <= k <= samples',
    );
  }
  let allWrong = 1;
  for (let i = n - c + 1; i <= n; i++) allWrong *= Math.max(0, 1 - k / i);
  return 1 - allWrong;
}

/**
 * pass@k over problems, each with its own number of samples. The interval is over problems (see shareEstimate).
 *
 * @param counts for each problem: samples, and right ones among them.
 */
export function passAtKOver(counts: readonly { samples: number; right: number }[], k: number): Estimate {
  const shares = counts.map(({ samples, right }) => passAtK(samples, right, k));
  return shareEstimate(shares, Math.max(...counts.map(({ samples }) => Math.floor(samples / k))));
}

/**
 * maj@k of one problem: its samples are cut, in order, into as many groups of k as fit, and each group votes. The key
 * with most votes wins; samples without a key do not vote; a group without votes is wrong. A tie is broken by chance,
 * so it counts the mean over the tied keys. A key is as right as the share of its samples that are.
 *
 * @throws RetortError (bad-input) unless 1 <= k <= samples.
 */
export function majorityAtK(votes: readonly Vote[], k: number): number {
  return mean(groupsOf(votes, k, 'maj@k').map(majority));
}

function majority(votes: readonly Vote[]): number {
  const tally = new Map<string, { votes: number; right: number }>();
  for (const { key, correct } of votes) {
    if (key === null) continue;
    const entry = tally.get(key) ?? { votes: 0, right: 0 };
    tally.set(key, { votes: entry.votes + 1, right: entry.right + (correct ? 1 : 0) });
  }
  const most = Math.max(0, ...[...tally.values()].map((entry) => entry.votes));
  const winners = [...tally.values()].filter((entry) => entry.votes === most);
  return most === 0 ? 0 : mean(winners.map(({ votes: count, right }) => right / count));
}

/** One sample of a problem, as best-of-n needs it. */
export interface Rated {
  /** What the choice goes by; NaN is never chosen before a number. */
  readonly rating: number;
  readonly correct: boolean;
}

/**
 * best@k of one problem: its samples are cut, in order, into as many groups of k as fit, and of each group the best
 * rated one counts; of equals, the share of them that is right.
 *
 * @throws RetortError (bad-input) unless 1 <= k <= samples.
 */
export function bestAtK(rated: readonly Rated[], k: number): number {
  return mean(groupsOf(rated, k, 'best@k').map(shareOfBest));
}

function shareOfBest(group: readonly Rated[]): number {
  const worth = ({ rating }: Rated) => (Number.isNaN(rating) ? Number.NEGATIVE_INFINITY : rating);
  const best = Math.max(...group.map(worth));
  return mean(group.filter((one) => worth(one) === best).map(({ correct }) => (correct ? 1 : 0)));
}

/** best@k over problems. The interval is over problems (see shareEstimate). */
export function bestAtKOver(problems: readonly (readonly Rated[])[], k: number): Estimate {
  const shares = problems.map((rated) => bestAtK(rated, k));
  return shareEstimate(shares, Math.max(...problems.map((rated) => Math.floor(rated.length / k))));
}

/** The samples in groups of k, in their order; what is left over is in none. */
function groupsOf<T>(samples: readonly T[], k: number, what: string): T[][] {
  if (!(Number.isInteger(k) && k >= 1 && k <= samples.length))
    throw refuse(
      'bad-input',
      `k of ${what}`,
      k,
      `give 1 to the number of samples, which is ${samples.length}`,
    );
  return Array.from({ length: Math.floor(samples.length / k) }, (_, g) => samples.slice(g * k, (g + 1) * k));
}

/** maj@k over problems. The interval is over problems (see shareEstimate). */
export function majorityAtKOver(problems: readonly (readonly Vote[])[], k: number): Estimate {
  const shares = problems.map((votes) => majorityAtK(votes, k));
  return shareEstimate(shares, Math.max(...problems.map((votes) => Math.floor(votes.length / k))));
}

/**
 * The mean of one share for each problem, with an interval over problems: Wilson's, for the number of yes-or-no
 * trials that would spread as much as these shares do. Samples of one problem go together, so that number lies
 * between the problems and all samples, and it is held there: with one sample a problem this is Wilson's interval
 * itself, and it never closes to a point where all shares happen to be equal.
 *
 * @param perProblem shares from 0 to 1.
 * @param samples how many independent looks at a problem its share is the mean of, at most.
 * @throws RetortError (bad-input) without problems.
 */
export function shareEstimate(perProblem: readonly number[], samples = 1, z = Z95): Estimate {
  const n = perProblem.length;
  if (n === 0) throw refuse('bad-input', 'problems to estimate from', n, 'evaluate at least one');
  const value = mean(perProblem);
  const spread = n > 1 ? perProblem.reduce((s, x) => s + (x - value) ** 2, 0) / (n - 1) : value * (1 - value);
  const asTrials = spread > 0 ? (n * value * (1 - value)) / spread : n;
  const trials = Math.min(Math.max(asTrials, n), n * Math.max(1, samples));
  // Held between its ends against rounding.
  return { ...wilson(Math.min(trials, value * trials), trials, z), value };
}

/** The mean of a list that is not empty. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, x) => sum + x, 0) / values.length;
}

/** Items by key, in the order in which the keys first come. */
export function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group) group.push(item);
    else groups.set(key, [item]);
  }
  return groups;
}
