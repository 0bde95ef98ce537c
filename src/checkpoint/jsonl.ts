// JSON lines: an append-only writer that knows its byte offset and can be cut back, and readers with line numbers.
import fs from 'node:fs';
import { type ErrorCode, RetortError } from '../errors.js';
import { storageError } from './atomic.js';
import { fileProblem } from './files.js';

/** Appends one JSON object a line. */
export interface JsonlWriter {
  readonly path: string;
  /** Appends a line in one write. Where that fails, the file is cut back to the lines before it. */
  append(value: unknown): void;
  /** Bytes of the file so far: always the end of a whole line. */
  offset(): number;
  /** Makes everything appended durable. */
  sync(): void;
  close(): void;
}

const NEWLINE = 0x0a;

/**
 * Opens a file for appending and makes it where there is none.
 * @param options.truncateTo cuts the file back to the offset that a checkpoint recorded; absent: only a torn last
 * line (an interrupted write) is cut
 * @throws RetortError `storage` where it cannot be written, `bad-checkpoint` where it is shorter than `truncateTo` or
 * the offset is inside a line.
 */
export function openJsonlWriter(path: string, options: { truncateTo?: number } = {}): JsonlWriter {
  const intact = `the lines written to ${path} before are intact`;
  const guarded = <T>(run: () => T): T => {
    try {
      return run();
    } catch (error) {
      throw storageError(error, path, intact);
    }
  };
  const fd = guarded(() => fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o644));
  let end: number;
  try {
    end = guarded(() => cutBack(fd, path, options.truncateTo));
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
  return {
    path,
    append(value) {
      const bytes = Buffer.from(`${JSON.stringify(value)}\n`);
      guarded(() => {
        try {
          writeAt(fd, bytes, end);
        } catch (error) {
          // A torn line in the middle of the file would make every later line unreadable.
          fs.ftruncateSync(fd, end);
          throw error;
        }
      });
      end += bytes.length;
    },
    offset: () => end,
    sync: () => guarded(() => fs.fsyncSync(fd)),
    close: () => fs.closeSync(fd),
  };
}

function writeAt(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; )
    done += fs.writeSync(fd, bytes, done, bytes.length - done, position + done);
}

function cutBack(fd: number, path: string, truncateTo: number | undefined): number {
  const { size } = fs.fstatSync(fd);
  const end = truncateTo ?? lastLineEnd(fd, size);
  if (end > size)
    throw new RetortError(
      'bad-checkpoint',
      `${path} has ${size} bytes, but the checkpoint recorded ${end}: lines are lost; restore the file, or resume from an older checkpoint`,
    );
  if (end > 0 && byteAt(fd, end - 1) !== NEWLINE)
    throw new RetortError(
      'bad-checkpoint',
      `${path}: the recorded offset ${end} is inside a line: the file was changed; restore it, or resume from an older checkpoint`,
    );
  if (end < size) fs.ftruncateSync(fd, end);
  return end;
}

function byteAt(fd: number, position: number): number {
  const one = new Uint8Array(1);
  fs.readSync(fd, one, 0, 1, position);
  return one[0]!;
}

function lastLineEnd(fd: number, size: number): number {
  const block = new Uint8Array(65536);
  for (let end = size; end > 0; ) {
    const start = Math.max(0, end - block.length);
    const read = fs.readSync(fd, block, 0, end - start, start);
    const found = block.subarray(0, read).lastIndexOf(NEWLINE);
    if (found >= 0) return start + found + 1;
    end = start;
  }
  return 0;
}

/** A line of a text file, without its line end. */
export interface Line {
  /** From 1. */
  readonly number: number;
  readonly text: string;
  /** False for a last line without line end. */
  readonly complete: boolean;
}

const MAX_LINE = 2 ** 26;

/**
 * The lines of a UTF-8 file, read in blocks; a byte-order mark and carriage returns before line ends are dropped.
 * @throws RetortError with `code` where the file cannot be read or a line has more than 64 MiB.
 */
export function* readLines(path: string, code: ErrorCode, remedy: string): Generator<Line> {
  const unreadable = (error: unknown) =>
    new RetortError(code, `cannot read ${path}: ${fileProblem(error)}; ${remedy}`, { cause: error });
  let fd: number;
  try {
    fd = fs.openSync(path, 'r');
  } catch (error) {
    throw unreadable(error);
  }
  try {
    const block = new Uint8Array(65536);
    let parts: Buffer[] = [];
    let length = 0;
    let number = 1;
    const take = (complete: boolean): Line => {
      let text = Buffer.concat(parts).toString('utf8');
      if (number === 1 && text.startsWith('\uFEFF')) text = text.slice(1);
      if (text.endsWith('\r')) text = text.slice(0, -1);
      parts = [];
      length = 0;
      return { number: number++, text, complete };
    };
    while (true) {
      let read: number;
      try {
        read = fs.readSync(fd, block, 0, block.length, null);
      } catch (error) {
        throw unreadable(error);
      }
      if (read === 0) break;
      let from = 0;
      for (let at = block.indexOf(NEWLINE); at >= 0 && at < read; at = block.indexOf(NEWLINE, from)) {
        parts.push(Buffer.from(block.subarray(from, at)));
        yield take(true);
        from = at + 1;
      }
      parts.push(Buffer.from(block.subarray(from, read)));
      length += read - from;
      if (length > MAX_LINE)
        throw new RetortError(
          code,
          `${path}:${number}: a line of more than 64 MiB; put one object on a line`,
        );
    }
    if (length > 0) yield take(false);
  } finally {
    fs.closeSync(fd);
  }
}

/** A parsed line of a JSONL file. */
export interface JsonLine {
  readonly number: number;
  readonly value: unknown;
}

/**
 * The parsed lines of a JSONL file; empty lines are left out.
 * @param options.tornLastLine whether a broken last line without line end (an interrupted append) is left out
 * @throws RetortError with `code`, as `FILE:LINE: ...`, for a line that is not JSON.
 */
export function* readJsonl(
  path: string,
  options: { code: ErrorCode; remedy: string; tornLastLine?: boolean },
): Generator<JsonLine> {
  for (const { number, text, complete } of readLines(path, options.code, options.remedy)) {
    if (text.trim() === '') continue;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      if (options.tornLastLine && !complete) return;
      const near = text.length > 60 ? `${text.slice(0, 57)}...` : text;
      throw new RetortError(
        options.code,
        `${path}:${number}: the line is not JSON (${(error as Error).message}): got ${near}; ${options.remedy}`,
        { cause: error },
      );
    }
    yield { number, value };
  }
}
