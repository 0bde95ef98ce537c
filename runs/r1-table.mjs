// The table of R1's stages over seeds, from results/r1: held-out accuracy of each task after each stage.
import { readdirSync } from 'node:fs';
import { machine, readJson, software } from './retort.mjs';
import { interval, mean, points } from './statistics.mjs';

const FOLDER = 'results/r1';
const cell = (values) => {
  const [low, high] = interval(values);
  return `${points(mean(values))} (${points(low)} to ${points(high)})`;
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

console.log(`runs/r1.sh; ${software()}; ${machine()}`);
console.log(
  'mean over seeds and its 95% interval over seeds (Student); 500 held-out problems of each task\n',
);
for (const [arm, title] of [
  ['zero', 'R1-Zero'],
  ['r1', 'four stages'],
]) {
  const files = readdirSync(FOLDER).filter((name) => name.startsWith(`${arm}-`) && name.endsWith('.json'));
  const runs = files.sort().map((name) => readJson(`${FOLDER}/${name}`));
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
