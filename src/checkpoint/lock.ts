// One process at a time writes to a folder or file: a lock file that names its process, void once that process is gone.
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { RetortError } from '../errors.js';
import { systemCode } from './files.js';

/** When a process started, as the system counts it; null where that cannot be told. Tells a reused number apart. */
function startOf(pid: number): string | null {
  try {
    // The fields after the command's name, which may hold spaces itself; the 20th of them is the start time.
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** The process that has a lock; `gone` where it lives no more or the machine's end tore the file, `none` without one. */
function holderOf(path: string): number | 'gone' | 'none' {
  let text: string;
  try {
    text = fs.readFileSync(path, 'utf8');
  } catch {
    return 'none';
  }
  try {
    const { pid, start } = JSON.parse(text) as { pid?: unknown; start?: unknown };
    return typeof pid === 'number' && alive(pid) && (start ?? null) === startOf(pid) ? pid : 'gone';
  } catch {
    return 'gone';
  }
}

/** Puts a whole lock file in place; false where one is there already. */
function place(own: string, path: string): boolean {
  try {
    fs.linkSync(own, path);
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    // Some file systems have no links. A copy is exclusive too, but is seen empty for a moment, as if it were torn.
    try {
      fs.copyFileSync(own, path, fs.constants.COPYFILE_EXCL);
    } catch (copyError) {
      if (systemCode(copyError) === 'EEXIST') return false;
      throw copyError;
    }
  }
  return true;
}

/**
 * Takes the lock at `path` and gives a function that lets it go. Of several processes that try at the same time, one
 * gets it, also where a process that is gone has left it.
 * @param what is locked, as the message names it
 * @throws RetortError bad-input where another process has it
 */
export function takeLock(path: string, what: string): () => void {
  const own = `${path}.${process.pid}-${randomBytes(4).toString('hex')}`;
  fs.writeFileSync(own, JSON.stringify({ pid: process.pid, start: startOf(process.pid) }));
  const refused = (holder: number | 'gone' | 'none') => {
    const who = typeof holder === 'number' ? `process ${holder}` : 'another process';
    return new RetortError('bad-input', `${what} is being written by ${who}; wait for it or stop it first`);
  };
  try {
    if (!place(own, path)) {
      const holder = holderOf(path);
      if (typeof holder === 'number') throw refused(holder);
      // Only who holds the lock for that may replace one, so that it is still the one that was looked at. A process may
      // have left that lock behind as well.
      const done = takeLock(`${path}.stale`, what);
      try {
        const now = holderOf(path);
        if (now === 'gone') fs.renameSync(own, path);
        else if (now !== 'none' || !place(own, path)) throw refused(holderOf(path));
      } finally {
        done();
      }
    }
  } finally {
    fs.rmSync(own, { force: true });
  }
  return () => fs.rmSync(path, { force: true });
}
