// retort usage: what a server's usage log comes to.
import { Argument, type Command } from 'commander';
import { refuse } from '../errors.js';
import { readKeys } from '../serve/keys.js';
import { readUsage, sumUsage, type UsageEntry } from '../serve/usage-log.js';
import { SERVE_FOLDER } from './serve.js';
import { type CommonOptions, printResult, table } from './terminal.js';

interface UsageFlags extends CommonOptions {
  readonly folder: string;
  readonly since?: string;
  readonly until?: string;
}

const BY = ['key', 'model', 'day'] as const;

export function addUsage(program: Command): void {
  program
    .command('usage')
    .description("sums of a server's usage log: requests, tokens, cost")
    .addArgument(new Argument('[by]', 'what to sum by').choices(BY).default('key'))
    .option('--folder <dir>', "the server's folder", SERVE_FOLDER)
    .option('--since <date>', 'requests that ended then or later, 2026-01-31 or with a time')
    .option('--until <date>', 'requests that ended before')
    .action(usage);
}

function usage(by: (typeof BY)[number], o: UsageFlags): void {
  const [since, until] = [timeOf('--since', o.since), timeOf('--until', o.until)];
  const names = new Map(readKeys(o.folder).map((k) => [k.id, k.name]));
  const nameOf = (e: UsageEntry) =>
    by === 'key' ? (names.get(e.key) ?? e.key) : by === 'model' ? e.model : e.time.slice(0, 10);
  const inside = ({ time }: UsageEntry) =>
    (since === null || Date.parse(time) >= since) && (until === null || Date.parse(time) < until);
  function* entries(): Generator<UsageEntry> {
    for (const entry of readUsage(o.folder)) if (inside(entry)) yield entry;
  }
  const sums = sumUsage(entries(), nameOf);
  const [total] = [...sumUsage(entries(), () => 'total').values()];
  const rows = [...sums].sort(([a], [b]) => a.localeCompare(b)).map(([name, sum]) => ({ name, ...sum }));
  printResult(o, { by, rows, total: total ?? null }, () => {
    if (!total) return 'the log has no requests';
    const cells = [...rows, { name: 'total', ...total }].map((r) => [
      ...[r.name, r.requests, r.left + r.failed, r.promptTokens, r.cachedTokens, r.completionTokens].map(
        String,
      ),
      r.cost.toFixed(6),
    ]);
    return table([[by, 'requests', 'not finished', 'input', 'of it cached', 'output', 'cost'], ...cells]);
  });
}

function timeOf(flag: string, word: string | undefined): number | null {
  if (word === undefined) return null;
  const time = Date.parse(word);
  if (Number.isNaN(time))
    throw refuse('bad-input', flag, word, 'give a date: 2026-01-31, or 2026-01-31T12:00Z');
  return time;
}
