// Which completions of a run a report shows: whole steps, evenly spread from the first to the last.
import fs from 'node:fs';
import { z } from 'zod';
import { checkJson } from '../checkpoint/files.js';
import { readJsonl } from '../checkpoint/jsonl.js';

const rowSchema = z.looseObject({
  step: z.number(),
  problem: z.unknown().optional(),
  prompt: z.string().optional(),
  completion: z.string(),
  tokens: z.number().optional(),
  finishReason: z.string().optional(),
  rewards: z.record(z.string(), z.number().nullable()).optional(),
  reward: z.number().nullish(),
  correct: z.boolean().nullish(),
  advantage: z.number().nullish(),
});
export type CompletionRow = z.output<typeof rowSchema>;

export interface CompletionChoice {
  readonly rows: readonly CompletionRow[];
  /** Rows of the file in all. */
  readonly recorded: number;
}

/** A run that goes on may be writing its last line: that one is left out. */
export const READING = {
  code: 'bad-input',
  remedy: 'remove the line, or name another folder',
  tornLastLine: true,
} as const;

/** @param most rows to take; of the last step alone where that has more than half of them */
export function chooseCompletions(path: string, most: number): CompletionChoice {
  if (!fs.existsSync(path)) return { rows: [], recorded: 0 };
  const perStep = new Map<number, number>();
  for (const row of rowsOf(path)) perStep.set(row.step, (perStep.get(row.step) ?? 0) + 1);
  const recorded = [...perStep.values()].reduce((sum, n) => sum + n, 0);
  const inOneStep = [...perStep.values()].reduce((a, b) => Math.max(a, b), 1);
  const chosen = spread([...perStep.keys()], Math.floor(most / inOneStep));
  // Not even one step fits: its first rows.
  if (chosen.size === 0 && most > 0 && recorded > 0) chosen.add([...perStep.keys()].at(-1)!);
  const rows: CompletionRow[] = [];
  if (chosen.size > 0)
    for (const row of rowsOf(path)) if (chosen.has(row.step) && rows.length < most) rows.push(row);
  return { rows, recorded };
}

function* rowsOf(path: string): Generator<CompletionRow> {
  for (const { number, value } of readJsonl(path, READING))
    yield checkJson(value, `${path}:${number}`, rowSchema, 'bad-input');
}

/** So many of them, the first and the last among these; the last where only one fits. */
function spread(steps: readonly number[], count: number): Set<number> {
  if (count >= steps.length) return new Set(steps);
  if (count === 1) return new Set(steps.slice(-1));
  const at = (i: number) => steps[Math.round((i * (steps.length - 1)) / (count - 1))];
  return new Set(Array.from({ length: count }, (_, i) => at(i)));
}
