// Runs one command of the CLI for several seeds and writes what came out: a table, the curves, and where it was run.
// Usage: node runs/seeds.mjs NAME SEED,SEED,... VERB [option ...]      (--seed and --out are added)
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { madeWith, retort, writeJson } from './retort.mjs';
import { mean, meanPoints, percent, range } from './statistics.mjs';

const [name, seedList, ...args] = process.argv.slice(2);
const seeds = seedList.split(',').map(Number);
const folder = `results/${name}`;
mkdirSync(folder, { recursive: true });
const rows = [];
for (const seed of seeds) {
  const out = `.runs/${name}-${seed}`;
  rmSync(out, { recursive: true, force: true });
  const began = performance.now();
  const result = retort([...args, '--seed', `${seed}`, '--out', out]);
  rows.push({ seed, wallSeconds: (performance.now() - began) / 1000, ...result });
  copyFileSync(`${out}/metrics.jsonl`, `${folder}/seed-${seed}.jsonl`);
}

const lines = [
  `retort ${args.join(' ')}`,
  `seeds ${seeds.join(', ')}; ${madeWith(`.runs/${name}-${seeds[0]}`)}`,
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
// The interval is over seeds, that of a row over problems.
lines.push(
  '',
  `sampled accuracy: ${percent(mean(rows.map((r) => r.before.sampled)))} -> ${percent(mean(rows.map((r) => r.after.sampled)))}, gain ${meanPoints(gains)}`,
);
lines.push(
  `greedy accuracy:  ${percent(mean(rows.map((r) => r.before.greedy)))} -> ${percent(mean(rows.map((r) => r.after.greedy)))}`,
);
writeFileSync(`${folder}/summary.txt`, `${lines.join('\n')}\n`);
writeJson(`${folder}/results.json`, rows);
console.log(lines.join('\n'));
