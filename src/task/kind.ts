// What a file of a shipped task exports: its options and how to make it.
import type { OptionSchema } from './options.js';
import type { Task } from './task.js';

/** A task before its options are known. */
export interface TaskKind {
  /** One line. */
  readonly description: string;
  readonly options: OptionSchema;
  /** Checks the options and makes the task; throws RetortError (bad-input). */
  make(options: Readonly<Record<string, unknown>>): Task;
}
