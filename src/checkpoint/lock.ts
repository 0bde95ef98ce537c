// One process at a time writes to a folder or file: a lock file that names its process, void once that process is gone.
import fs from 'node:fs';
import { RetortError } from '../errors.js';

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

/**
 * Takes the lock at `path` and gives a function that lets it go.
 * @param what is locked, as the message names it
 * @throws RetortError bad-input where another process has it
 */
export function takeLock(path: string, what: string): () => void {
  let held: { pid?: unknown; start?: unknown } = {};
  try {
    held = JSON.parse(fs.readFileSync(path, 'utf8')) as typeof held;
  } catch {
    // No lock, or one torn by a kill: nobody holds it.
  }
  const { pid, start } = held;
  if (typeof pid === 'number' && alive(pid) && (start ?? null) === startOf(pid)) {
    throw new RetortError(
      'bad-input',
      `${what} is being written by process ${pid}; wait for it or stop it first`,
    );
  }
  fs.writeFileSync(path, JSON.stringify({ pid: process.pid, start: startOf(process.pid) }));
  return () => fs.rmSync(path, { force: true });
}
