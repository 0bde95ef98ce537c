// Reading small files: text and JSON checked against a schema, with errors that name the file and the field.
import fs from 'node:fs';
import { dirname } from 'node:path';
import type { z } from 'zod';
import { type ErrorCode, RetortError } from '../errors.js';

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file or folder',
  EISDIR: 'it is a folder, not a file',
  ENOTDIR: 'a part of the path is a file, not a folder',
  EACCES: 'there is no permission for it',
  EPERM: 'there is no permission for it',
  EROFS: 'the file system is read-only',
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'the file would be larger than the file system allows',
  EMFILE: 'too many files are open',
  ENAMETOOLONG: 'the name is too long',
  EIO: 'the disk reported an input/output error',
};

/** The code of a system error (`ENOENT`), or undefined for any other value. */
export function systemCode(error: unknown): string | undefined {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return typeof code === 'string' ? code : undefined;
}

/** What went wrong with a file, in words. */
export function fileProblem(error: unknown): string {
  const code = systemCode(error);
  return (code && reasons[code]) ?? (error instanceof Error ? error.message : String(error));
}

/**
 * Makes a folder and those above it that are missing. Not by mkdir's own recursion, which never returns on file systems
 * that take no folders, /proc for one.
 */
export function makeFolder(path: string): void {
  try {
    fs.mkdirSync(path);
  } catch (error) {
    if (systemCode(error) === 'EEXIST' && fs.statSync(path).isDirectory()) return;
    const parent = dirname(path);
    if (systemCode(error) !== 'ENOENT' || fs.existsSync(parent)) throw error;
    makeFolder(parent);
    fs.mkdirSync(path);
  }
}

/**
 * Reads a text file as UTF-8.
 * @param remedy what the user can do when it cannot be read
 * @throws RetortError with `code`, naming the path and the reason.
 */
export function readTextFile(path: string, code: ErrorCode, remedy: string): string {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch (error) {
    throw new RetortError(code, `cannot read ${path}: ${fileProblem(error)}; ${remedy}`, { cause: error });
  }
}

/** Like `readTextFile`, but undefined where there is no such file. */
export function readOptionalTextFile(path: string, code: ErrorCode, remedy: string): string | undefined {
  try {
    return readTextFile(path, code, remedy);
  } catch (error) {
    if (systemCode((error as Error).cause) === 'ENOENT') return undefined;
    throw error;
  }
}

/**
 * Parses JSON text and checks it.
 * @param path named in errors
 * @throws RetortError with `code`: `PATH is not JSON: ...` or `PATH: FIELD: ...`.
 */
export function parseJson<T>(text: string, path: string, schema: z.ZodType<T>, code: ErrorCode): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const why = text.trim() === '' ? 'the file is empty' : (error as Error).message;
    throw new RetortError(code, `${path} is not JSON: ${why}; copy the file again from its source`, {
      cause: error,
    });
  }
  return checkJson(value, path, schema, code);
}

/** Checks a parsed value; the error names the first field that does not fit. */
export function checkJson<T>(value: unknown, path: string, schema: z.ZodType<T>, code: ErrorCode): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = issue.path.map(String).join('.') || 'the top level';
  throw new RetortError(code, `${path}: field ${field}: ${issue.message}; correct the field or the file`);
}
