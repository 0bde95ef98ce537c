// What the commands print: progress on standard error, results on standard output.
import { styleText } from 'node:util';

/** Common to every verb. */
export interface CommonOptions {
  readonly json?: boolean;
  readonly debug?: boolean;
}

const live = process.stderr.isTTY === true;
let liveLine = false;

/** A lasting line on standard error. */
export function say(text: string): void {
  clearLive();
  process.stderr.write(`${text}\n`);
}

export function dim(text: string): string {
  return live ? styleText('dim', text) : text;
}

export function bold(text: string): string {
  return live ? styleText('bold', text) : text;
}

function clearLive(): void {
  if (!liveLine) return;
  process.stderr.write('\r\x1b[2K');
  liveLine = false;
}

/** Seconds as a person reads them: 42 s, 3 min 20 s, 1 h 05 min. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, '0')} s`;
  return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, '0')} min`;
}

export interface Progress {
  /** Shows how far the work is; `note` is what it does or found. */
  update(done: number, total: number, note: string): void;
  end(): void;
}

/** Plain lines come at most this often. */
const PLAIN_SECONDS = 10;
const BAR = 24;

/** A bar with rate and time left on a terminal, now and then a plain line elsewhere. */
export function openProgress(what: string, unit: string): Progress {
  const began = performance.now();
  let lastPlain = began;
  let lastLive = 0;
  let firstDone: number | null = null;
  return {
    update(done, total, note) {
      const now = performance.now();
      firstDone ??= done;
      const elapsed = (now - began) / 1000;
      const rate = elapsed > 0 ? (done - firstDone) / elapsed : 0;
      const left = rate > 0 ? `, ${duration((total - done) / rate)} left` : '';
      const speed = rate > 0 ? `, ${rate >= 10 ? rate.toFixed(0) : rate.toFixed(2)} ${unit}/s` : '';
      const text = `${what} ${done}/${total}${speed}${left}${note ? `  ${note}` : ''}`;
      if (live) {
        if (now - lastLive < 80 && done < total) return;
        lastLive = now;
        const full = Math.round((BAR * done) / Math.max(1, total));
        const bar = `${'█'.repeat(full)}${'░'.repeat(BAR - full)}`;
        process.stderr.write(`\r\x1b[2K${`${bar} ${text}`.slice(0, (process.stderr.columns ?? 100) - 1)}`);
        liveLine = true;
      } else if (now - lastPlain > PLAIN_SECONDS * 1000) {
        lastPlain = now;
        process.stderr.write(`${text}\n`);
      }
    },
    end: clearLive,
  };
}

/** The result: as one JSON object, or as text for people. */
export function printResult(options: CommonOptions, result: unknown, text: () => string): void {
  clearLive();
  process.stdout.write(`${options.json ? JSON.stringify(result) : text()}\n`);
}

/** A table with a header row; columns are padded. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((r) => r[i].length)));
  const line = (r: readonly string[]) =>
    r.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('  ');
  return [line(rows[0]), widths.map((w) => '─'.repeat(w)).join('  '), ...rows.slice(1).map(line)].join('\n');
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}

export function percentWithInterval(share: number, [low, high]: readonly [number, number]): string {
  return `${percent(share)} (${(100 * low).toFixed(1)}–${(100 * high).toFixed(1)})`;
}
