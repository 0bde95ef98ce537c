// The table of R1's stages over seeds, from results/r1: held-out accuracy of each task after each stage.
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { interval, mean } from './statistics.mjs';

const FOLDER = 'results/r1';
const percent = (x) => (100 * x).toFixed(1);
const cell = (values) => {
  const [low, high] = interval(values);
  return `${percent(mean(values))} (${percent(low)} to ${percent(high)})`;
};

/** One table: stages down, tasks across. */
function table(runs, of) {
  const [first] = runs;
  const stages = first.stages.filter(({ model }) => model !== null).map(({ name }) => name);
  const tasks = Object.keys(first.stages[0].accuracies);
  const rows = stages.map((name) => {
    const accuracies = runs.map(({ stages }) => stages.find((stage) => stage.name === name).accuracies);
    return [
      name,
      ...tasks.map((task) => cell(accuracies.map((a) => of(a[task])))),
      cell(accuracies.map((a) => mean(tasks.map((task) => of(a[task]))))),
    ];
  });
  const all = [['held-out %', ...tasks, 'mean'], ...rows];
  const widths = all[0].map((_, i) => Math.max(...all.map((row) => row[i].length)));
  return all
    .map((row) =>
      row
        .map((text, i) => text.padEnd(widths[i]))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();
console.log(
  `runs/r1.sh; commit ${commit}; node ${process.version}; ${availableParallelism()} x ${cpus()[0].model.trim()}`,
);
console.log(
  'mean over seeds and its 95% interval over seeds (Student); 500 held-out problems of each task\n',
);
for (const [arm, title] of [
  ['zero', 'R1-Zero'],
  ['r1', 'four stages'],
]) {
  const files = readdirSync(FOLDER).filter((name) => name.startsWith(`${arm}-`) && name.endsWith('.json'));
  const runs = files.sort().map((name) => JSON.parse(readFileSync(`${FOLDER}/${name}`, 'utf8')));
  console.log(`${title}, one completion sampled at temperature 1, ${runs.length} seeds`);
  console.log(`${table(runs, ({ value }) => value)}\n`);
  console.log(`${title}, greedy`);
  console.log(`${table(runs, ({ greedy }) => greedy)}\n`);
  for (const [i, { name }] of runs[0].stages.entries()) {
    const at = runs.map(({ stages }) => stages[i]);
    const [tokens, trained, seconds] = ['tokens', 'trainedTokens', 'seconds'].map((key) =>
      mean(at.map((s) => s[key])),
    );
    if (i > 0)
      console.log(
        `${name}: ${Math.round(tokens)} tokens generated, ${Math.round(trained)} trained on, ${seconds.toFixed(0)} s`,
      );
  }
  console.log();
}
