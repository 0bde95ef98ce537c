// Retort and PyTorch on the same machine in the same run: matrix products, training, decoding, and their ratios.
// Usage: node bench/pytorch.mjs [FOLDER]     FOLDER holds bench_matmul.py and bench_llama.py (default ../shared/bench/pytorch)
// PYTHON names the interpreter that has torch (default /usr/bin/python3). Writes results/bench/pytorch.txt.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';

const folder = process.argv[2] ?? '../shared/bench/pytorch';
const python = process.env.PYTHON ?? '/usr/bin/python3';
const threads = availableParallelism();

function run(command, args, cwd) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (status === 0) return stdout;
  console.error(
    `${command} ${args.join(' ')} failed: ${(error?.message ?? stderr).trim().split('\n').at(-1)}`,
  );
  process.exit(1);
}

if (!existsSync(`${folder}/bench_llama.py`)) {
  console.error(`no bench_llama.py in ${folder}; name the folder of the PyTorch scripts`);
  process.exit(2);
}
const version = run(python, ['-c', 'import torch; print(torch.__version__)']).trim();

const retort = (what, runs, dtype = 'float32') =>
  JSON.parse(
    run('node', ['dist/src/cli/main.js', 'bench', what, '--runs', `${runs}`, '--dtype', dtype, '--json'])
      .trim()
      .split('\n')
      .at(-1),
  );
const products = (text) =>
  [...text.matchAll(/threads=(\d+) (\d+)x(\d+)x(\d+): ([\d.]+) GFLOP/g)].map(
    ([, count, m, k, n, gflops]) => ({
      key: `matmul ${m} x ${k} x ${n}, ${count} threads`,
      value: Number(gflops),
    }),
  );

/** PyTorch's numbers are float32; ours the same, or matrices, keys and values kept as bfloat16. */
const decodeKey = (d, dtype) => `decode d ${d}${dtype === 'float32' ? '' : `, kept as ${dtype}`}`;

/** Rounds of each, one after the other, so that both meet the same machine; the median counts. */
const ROUNDS = 5;
const ours = new Map();
const theirs = new Map();
const note = (map, key, value) => map.set(key, [...(map.get(key) ?? []), value]);
for (let round = 1; round <= ROUNDS; round++) {
  console.error(`round ${round} of ${ROUNDS}`);
  for (const count of [1, threads]) {
    const peer = run(python, ['bench_matmul.py', `${count}`], folder);
    for (const { key, value } of products(peer)) note(theirs, key, value);
    for (const { key, value } of products(run('node', ['bench/products.mjs', `${count}`])))
      note(ours, key, value);
  }
  const llama = run(python, ['bench_llama.py', `${threads}`, '128', '256'], folder);
  for (const [, what, d, rate] of llama.matchAll(/(train|decode) +d=(\d+).*?: (\d+) tok\/s median/g))
    if (what === 'train') note(theirs, `train d ${d}`, Number(rate));
    else for (const dtype of ['float32', 'bfloat16']) note(theirs, decodeKey(d, dtype), Number(rate));
  for (const { dModel, tokensPerSecond } of retort('train', 12).results)
    note(ours, `train d ${dModel}`, tokensPerSecond);
  for (const dtype of ['float32', 'bfloat16'])
    for (const { dModel, batch, tokensPerSecond } of retort('decode', 10, dtype).results)
      if (batch === 64) note(ours, decodeKey(dModel, dtype), tokensPerSecond);
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const lines = [
  `node bench/pytorch.mjs: medians of ${ROUNDS} rounds; PyTorch ${version}; ${threads} x ${cpus()[0].model.trim()}; node ${process.version}`,
  '',
  `${'what'.padEnd(40)} ${'retort'.padStart(10)} ${'pytorch'.padStart(10)}  ratio`,
];
for (const [key, values] of theirs) {
  if (!ours.has(key)) continue;
  const [a, b] = [median(ours.get(key)), median(values)];
  lines.push(
    `${key.padEnd(40)} ${a.toFixed(0).padStart(10)} ${b.toFixed(0).padStart(10)}  ${(a / b).toFixed(2)}`,
  );
}
lines.push(
  '',
  'matmul in GFLOP/s, the best of three stretches a round; train (batch 32 x 128) and decode (batch 64) in tokens/s',
);
mkdirSync('results/bench', { recursive: true });
writeFileSync('results/bench/pytorch.txt', `${lines.join('\n')}\n`);
console.log(lines.join('\n'));
