// The usage log: one line for each request that used tokens, appended before its answer's last byte leaves.
//
// So every request that a client saw end is in the log, whenever the server is killed; a line is written once, in one
// call, and a torn one at the end is cut off when the log is opened again: its answer had not ended.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { makeFolder } from '../checkpoint/files.js';
import { openJsonlWriter, readJsonl } from '../checkpoint/jsonl.js';
import { takeLock } from '../checkpoint/lock.js';
import { RetortError } from '../errors.js';

/** How a request ended: answered, left by its client, or failed. */
export type Outcome = 'done' | 'left' | 'failed';

const entry = z.object({
  /** When it ended. */
  time: z.string(),
  /** The answer's id, as the client has it. */
  id: z.string(),
  /** Id of its key, or `local` where none is asked for. */
  key: z.string(),
  model: z.string(),
  outcome: z.enum(['done', 'left', 'failed']),
  promptTokens: z.int().min(0),
  cachedTokens: z.int().min(0),
  completionTokens: z.int().min(0),
  reasoningTokens: z.int().min(0),
  /** At the prices of then. */
  cost: z.number().min(0),
});

export type UsageEntry = z.infer<typeof entry>;

export interface UsageLog {
  append(entry: UsageEntry): void;
  close(): void;
}

const SYNC_EVERY_MS = 1000;
const pathOf = (folder: string) => join(folder, 'usage.jsonl');

/**
 * Opens the log of a server's folder for appending; a second server would write over its lines.
 * @throws RetortError storage; bad-input where another server has it open
 */
export function openUsageLog(folder: string): UsageLog {
  makeFolder(folder);
  const unlock = takeLock(join(folder, 'lock.json'), `the usage log of the server's folder ${folder}`);
  const writer = openJsonlWriter(pathOf(folder));
  let dirty = false;
  // What is written survives the process at once; the machine's fall only once it is synced.
  const timer = setInterval(() => {
    if (!dirty) return;
    dirty = false;
    writer.sync();
  }, SYNC_EVERY_MS);
  timer.unref();
  return {
    append(line) {
      writer.append(line);
      dirty = true;
    },
    close() {
      clearInterval(timer);
      writer.sync();
      writer.close();
      unlock();
    },
  };
}

/** The entries of a folder's log, oldest first. @throws RetortError bad-data naming the line */
export function* readUsage(folder: string): Generator<UsageEntry> {
  const path = pathOf(folder);
  if (!existsSync(path)) return;
  const remedy = 'the log was changed: restore it';
  for (const { number, value } of readJsonl(path, { code: 'bad-data', remedy, tornLastLine: true })) {
    const result = entry.safeParse(value);
    if (!result.success)
      throw new RetortError('bad-data', `${path}:${number}: ${result.error.issues[0]?.message}; ${remedy}`);
    yield result.data;
  }
}

export interface UsageSum {
  requests: number;
  left: number;
  failed: number;
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
  reasoningTokens: number;
  cost: number;
}

/** Adds entries up by what `by` makes of them. */
export function sumUsage(
  entries: Iterable<UsageEntry>,
  by: (entry: UsageEntry) => string,
): Map<string, UsageSum> {
  const sums = new Map<string, UsageSum>();
  for (const e of entries) {
    const sum = sums.get(by(e)) ?? {
      ...{ requests: 0, left: 0, failed: 0, promptTokens: 0, cachedTokens: 0 },
      ...{ completionTokens: 0, reasoningTokens: 0, cost: 0 },
    };
    sums.set(by(e), sum);
    sum.requests++;
    if (e.outcome !== 'done') sum[e.outcome]++;
    sum.promptTokens += e.promptTokens;
    sum.cachedTokens += e.cachedTokens;
    sum.completionTokens += e.completionTokens;
    sum.reasoningTokens += e.reasoningTokens;
    sum.cost += e.cost;
  }
  return sums;
}
