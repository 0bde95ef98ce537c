// Runs one command of the CLI for several seeds and writes what came out: a table, the curves, and where it was run.
// Usage: node runs/seeds.mjs NAME SEED,SEED,... VERB [option ...]      (--seed and --out are added)
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { interval, mean } from './statistics.mjs';

const [name, seedList, ...args] = process.argv.slice(2);
const seeds = seedList.split(',').map(Number);
const folder = `results/${name}`;
mkdirSync(folder, { recursive: true });
const rows = [];
for (const seed of seeds) {
  const out = `.runs/${name}-${seed}`;
  rmSync(out, { recursive: true, force: true });
  const began = performance.now();
  const run = spawnSync(
    process.execPath,
    ['dist/src/cli/main.js', ...args, '--seed', `${seed}`, '--out', out, '--json'],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      encoding: 'utf8',
    },
  );
  if (run.status !== 0) process.exit(run.status ?? 1);
  const result = JSON.parse(run.stdout.trim().split('\n').at(-1));
  rows.push({ seed, wallSeconds: (performance.now() - began) / 1000, ...result });
  copyFileSync(`${out}/metrics.jsonl`, `${folder}/seed-${seed}.jsonl`);
}

const { target } = JSON.parse(readFileSync(`.runs/${name}-${seeds[0]}/config.json`, 'utf8')).config;
const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();
const percent = (x) => `${(100 * x).toFixed(1)}%`;
const range = ([low, high]) => `(${(100 * low).toFixed(1)}-${(100 * high).toFixed(1)})`;
const lines = [
  `retort ${args.join(' ')}`,
  `seeds ${seeds.join(', ')}; commit ${commit}; node ${process.version}; target ${target.name} of ${target.lanes} lanes; ${availableParallelism()} x ${cpus()[0].model.trim()}`,
  '',
];
for (const r of rows) {
  for (const when of ['before', 'after']) {
    const a = r[when];
    const s = r.search?.[when];
    lines.push(
      `seed ${r.seed} ${when.padEnd(6)} greedy ${percent(a.greedy)} ${range(a.greedyCi95)}  sampled ${percent(a.sampled)} ${range(a.sampledCi95)}` +
        (s
          ? `  tries ${s.triesPerProblem.toFixed(2)}  right arithmetic ${percent(s.rightArithmetic)}  repeated ${percent(s.repeatedTries)}  random search ${percent(s.randomSearch)}  length ${s.meanLength.toFixed(0)}`
          : ''),
    );
  }
  lines.push(
    `seed ${r.seed} tokens ${r.tokens} generated, ${r.trainedTokens} trained; ${r.seconds.toFixed(0)} s training, ${r.wallSeconds.toFixed(0)} s in all`,
  );
}
const gains = rows.map((r) => r.after.sampled - r.before.sampled);
const m = mean(gains);
// The interval is over seeds, that of a row over problems.
const [low, high] = interval(gains);
const spread = Number.isNaN(low)
  ? ''
  : ` (95% over seeds: ${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)})`;
lines.push(
  '',
  `sampled accuracy: ${percent(mean(rows.map((r) => r.before.sampled)))} -> ${percent(mean(rows.map((r) => r.after.sampled)))}, gain ${(100 * m).toFixed(1)} points${spread}`,
);
lines.push(
  `greedy accuracy:  ${percent(mean(rows.map((r) => r.before.greedy)))} -> ${percent(mean(rows.map((r) => r.after.greedy)))}`,
);
writeFileSync(`${folder}/summary.txt`, `${lines.join('\n')}\n`);
writeFileSync(`${folder}/results.json`, `${JSON.stringify(rows, null, 1)}\n`);
console.log(lines.join('\n'));
