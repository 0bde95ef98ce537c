// Finds a task by its shipped name, or loads one from a user's module.
import { RetortError, refuse } from '../errors.js';
import { importExport, isModulePath, moduleReference } from '../reward/module.js';
import { openWorkerPool } from '../reward/worker-pool.js';
import { type MixMember, mixTasks, readMixOptions } from './mix.js';
import { makeTask } from './registry.js';
import type { Task } from './task.js';

const PARTS = ['problem', 'parseProblem', 'prompt', 'score', 'answerKey'] as const;

/**
 * A task by name (`countdown`) or module (`./my-task.js`, `./my-task.js#parity`). A module exports `task`, made by
 * defineTask, or a function from options to a task. Its `score` is run by openScorer in worker threads that can be
 * killed; the rest (`problem`, `prompt`, `answerKey`, ...) runs in this thread.
 *
 * @throws RetortError (bad-input) for an unknown name, wrong options, or a module that gives no task.
 */
export async function loadTask(word: string, options: Readonly<Record<string, unknown>> = {}): Promise<Task> {
  if (word === 'mix') {
    const members: MixMember[] = [];
    for (const member of readMixOptions(options))
      members.push({ task: await loadTask(member.word, member.options), weight: member.weight });
    return mixTasks(members, options) as Task;
  }
  if (!isModulePath(word)) return makeTask(word, options);
  const module = moduleReference(word, options);
  // First in a worker: a module that loops while it loads would hang this thread.
  const trial = await openWorkerPool(module, { kind: 'task', size: 1, timeLimitSeconds: 10 });
  await trial.close();
  const exported = await importExport(module, 'task');
  if (typeof exported !== 'function' && Object.keys(options).length > 0) {
    const remedy = `${module.path} exports a task without options; export a function from options to a task`;
    throw refuse('bad-input', 'options of a task', options, remedy);
  }
  const task = (typeof exported === 'function' ? await exported(options) : exported) as Partial<Task>;
  const missing = PARTS.filter((part) => typeof task?.[part] !== 'function');
  if (missing.length > 0 || typeof task.alphabet !== 'string') {
    throw new RetortError(
      'bad-input',
      `the task of ${module.path} lacks ${missing.join(', ') || 'alphabet'}; make it with defineTask`,
    );
  }
  return { ...(task as Task), module };
}
