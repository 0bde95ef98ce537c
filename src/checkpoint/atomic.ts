// Writing so that a crash, a kill or a full disk leaves either the old content or the new, never half of it.
import fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { RetortError } from '../errors.js';
import { fileProblem, makeFolder, systemCode } from './files.js';

/** A system error while writing, as the error that users see; other errors pass unchanged. */
export function storageError(error: unknown, path: string, intact: string): unknown {
  if (error instanceof RetortError || systemCode(error) === undefined) return error;
  return new RetortError(
    'storage',
    `cannot write ${path}: ${fileProblem(error)}; ${intact}; free space or correct permissions, then go on`,
    { cause: error },
  );
}

/** Bytes that one call is asked to write: Node takes fewer than 2 GiB. */
const MOST_AT_ONCE = 2 ** 30;

/** Writes all bytes, however few one call takes. */
export function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; )
    done += fs.writeSync(fd, bytes, done, Math.min(bytes.length - done, MOST_AT_ONCE));
}

/** Makes the entries of a folder durable. Windows has no such call and does not need it. */
export function syncFolder(path: string): void {
  if (process.platform === 'win32') return;
  const fd = fs.openSync(path, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function syncTree(path: string): void {
  for (const entry of fs.readdirSync(path, { withFileTypes: true })) {
    const inner = join(path, entry.name);
    if (entry.isDirectory()) syncTree(inner);
    else syncFile(inner);
  }
  syncFolder(path);
}

function syncFile(path: string): void {
  // Windows flushes only handles that may write.
  const fd = fs.openSync(path, 'r+');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

const temporary = (path: string) => `${path}.new.tmp`;
const replaced = (path: string) => `${path}.old.tmp`;

/**
 * Clears what an interrupted `writeDirectoryAtomically` left: a half-written new folder goes; a folder that was
 * moved aside comes back if its replacement had not arrived.
 */
export function recoverDirectory(path: string): void {
  fs.rmSync(temporary(path), { recursive: true, force: true });
  if (!fs.existsSync(replaced(path))) return;
  if (fs.existsSync(path)) fs.rmSync(replaced(path), { recursive: true, force: true });
  else fs.renameSync(replaced(path), path);
}

/** Finishes or takes back every interrupted write and removal among the entries of a folder. */
export function recoverEntries(folder: string): void {
  for (const name of fs.readdirSync(folder)) {
    const match = /^(.+)\.(new|old|gone)\.tmp$/.exec(name);
    if (match?.[2] === 'gone') fs.rmSync(join(folder, name), { recursive: true, force: true });
    else if (match) recoverDirectory(join(folder, match[1]!));
  }
}

/** Removes a folder so that, whenever it is interrupted, no half of it stays under its name. */
export function removeDirectory(path: string): void {
  const gone = `${path}.gone.tmp`;
  fs.rmSync(gone, { recursive: true, force: true });
  fs.renameSync(path, gone);
  fs.rmSync(gone, { recursive: true, force: true });
}

/**
 * Fills a temporary folder beside `finalPath`, syncs every file in it and the folder, and renames it into place; an
 * existing folder is replaced. If anything fails, the temporary folder is removed and `finalPath` is as before.
 * @param fill writes the files into the folder that it is given
 * @throws RetortError `storage` for a full disk, missing permission and the like, saying what stays intact; an error
 * of `fill` of another kind passes unchanged.
 */
export function writeDirectoryAtomically(finalPath: string, fill: (temporaryPath: string) => void): void {
  const parent = dirname(finalPath);
  const next = temporary(finalPath);
  let placed = false;
  try {
    makeFolder(parent);
    recoverDirectory(finalPath);
    fs.mkdirSync(next);
    fill(next);
    syncTree(next);
    const replaces = fs.existsSync(finalPath);
    if (replaces) fs.renameSync(finalPath, replaced(finalPath));
    fs.renameSync(next, finalPath);
    placed = true;
    syncFolder(parent);
    if (replaces) fs.rmSync(replaced(finalPath), { recursive: true, force: true });
  } catch (error) {
    discard(() => {
      if (placed) fs.renameSync(finalPath, next);
      recoverDirectory(finalPath);
    });
    // What a full disk stopped inside the folder is gone with it: the message is about the folder.
    const first = error instanceof RetortError && error.code === 'storage' ? (error.cause ?? error) : error;
    throw storageError(first, finalPath, `what ${parent} held before is unchanged`);
  }
}

/** Writes a text file whole or not at all: temporary name, sync, rename, sync of the folder. */
export function writeFileAtomically(path: string, text: string): void {
  const next = temporary(path);
  try {
    const fd = fs.openSync(next, 'w');
    try {
      writeAll(fd, Buffer.from(text));
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
    fs.renameSync(next, path);
    syncFolder(dirname(path));
  } catch (error) {
    discard(() => fs.rmSync(next, { force: true }));
    throw storageError(error, path, `${basename(path)} is as it was before`);
  }
}

// Cleaning up after a failure may fail as well (a read-only disk); the first error is the one to report, and the
// next start cleans again.
function discard(clean: () => void): void {
  try {
    clean();
  } catch {}
}
