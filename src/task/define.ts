// defineTask: a task from the few things that only its author knows; the rest is checked and filled in.
import { RetortError, refuse } from '../errors.js';
import { answerScore, extractAnswer } from '../reward/answer.js';
import { type Random, randomFor } from './random.js';
import { splitOf } from './split.js';
import type { Score, Split, Task, TemplateName } from './task.js';

/** What a task's author writes. One of `make`, `problems` and `problem` says where problems come from. */
export interface TaskDefinition<P> {
  /** Lower-case words joined by hyphens. */
  readonly name: string;
  readonly description?: string;
  readonly options?: Readonly<Record<string, unknown>>;
  /** Draws one problem. Null asks for another draw. Split by a hash of `splitKey`. */
  readonly make?: (random: Random) => P | null;
  /** With `make`: problems with the same key are in the same split. The problem as JSON where absent. */
  readonly splitKey?: (problem: P) => string;
  /** A finite set, each split in the order of its file; it is shuffled anew by the seed in each pass. */
  readonly problems?: Readonly<Record<Split, readonly P[]>>;
  /** Full control; the author keeps the splits apart. */
  readonly problem?: (split: Split, index: number, seed: number) => P;
  /** Any JSON object is taken as a problem where absent. */
  readonly parseProblem?: (json: unknown) => P;
  readonly prompt: (problem: P) => string;
  /**
   * Where absent, `gold` must be there and the answer in its tags must equal it: 1, else 0.1, without answer 0.
   */
  readonly score?: Task<P>['score'];
  readonly rewardWeights?: Readonly<Record<string, number>>;
  /** The text of the last closed `<answer>` where absent. */
  readonly answerKey?: (problem: P, completion: string) => string | null;
  readonly measures?: (problem: P, completion: string) => Readonly<Record<string, number>>;
  readonly gold?: (problem: P) => string | null;
  readonly trace?: (problem: P, seed: number) => string;
  /** What sort of problem it is, where they differ in how hard they are. */
  readonly kind?: (problem: P) => string;
  /** False where the same completion may get another score the next time; true where absent. */
  readonly repeatable?: boolean;
  /** Whether `score` keeps a time limit of its own. */
  readonly endsByItself?: boolean;
  /** How many completions it can score at a time, where that is more than usual. */
  readonly concurrency?: number;
  /** What scoring cost so far. */
  readonly spent?: () => Readonly<Record<string, number>>;
  /** Lets go of what scoring opened. */
  readonly close?: () => Promise<void>;
  /** Printable ASCII and the line break where absent. */
  readonly alphabet?: string;
  /** `r1` where absent. */
  readonly template?: TemplateName;
}

const FUNCTIONS = [
  'make',
  'splitKey',
  'problem',
  'parseProblem',
  'score',
  'answerKey',
  'measures',
  'gold',
  'trace',
  'kind',
  'spent',
  'close',
] as const;
const FIELDS = new Set<string>([
  ...FUNCTIONS,
  ...[
    'name',
    'description',
    'options',
    'problems',
    'prompt',
    'rewardWeights',
    'repeatable',
    'endsByItself',
    'concurrency',
    'alphabet',
    'template',
  ],
]);
const TEMPLATES: readonly TemplateName[] = ['terse', 'r1', 'raw'];
const PRINTABLE = `\n${Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).join('')}`;
// A set of options under which fewer than one draw in ten thousand fits is a mistake, not a task.
const MAX_DRAWS = 100_000;

/**
 * Makes a task.
 *
 * @throws RetortError (bad-input) that names the field which is wrong or missing.
 * @example
 * const parity = defineTask({
 *   name: 'parity',
 *   make: (random) => ({ n: random.integer(0, 999) }),
 *   prompt: ({ n }) => `Is ${n} odd or even?`,
 *   gold: ({ n }) => (n % 2 ? 'odd' : 'even'),
 * });
 */
export function defineTask<P>(definition: TaskDefinition<P>): Task<P> {
  checkDefinition(definition);
  const { name, gold, measures, trace, kind, rewardWeights, repeatable, problems } = definition;
  const { endsByItself, concurrency, spent, close } = definition;
  const answerKey = definition.answerKey ?? ((_: P, completion: string) => extractAnswer(completion));
  const scoreAgainstGold = (problem: P, completion: string): Score => {
    const answer = extractAnswer(completion);
    return answerScore(answer !== null, answer !== null && answer === gold?.(problem)?.trim());
  };
  return {
    name,
    description: definition.description ?? name,
    options: definition.options ?? {},
    problem: definition.problem ?? (problems ? fromList(name, problems) : fromDraws(definition)),
    ...(problems && { size: { train: problems.train.length, heldout: problems.heldout.length } }),
    parseProblem: definition.parseProblem ?? ((json) => anyObject<P>(name, json)),
    prompt: definition.prompt,
    score: definition.score ?? scoreAgainstGold,
    ...(rewardWeights && { rewardWeights }),
    answerKey,
    ...(measures && { measures }),
    ...(gold && { gold }),
    ...(trace && { trace }),
    ...(kind && { kind }),
    ...(repeatable !== undefined && { repeatable }),
    ...(endsByItself !== undefined && { endsByItself }),
    ...(concurrency !== undefined && { concurrency }),
    ...(spent && { spent }),
    ...(close && { close }),
    alphabet: definition.alphabet ?? PRINTABLE,
    template: definition.template ?? 'r1',
  };
}

function checkDefinition<P>(d: TaskDefinition<P>): void {
  if (typeof d !== 'object' || d === null) throw refuse('bad-input', 'task definition', d, 'give an object');
  if (typeof d.name !== 'string' || !/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/.test(d.name)) {
    throw refuse('bad-input', 'name of a task', d.name, 'use lower-case words joined by hyphens');
  }
  const wrong = (field: string, value: unknown, remedy: string) =>
    refuse('bad-input', `${field} of task ${d.name}`, value, remedy);
  for (const field of Object.keys(d)) {
    if (!FIELDS.has(field)) {
      throw wrong(`unknown field`, field, `a definition has ${[...FIELDS].join(', ')}`);
    }
  }
  if (typeof d.prompt !== 'function') throw wrong('prompt', d.prompt, 'give a function from problem to text');
  for (const field of FUNCTIONS) {
    if (d[field] !== undefined && typeof d[field] !== 'function')
      throw wrong(field, d[field], 'give a function');
  }
  const sources = (['make', 'problems', 'problem'] as const).filter((field) => d[field] !== undefined);
  if (sources.length !== 1) {
    throw wrong('source of problems', sources, 'give exactly one of make, problems and problem');
  }
  if (!d.score && !d.gold) throw wrong('score', undefined, 'give score, or gold to compare the answer with');
  if (d.problems) checkLists(d.name, d.problems);
  for (const [reward, weight] of Object.entries(d.rewardWeights ?? {})) {
    if (!Number.isFinite(weight)) throw wrong(`weight of reward ${reward}`, weight, 'give a finite number');
  }
  if (d.template !== undefined && !TEMPLATES.includes(d.template)) {
    throw wrong('template', d.template, `use one of ${TEMPLATES.join(', ')}`);
  }
}

function checkLists(name: string, problems: Readonly<Record<Split, readonly unknown[]>>): void {
  for (const split of ['train', 'heldout'] as const) {
    if (!Array.isArray(problems[split]) || problems[split].length === 0) {
      throw refuse('bad-input', `problems.${split} of task ${name}`, problems[split], 'give at least one');
    }
  }
  const train = new Set(problems.train.map((p) => JSON.stringify(p)));
  const shared = problems.heldout.findIndex((p) => train.has(JSON.stringify(p)));
  if (shared >= 0) {
    const remedy = 'a held-out problem must not be trained on: remove it from one of the two';
    throw refuse(
      'bad-input',
      `problems.heldout[${shared}] of task ${name}, also in train`,
      problems.heldout[shared],
      remedy,
    );
  }
}

// Draws until a problem falls into the wanted split. Which split it falls into depends on the problem alone.
function fromDraws<P>(d: TaskDefinition<P>): Task<P>['problem'] {
  const make = d.make as (random: Random) => P | null;
  const key = d.splitKey ?? ((problem: P) => JSON.stringify(problem));
  return (split, index, seed) => {
    const random = randomFor(d.name, split, seed, index);
    for (let draw = 0; draw < MAX_DRAWS; draw++) {
      const problem = make(random);
      if (problem !== null && splitOf(key(problem)) === split) return problem;
    }
    throw new RetortError(
      'bad-input',
      `task ${d.name} found no ${split} problem in ${MAX_DRAWS} draws with options ${JSON.stringify(d.options ?? {})}; ` +
        'widen its ranges',
    );
  };
}

function fromList<P>(name: string, problems: Readonly<Record<Split, readonly P[]>>): Task<P>['problem'] {
  let order: readonly P[] = [];
  let orderKey = '';
  return (split, index, seed) => {
    const list = problems[split];
    const pass = Math.floor(index / list.length);
    const key = `${name}/${split}/${seed}/${pass}`;
    if (key !== orderKey) [order, orderKey] = [randomFor(key).shuffle(list), key];
    return order[index % list.length];
  };
}

function anyObject<P>(name: string, json: unknown): P {
  if (typeof json === 'object' && json !== null && !Array.isArray(json)) return json as P;
  throw refuse('bad-data', `problem of task ${name}`, json, 'give a JSON object');
}
