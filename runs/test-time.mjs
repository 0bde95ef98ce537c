// Thinking longer at test time, on the base model that ships: accuracy by thinking budget, and by the least length of a
// thought, greedy, for three draws of held-out problems. Writes results/test-time.
import { mkdirSync, writeFileSync } from 'node:fs';
import { retort, software, writeJson } from './retort.mjs';
import { mean, percent, range } from './statistics.mjs';

const folder = 'results/test-time';
const SEEDS = (process.env.SEEDS ?? '0,1,2').split(',').map(Number);
const PARTS = {
  budget: ['--thinking-budget', '0,4,8,12,16,24,32,48,64,none'],
  // `>` says that a try was too high: the search has to go on.
  least: ['--min-thinking', '0,20,40,60,80', '--wait', '>'],
};
mkdirSync(folder, { recursive: true });
const lines = [`seeds ${SEEDS.join(', ')} of the problems; ${software()}`];
const results = {};
for (const [part, flags] of Object.entries(PARTS)) {
  const base = [
    'eval',
    '--model',
    'models/countdown-base',
    '--task',
    'countdown',
    '--problems',
    '500',
    ...flags,
  ];
  lines.push('', `retort ${base.join(' ')}`);
  results[part] = SEEDS.map((seed) => {
    const plot = `${folder}/${part}-${seed}.svg`;
    return { seed, ...retort([...base, '--seed', `${seed}`, '--plot', plot]) };
  });
  const [first] = results[part];
  first.settings.forEach(({ thinkingBudget, minThinking }, i) => {
    const own = results[part].map(({ settings }) => settings[i]);
    const name = part === 'least' ? `at least ${minThinking}` : `budget ${thinkingBudget ?? 'none'}`;
    const tokens = mean(own.map((s) => s.meanLength))
      .toFixed(1)
      .padStart(6);
    const each = own.map((s) => `${percent(s.pass1)} ${range(s.ci95)}`).join('  ');
    lines.push(
      `${name.padEnd(12)} ${tokens} tokens  right ${percent(mean(own.map((s) => s.pass1)))}   by seed ${each}`,
    );
  });
}
writeFileSync(`${folder}/summary.txt`, `${lines.join('\n')}\n`);
writeJson(`${folder}/results.json`, results);
console.log(lines.join('\n'));
