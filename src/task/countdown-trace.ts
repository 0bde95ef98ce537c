// Worked traces for countdown: searches by novices and experts, with dead ends; what a base model learns to search from.
import type { CountdownProblem } from './countdown-steps.js';
import {
  distinctSteps,
  type Part,
  resultOf,
  type Step,
  type StepRules,
  stepsOf,
  stepText,
} from './countdown-steps.js';
import type { Random } from './random.js';
import { writeTrace } from './wording.js';

/**
 * How a search goes. A novice steps at random, forgets what it tried and soon gives up; an expert looks for the last
 * step that comes closest, repeats no first step and prefers first steps that can come close. Both are in the mix, so
 * that rewards find better search to strengthen and not only more of it.
 */
export interface SearchTraceOptions extends StepRules {
  /** The share of searches that an expert makes. */
  readonly experts: number;
  /** A search ends after so many tries at the latest. */
  readonly maxTries: number;
  /** In tags or raw. */
  readonly trace: 'tagged' | 'raw';
  /** The share of raw traces that stand in tags all the same. */
  readonly tagged: number;
}

// How novices and experts differ: a skill of up to 0.3, or of 1.
const NOVICE_SKILL = 0.3;
const goalOf = (skill: number) => 0.95 * skill;
const preferenceOf = (skill: number) => 2 * skill;
const careOf = (skill: number) => 0.5 + 0.5 * skill;
// The chance to go on after a try that missed: one search in five is patient.
const PATIENT = { share: 0.2, stay: 0.85 };
const IMPATIENT_STAY = 0.35;

interface Try {
  readonly working: string;
  readonly value: number;
  readonly answer: string;
}

/**
 * One search. For 3 12 12 = 24: `12*12=144-3=141>12/12=1+3=4<12+3=15+12=27>` and the answer `(12+3)+12`. In a step the
 * larger number stands first, but a step that can go on from the result before it does so directly (`=144-3=141`,
 * `=1+3=4`); any other follows a comma (`3-2=1,12-1=11`). A try that missed is closed by `>` (too high) or `<` (too low); a hit ends
 * the search. The answer is the hit, or else the closest try, the first found of equals. All arithmetic is right.
 */
export function searchTrace(problem: CountdownProblem, random: Random, o: SearchTraceOptions): string {
  const { working, answer } = search(problem, random, o);
  return writeTrace(working, answer, o, random);
}

function search({ numbers, target }: CountdownProblem, random: Random, o: SearchTraceOptions) {
  const skill = random.chance(o.experts) ? 1 : NOVICE_SKILL * random.fraction();
  const stay = random.chance(PATIENT.share) ? PATIENT.stay : IMPATIENT_STAY;
  const parts = numbers.map((value): Part => ({ value, text: String(value) }));
  const firsts = distinctSteps(stepsOf(parts, o)).filter((first) => parts.length < 3 || canGoOn(first, o));
  const nearest = firsts.map((first) => nearestAfter(first, target, o));
  const tried = new Set<number>();
  let working = '';
  let best: Try | null = null;
  const distance = (t: Try) => Math.abs(t.value - target);
  for (let tries = 0; tries < o.maxTries; tries++) {
    const careful = random.chance(careOf(skill));
    const weights = nearest.map((d, i) =>
      careful && tried.has(i) ? 0 : Math.exp((-preferenceOf(skill) * d) / (d + 5)),
    );
    const i = weightedPick(weights, random);
    if (i === null) break;
    tried.add(i);
    const attempt = playOut(firsts[i], target, goalOf(skill), random, o);
    if (attempt === null) continue;
    working += attempt.working;
    if (best === null || distance(attempt) < distance(best)) best = attempt;
    if (attempt.value === target) break;
    working += attempt.value > target ? '>' : '<';
    if (!random.chance(stay)) break;
  }
  // Where no try could be finished (large numbers, few operators) the guess is the numbers strung together.
  return { working, answer: best?.answer ?? numbers.join([...o.operators][0]) };
}

// Goes on from a first step until one number is left; null where no step fits.
function playOut(
  first: Step,
  target: number,
  goal: number,
  random: Random,
  o: SearchTraceOptions,
): Try | null {
  let step = first;
  let working = stepText(step);
  while (step.rest.length > 0) {
    const result = resultOf(step);
    const next = distinctSteps(stepsOf([...step.rest, result], o, result));
    if (next.length === 0) return null;
    const last = step.rest.length === 1;
    step = last && random.chance(goal) ? closest(next, target) : random.pick(next);
    working +=
      step.left === result ? stepText(step).slice(String(result.value).length) : `,${stepText(step)}`;
  }
  // The outermost parentheses are not needed.
  return { working, value: step.value, answer: resultOf(step).text.slice(1, -1) };
}

function canGoOn(first: Step, o: SearchTraceOptions): boolean {
  return stepsOf([...first.rest, resultOf(first)], o).length > 0;
}

// How close the best last step comes; looked at only where the next step is the last.
function nearestAfter(first: Step, target: number, o: SearchTraceOptions): number {
  if (first.rest.length !== 1) return 0;
  return Math.min(
    ...stepsOf([...first.rest, resultOf(first)], o).map(({ value }) => Math.abs(value - target)),
  );
}

function closest(steps: readonly Step[], target: number): Step {
  return steps.reduce((a, b) => (Math.abs(b.value - target) < Math.abs(a.value - target) ? b : a));
}

function weightedPick(weights: readonly number[], random: Random): number | null {
  const total = weights.reduce((sum, w) => sum + w, 0);
  if (total === 0) return null;
  let left = total * random.fraction();
  for (const [i, w] of weights.entries()) {
    left -= w;
    if (left < 0 && w > 0) return i;
  }
  return weights.findLastIndex((w) => w > 0);
}
