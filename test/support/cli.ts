// Runs the command `retort` as a user would: in a process of its own.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The command's file. */
export const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
/** The checkout. */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
/** The countdown model that ships. */
export const COUNTDOWN_BASE = join(ROOT, 'models/countdown-base');

export interface Ran {
  /** Exit status; null where a signal ended the process. */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface SpawnOptions {
  readonly cwd?: string;
  /** Beside this process's environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** What standard input holds. */
  readonly input?: string;
  /** Called once the process runs, to send it signals for instance. */
  readonly onStart?: (child: ChildProcess) => void;
}

/** Runs `retort ARGS` to its end. */
export function retort(args: readonly string[], options: SpawnOptions = {}): Promise<Ran> {
  return runNode([MAIN, ...args], options);
}

export function runNode(
  args: readonly string[],
  { cwd, env, input, onStart }: SpawnOptions = {},
): Promise<Ran> {
  return new Promise((resolve, reject) => {
    // No colours and no live line: standard error is a pipe.
    const child = spawn(process.execPath, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, stdout, stderr }));
    child.stdin.end(input);
    onStart?.(child);
  });
}

/** The JSON object on the last line of standard output. */
export function lastJson<T = Record<string, unknown>>({ stdout, stderr }: Ran): T {
  const line = stdout.trimEnd().split('\n').at(-1) ?? '';
  try {
    return JSON.parse(line) as T;
  } catch {
    throw new Error(`no JSON in the last line of standard output: ${line.slice(0, 200)}\n${stderr}`);
  }
}

/** A folder that is removed when the test is over. */
export function temporaryFolder(t: { after(fn: () => void): void }): string {
  const dir = mkdtempSync(join(tmpdir(), 'retort-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}
