// What the commands print: progress on standard error, results on standard output.
import { styleText } from 'node:util';

/** Common to every verb. */
export interface CommonOptions {
  readonly json?: boolean;
  readonly debug?: boolean;
}

/** Whether there is a terminal to draw on. */
export const live = process.stderr.isTTY === true;
let liveRows = 0;

/** A lasting line on standard error. */
export function say(text: string): void {
  clearLive();
  process.stderr.write(`${text}\n`);
}

export function dim(text: string): string {
  return live ? styleText('dim', text) : text;
}

/** Characters that fit on a row. Some terminals, those that `script` and Docker make, say 0: they do not know. */
export function widthOf({ columns }: { readonly columns?: number }): number {
  return (columns || 80) - 1;
}

/** Draws rows that the next ones replace; each is cut to the width of the terminal. Without a terminal: nothing. */
export function drawLive(rows: readonly string[]): void {
  if (!live) return;
  const width = widthOf(process.stderr);
  const cut = rows.map((row) => [...row].slice(0, width).join(''));
  clearLive();
  process.stderr.write(cut.join('\n'));
  liveRows = rows.length;
}

/** Takes the live rows away. */
export function clearLive(): void {
  if (liveRows === 0) return;
  // To the first of them, and everything from there on is cleared.
  process.stderr.write(`\r${liveRows > 1 ? `\x1b[${liveRows - 1}A` : ''}\x1b[J`);
  liveRows = 0;
}

/** Joins fields into rows that fit the terminal. */
export function rowsOf(fields: readonly string[], width = widthOf(process.stderr)): string[] {
  const rows: string[] = [];
  for (const field of fields) {
    const longer = rows.length > 0 ? `${rows[rows.length - 1]}  ${field}` : field;
    if (rows.length > 0 && longer.length <= width) rows[rows.length - 1] = longer;
    else rows.push(field);
  }
  return rows;
}

/** Without the control characters that a model may write and a terminal would obey; line breaks and tabs stay. */
export function printable(text: string): string {
  return text.replace(/[^\P{Cc}\n\t]/gu, '\uFFFD');
}

/** The result: as one JSON object, or as text for people. */
export function printResult(options: CommonOptions, result: unknown, text: () => string): void {
  clearLive();
  process.stdout.write(`${options.json ? JSON.stringify(result) : text()}\n`);
}

/** Seconds as a person reads them: 42 s, 3 min 20 s, 1 h 05 min. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, '0')} s`;
  return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, '0')} min`;
}

/** Bytes as a person reads them: 12.3 MiB. */
export function bytes(count: number): string {
  if (count < 2 ** 20) return `${(count / 2 ** 10).toFixed(1)} KiB`;
  if (count < 2 ** 30) return `${(count / 2 ** 20).toFixed(1)} MiB`;
  return `${(count / 2 ** 30).toFixed(2)} GiB`;
}

/** A table with a header row; columns are padded, all but the first to the right. */
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
