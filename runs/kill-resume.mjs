// Kills short runs at random moments (SIGKILL), resumes them, and compares weights, optimizer and metrics with those
// of a run that was never interrupted. Usage: node runs/kill-resume.mjs [KILLS]; writes results/kill-resume.txt.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { retort } from '../dist/test/support/cli.js';
import { killedAt, runEnd, uninterrupted } from '../dist/test/support/kills.js';

const wanted = Number(process.argv[2] ?? 20);
const sft =
  'sft --task number-sort --d-model 32 --layers 2 --heads 2 --batch-tokens 512 --save-every 5 --seed 3';
const commands = {
  sft: { args: `${sft} --steps 100`, steps: 100 },
  grpo: {
    args:
      'grpo --model base --task number-sort --batch-size 32 --max-completion-length 48 --save-every 2 --steps 20 ' +
      '--eval-problems 8 --eval-every 3 --beta 0.02 --ref-model-sync-steps 3 --learning-rate 1e-3',
    steps: 20,
  },
};

const cwd = mkdtempSync(join(tmpdir(), 'retort-kills-'));
const lines = [];
const print = (line) => {
  lines.push(line);
  console.log(line);
};
let different = 0;
try {
  await retort([...sft.split(' '), '--steps', '5', '--save', 'base'], { cwd });
  for (const [name, { args, steps }] of Object.entries(commands)) {
    const words = args.split(' ');
    const seconds = await uninterrupted(words, cwd, `${name}-whole`);
    const whole = runEnd(join(cwd, `${name}-whole`), steps);
    print(`retort ${args}`);
    print(`never interrupted: ${seconds.toFixed(2)} s, weights ${whole.tensors['model.safetensors']}`);
    for (let kills = 0, run = 0; kills < wanted; run++) {
      const moments = [Math.random() * seconds, 0.3 + Math.random() * seconds];
      const dir = `${name}-${run}`;
      const hit = await killedAt(words, cwd, dir, moments);
      const end = runEnd(join(cwd, dir), steps);
      const same = JSON.stringify(end) === JSON.stringify(whole);
      if (!same) different++;
      kills += hit;
      const when = moments.slice(0, hit).map((s) => `${s.toFixed(3)} s`);
      print(
        `killed after ${when.join(' and ') || '(ended before)'}: weights ${end.tensors['model.safetensors']} ${same ? 'same' : 'DIFFERENT'}`,
      );
      rmSync(join(cwd, dir), { recursive: true });
    }
  }
  print(
    different === 0
      ? 'every run ended in the same weights, optimizer state and metrics'
      : `${different} runs differ`,
  );
} finally {
  rmSync(cwd, { recursive: true, force: true });
}
mkdirSync('results', { recursive: true });
writeFileSync('results/kill-resume.txt', `${lines.join('\n')}\n`);
process.exitCode = different === 0 ? 0 : 1;
