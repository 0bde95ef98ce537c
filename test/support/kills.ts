// Kills runs at random moments and resumes them: shared by the test and by runs/kill-resume.mjs.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { lastJson, type Ran, retort } from './cli.js';

/** What a finished run left: hashes of weights and of the state of optimizers and parts, and its metrics without the clock's. */
export interface RunEnd {
  /** By file. */
  readonly tensors: Readonly<Record<string, string>>;
  readonly metrics: string;
}

const CLOCK = ['eps', 'step_time', 'time/rollout', 'tokens_per_second'];

export function runEnd(dir: string, steps: number): RunEnd {
  const checkpoint = join(dir, 'checkpoints', `step-${steps}`);
  const hash = (name: string) =>
    createHash('sha256')
      .update(readFileSync(join(checkpoint, name)))
      .digest('hex');
  const files = readdirSync(checkpoint).filter((name) => name.endsWith('.safetensors'));
  assert.ok(files.includes('model.safetensors') && files.includes('optimizer.safetensors'));
  const lines = readFileSync(join(dir, 'metrics.jsonl'), 'utf8').trim().split('\n');
  const rows = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  for (const row of rows) for (const name of CLOCK) delete row[name];
  return {
    tensors: Object.fromEntries(files.map((name) => [name, hash(name)])),
    metrics: createHash('sha256').update(JSON.stringify(rows)).digest('hex'),
  };
}

async function ended(name: string, ran: Ran): Promise<Ran> {
  if (ran.status !== 0) throw new Error(`${name} ended with ${ran.status}: ${ran.stderr}`);
  lastJson(ran);
  return ran;
}

/** Runs to the end and gives the seconds it took from the moment its config.json was there. */
export async function uninterrupted(args: readonly string[], cwd: string, dir: string): Promise<number> {
  let began = 0;
  const ran = retort([...args, '--out', dir, '--json'], {
    cwd,
    onStart: (child) => {
      whenThere(join(cwd, dir, 'config.json'), child).then(() => {
        began = performance.now();
      });
    },
  });
  await ended('run', await ran);
  return (performance.now() - began) / 1000;
}

/**
 * Starts a run, kills it (SIGKILL) `moments[0]` seconds after its config.json is there, resumes it, kills it again
 * after `moments[1]` seconds, and so on, then lets it end. Gives how often it was killed before its end.
 */
export async function killedAt(
  args: readonly string[],
  cwd: string,
  dir: string,
  moments: readonly number[],
): Promise<number> {
  let kills = 0;
  for (const [i, seconds] of moments.entries()) {
    const command = i === 0 ? [...args, '--out', dir, '--json'] : ['resume', dir, '--json'];
    const ran = await retort(command, {
      cwd,
      onStart: (child) => {
        whenThere(join(cwd, dir, 'config.json'), child).then(() => {
          setTimeout(() => child.kill('SIGKILL'), seconds * 1000);
        });
      },
    });
    if (ran.status !== null) {
      await ended('run', ran);
      return kills;
    }
    kills++;
  }
  await ended('resume', await retort(['resume', dir, '--json'], { cwd }));
  return kills;
}

/** Waits until there is a file, or the process ended. */
export async function whenThere(path: string, child: { exitCode: number | null }): Promise<void> {
  while (!existsSync(path) && child.exitCode === null) await new Promise((done) => setTimeout(done, 2));
}
