// What scripts of runs share: the command line as a function, and what their results say of commit and machine.
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';

/** Runs `retort` with these words and gives what it tells as JSON; a failure ends the script with its status. */
export function retort(args) {
  const run = spawnSync(process.execPath, ['dist/src/cli/main.js', ...args, '--json'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
  });
  if (run.status !== 0) process.exit(run.status ?? 1);
  return JSON.parse(run.stdout.trim().split('\n').at(-1));
}

export const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'));
export const writeJson = (path, value) => writeFileSync(path, `${JSON.stringify(value, null, 1)}\n`);

/** What numbers are of: the commit now checked out, and what ran it. */
export function software() {
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();
  return `commit ${commit}; node ${process.version}`;
}

export const machine = () => `${availableParallelism()} x ${cpus()[0].model.trim()}`;

/** Both, for a run in a folder. */
export function madeWith(dir) {
  const { target } = readJson(`${dir}/config.json`).config;
  return `${software()}; target ${target.name} of ${target.lanes} lanes; ${machine()}`;
}
