// Several tasks as one: each problem belongs to a member, in fixed proportions. What a mixed run trains on.
import { z } from 'zod';
import { RetortError, refuse } from '../errors.js';
import type { TaskKind } from './kind.js';
import { readOptions, readProblem } from './options.js';
import { randomFor } from './random.js';
import type { Task } from './task.js';

/** A problem of a mix: the member's name and its problem. */
export interface MixProblem {
  readonly task: string;
  readonly problem: unknown;
}

/** A task of a mix. */
export interface MixMember {
  readonly task: Task;
  /** How often it comes, against the others; a whole number. Default 1. */
  readonly weight?: number;
}

const weightSchema = z.int().min(1).max(100);
/** A member as options name it. */
export const mixMember = z.union([
  z.string(),
  z.strictObject({
    task: z.string(),
    options: z.record(z.string(), z.unknown()).default({}),
    weight: weightSchema.default(1),
  }),
]);

/** How members are named in options: names, or objects with the member's own options. */
export type MixMemberOption = z.input<typeof mixMember>;

const optionSchema = z.object({
  tasks: z
    .union([z.string(), z.array(mixMember)])
    .describe(
      'names with commas between them, or JSON: [{"task": "chain-sum", "options": {"maxTerms": 5}, "weight": 2}, "multiply"]',
    ),
});
const problemSchema = z.object({ task: z.string(), problem: z.unknown() });

/**
 * A task made of others. Problems keep the proportions of the weights in every stretch of as many problems as the
 * weights add up to; a member's problems come in the member's own order, so that a finite one is gone through evenly.
 * @throws RetortError bad-input for fewer than two members, equal names, or members that do not go together
 */
export function mixTasks(
  members: readonly MixMember[],
  options: Readonly<Record<string, unknown>> = {},
): Task<MixProblem> {
  check(members);
  const byName = new Map(members.map(({ task }) => [task.name, task]));
  const of = ({ task }: MixProblem): Task => {
    const member = byName.get(task);
    if (member) return member;
    throw refuse('bad-data', 'task of a mixed problem', task, `the mix has ${[...byName.keys()].join(', ')}`);
  };
  const slots = members.flatMap(({ task, weight = 1 }) => Array<Task>(weight).fill(task));
  const weightOf = new Map(members.map(({ task, weight = 1 }) => [task, weight]));
  const [first] = members;
  return {
    name: 'mix',
    description: `${members.map(({ task }) => task.name).join(', ')} mixed`,
    options,
    members: members.map(({ task }) => task),
    memberOf: of,
    problem(split, index, seed) {
      const round = Math.floor(index / slots.length);
      const order = randomFor('mix', split, seed, round).shuffle(slots);
      const at = index % slots.length;
      const task = order[at];
      const own = order.slice(0, at).filter((t) => t === task).length;
      const turn = round * (weightOf.get(task) as number) + own;
      return {
        task: task.name,
        problem: task.problem(split, task.size ? turn % task.size[split] : turn, seed),
      };
    },
    parseProblem(json) {
      const { task, problem } = readProblem('mix', problemSchema, json);
      return { task, problem: of({ task, problem }).parseProblem(problem) };
    },
    prompt: (p) => of(p).prompt(p.problem),
    score: (p, completion, context) => of(p).score(p.problem, completion, context),
    rewardWeights: Object.assign({}, ...members.map(({ task }) => task.rewardWeights)),
    answerKey: (p, completion) => of(p).answerKey(p.problem, completion),
    kind(p) {
      const task = of(p);
      const kind = task.kind?.(p.problem);
      return kind === undefined ? task.name : `${task.name} ${kind}`;
    },
    measures: (p, completion) => of(p).measures?.(p.problem, completion) ?? {},
    gold: (p) => of(p).gold?.(p.problem) ?? null,
    ...(members.every(({ task }) => task.trace) && {
      trace: (p: MixProblem, seed: number) => of(p).trace?.(p.problem, seed) as string,
    }),
    alphabet: [...new Set(members.flatMap(({ task }) => [...task.alphabet]))].sort().join(''),
    template: first.task.template,
    ...(members.some(({ task }) => task.repeatable === false) && { repeatable: false }),
    ...(members.some(({ task }) => task.spent) && {
      spent: () => addUp(members.map(({ task }) => task.spent?.() ?? {})),
    }),
  };
}

function addUp(records: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const record of records)
    for (const [name, value] of Object.entries(record)) sums[name] = (sums[name] ?? 0) + value;
  return sums;
}

function check(members: readonly MixMember[]): void {
  if (members.length < 2)
    throw refuse('bad-input', 'tasks of a mix', members.length, 'name two at least, or the one task itself');
  const weights = new Map<string, number>();
  for (const [i, { task, weight }] of members.entries()) {
    if (weight !== undefined && !weightSchema.safeParse(weight).success)
      throw refuse(
        'bad-input',
        `weight of ${task.name} in a mix`,
        weight,
        'give a whole number from 1 to 100',
      );
    if (task.members) throw refuse('bad-input', 'task in a mix', task.name, 'name its members instead');
    if (members.findIndex(({ task: other }) => other.name === task.name) < i)
      throw refuse(
        'bad-input',
        'two tasks of a mix have the name',
        task.name,
        'give one of them another name',
      );
    const [{ task: first }] = members;
    if (task.template !== first.template) {
      throw new RetortError(
        'bad-input',
        `the tasks of a mix are put in different ways: ${first.name} by the template ${first.template}, ${task.name} by ` +
          `${task.template}; give their options the same wording and trace`,
      );
    }
    for (const [name, value] of Object.entries(task.rewardWeights ?? {})) {
      if (weights.has(name) && weights.get(name) !== value)
        throw refuse(
          'bad-input',
          `weight of reward ${name} in a mix`,
          value,
          'another task gives it another one',
        );
      weights.set(name, value);
    }
  }
}

/** The members as options name them. @throws RetortError bad-input */
export function readMixOptions(options: Readonly<Record<string, unknown>>): {
  readonly word: string;
  readonly options: Readonly<Record<string, unknown>>;
  readonly weight: number;
}[] {
  const { tasks } = readOptions('mix', optionSchema, options);
  const list = typeof tasks === 'string' ? tasks.split(',').map((name) => name.trim()) : tasks;
  return list.map((member) =>
    typeof member === 'string'
      ? { word: member, options: {}, weight: 1 }
      : { word: member.task, options: member.options, weight: member.weight },
  );
}

/** The registry's entry, with the way to make a member. */
export function mixKind(make: (name: string, options: Readonly<Record<string, unknown>>) => Task): TaskKind {
  return {
    description: 'several tasks as one, in the proportions that their weights give',
    options: optionSchema,
    make: (options) =>
      mixTasks(
        readMixOptions(options).map((m) => ({ task: make(m.word, m.options), weight: m.weight })),
        options,
      ) as Task,
  };
}
