// Voting against the greedy answer on chain-sum: models whose traces add the terms up in any order, and ones that take them
// as given. Each model is made from nothing. Writes results/voting.
// Usage: node runs/voting.mjs [SEED,SEED,...] [FLAG ...]      (default 0,1,2; flags go to sft, for instance --threads 1)
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { machine, retort, software, writeJson } from './retort.mjs';
import { mean, meanPoints, percent, range } from './statistics.mjs';

const [seeds = '0,1,2', ...flags] = process.argv.slice(2);
const SEEDS = seeds.split(',').map(Number);
const folder = 'results/voting';
const task = (order) =>
  ['--task', 'chain-sum'].concat(
    ...[`order=${order}`, 'noise=0', 'minTerms=4', 'maxTerms=6'].map((o) => ['--task-option', o]),
  );
mkdirSync(folder, { recursive: true });

const lines = [`seeds ${SEEDS.join(', ')}; ${software()}; ${machine()}`];
const results = {};
for (const order of ['any', 'given']) {
  const train = ['sft', ...task(order), '--d-model', '96', '--steps', '3000'];
  const measure = ['eval', ...task(order), '--problems', '500'];
  lines.push('', `retort ${train.join(' ')}`, `retort ${measure.join(' ')} [--samples 16]`);
  results[order] = SEEDS.map((seed) => {
    const model = `.runs/voting/${order}-${seed}`;
    if (!existsSync(model))
      retort([...train, '--seed', `${seed}`, '--out', `${model}-run`, '--save', model, ...flags]);
    const greedy = retort([...measure, '--model', model]);
    const votes = retort([...measure, '--model', model, '--samples', '16']);
    lines.push(
      `seed ${seed}  greedy ${percent(greedy.pass1)} ${range(greedy.ci95)}  one sample ${percent(votes.pass1)} ${range(votes.ci95)}  ` +
        [4, 16]
          .map((k) => `maj@${k} ${percent(votes.majAtK[k].value)} ${range(votes.majAtK[k].ci95)}`)
          .join('  '),
    );
    return { seed, greedy, votes };
  });
  const gain = results[order].map(({ greedy, votes }) => votes.majAtK[16].value - greedy.pass1);
  const of = (read) => percent(mean(results[order].map(read)));
  lines.push(
    `mean    greedy ${of((r) => r.greedy.pass1)}  one sample ${of((r) => r.votes.pass1)}  maj@4 ${of((r) => r.votes.majAtK[4].value)}  maj@16 ${of((r) => r.votes.majAtK[16].value)}`,
    `maj@16 above greedy by ${meanPoints(gain)}`,
  );
}
writeFileSync(`${folder}/summary.txt`, `${lines.join('\n')}\n`);
writeJson(`${folder}/results.json`, results);
console.log(lines.join('\n'));
