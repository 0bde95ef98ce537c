// A GRPO step end to end (rollout, rewards, update) of the shipped countdown model: the best target against WebAssembly.
// Usage: node bench/grpo-step.mjs [STEPS]     Steps of each run, of which the first is left out (default 6).
// Writes results/bench/grpo-step.txt.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';

const ROUNDS = 5;
const steps = Number(process.argv[2] ?? 6);
const flags =
  `grpo --model models/countdown-base --task countdown --steps ${steps} --batch-size 512 --num-generations 8 ` +
  '--minibatches 2 --learning-rate 1.5e-4 --epsilon-high 0.28 --max-completion-length 170 --no-eval-ends';

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const scratch = mkdtempSync(join(tmpdir(), 'grpo-step-'));
const seconds = { best: [], wasm: [] };
try {
  for (let round = 0; round < ROUNDS; round++) {
    for (const target of ['best', 'wasm']) {
      console.error(`round ${round + 1} of ${ROUNDS}: ${target}`);
      const out = join(scratch, `${target}-${round}`);
      const env = { ...process.env };
      if (target === 'wasm') env.RETORT_TARGET = 'wasm';
      execFileSync('node', ['dist/src/cli/main.js', ...flags.split(' '), '--out', out], {
        env,
        stdio: 'ignore',
      });
      const lines = readFileSync(join(out, 'metrics.jsonl'), 'utf8')
        .trim()
        .split('\n')
        .map((l) => JSON.parse(l));
      seconds[target].push(median(lines.slice(1).map((m) => m.step_time)));
    }
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
const [best, wasm] = [median(seconds.best), median(seconds.wasm)];
const text = [
  `node bench/grpo-step.mjs: medians of ${ROUNDS} rounds of ${steps - 1} steps; ${cpus().length} x ${cpus()[0].model.trim()}; node ${process.version}`,
  `retort ${flags}`,
  '',
  `machine code  ${best.toFixed(3)} s a step`,
  `WebAssembly   ${wasm.toFixed(3)} s a step`,
  `ratio         ${(wasm / best).toFixed(2)}`,
].join('\n');
mkdirSync('results/bench', { recursive: true });
writeFileSync('results/bench/grpo-step.txt', `${text}\n`);
console.log(text);
