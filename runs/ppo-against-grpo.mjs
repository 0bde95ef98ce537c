// GRPO against PPO. Usage: node runs/ppo-against-grpo.mjs learn|time|table SEED,SEED,...
//   learn  the runs; their metrics and summaries go to results/ppo-against-grpo
//   time   what a token costs, in short runs that alternate, with the base and with the policy that GRPO made of it
//   table  summary.txt from both
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { madeWith, readJson, retort, writeJson } from './retort.mjs';
import { mean, meanPoints, median, percent } from './statistics.mjs';

const [, , phase, seedList] = process.argv;
const seeds = seedList.split(',').map(Number);
const folder = 'results/ppo-against-grpo';
mkdirSync(folder, { recursive: true });

const STEPS = 30;
const SAME = {
  task: 'countdown',
  steps: STEPS,
  'batch-size': 512,
  'num-generations': 8,
  'learning-rate': 1.5e-4,
  'max-completion-length': 170,
};
/** Two updates in each step for both, the demo's upper clip for both. What else PPO has was found by pilots: LOG.md. */
const LOOPS = {
  grpo: { minibatches: 2, 'epsilon-high': 0.28 },
  ppo: {
    'num-ppo-epochs': 1,
    'num-mini-batches': 2,
    'cliprange-high': 0.28,
    'kl-coef': 0,
    lam: 0.99,
    'critic-learning-rate': 1e-3,
  },
};
const EVALUATED = { 'eval-problems': 500, 'eval-every': 3 };
const BASE = 'models/countdown-base';
const names = Object.keys(LOOPS);

function flags(options) {
  return Object.entries(options).flatMap(([name, value]) =>
    value === true ? [`--${name}`] : [`--${name}`, `${value}`],
  );
}

const readRows = (path) =>
  readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
const runOf = (name, seed) => `.runs/against-${name}-${seed}`;

function learn() {
  const results = [];
  for (const seed of seeds)
    for (const name of names) {
      const out = runOf(name, seed);
      rmSync(out, { recursive: true, force: true });
      const options = { model: BASE, ...SAME, ...LOOPS[name], ...EVALUATED, seed, out };
      results.push({ name, seed, ...retort([name, ...flags(options)]) });
      copyFileSync(`${out}/metrics.jsonl`, `${folder}/${name}-seed-${seed}.jsonl`);
      writeJson(`${folder}/results.json`, { where: madeWith(out), results });
    }
}

/** Seconds of a generated token in whole steps: the median over steps, of runs that alternate. */
function time() {
  const trained = `${runOf('grpo', seeds[0])}/checkpoints/step-${STEPS}`;
  const rows = [];
  for (let round = 0; round < 2; round++)
    for (const [policy, model] of Object.entries({ base: BASE, trained }))
      for (const name of names) {
        const out = `.runs/against-time-${name}`;
        rmSync(out, { recursive: true, force: true });
        const options = { model, ...SAME, ...LOOPS[name], steps: 3, 'save-every': 0, seed: round, out };
        retort([name, ...flags(options), '--no-eval-ends']);
        // The first step compiles.
        for (const m of readRows(`${out}/metrics.jsonl`).slice(1)) {
          const tokens = m['completions/mean_length'] * SAME['batch-size'];
          rows.push({
            name,
            policy,
            tokens,
            seconds: m.step_time,
            rollout: m['time/rollout'],
            speed: m.tokens_per_second,
          });
        }
      }
  writeJson(`${folder}/time.json`, { where: madeWith('.runs/against-time-grpo'), rows });
}

const KINDS = {
  parameters: 'parameters',
  gradients: 'gradients',
  optimizer: 'optimizer',
};
const OTHERS = {
  reference: 'reference model',
  packed: 'packed weights',
  activations: 'activations',
  kvCache: 'KV cache',
  other: 'other',
  total: 'all at once',
};
const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(2)}`;

function grid(rows) {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  return rows.map((row) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('  '),
  );
}

function memoryTable(results, planned) {
  const peak = (name, kind) =>
    Math.max(...results.filter((r) => r.name === name).map((r) => r.memory[kind].peak));
  const { criticMemory } = results.find((r) => r.name === 'ppo');
  const trained = Object.keys(KINDS);
  const sum = (name) => trained.reduce((total, kind) => total + peak(name, kind), 0);
  const critic = trained.reduce((total, kind) => total + criticMemory[kind], 0);
  const row = (text, a, b, c) => [text, mib(a), mib(b), c === null ? '' : mib(c), (a / b).toFixed(3)];
  const rows = [
    ['peak, MiB', 'GRPO', 'PPO', 'of that the critic', 'GRPO / PPO'],
    ...trained.map((kind) => row(KINDS[kind], peak('grpo', kind), peak('ppo', kind), criticMemory[kind])),
    row('these three', sum('grpo'), sum('ppo'), critic),
    ...Object.entries(OTHERS).map(([kind, text]) =>
      kind === 'reference'
        ? [
            `${text} (with a KL term: ${mib(planned.grpo.reference)} each)`,
            mib(peak('grpo', kind)),
            mib(peak('ppo', kind)),
            '',
            '',
          ]
        : row(text, peak('grpo', kind), peak('ppo', kind), null),
    ),
  ];
  return { lines: grid(rows), share: sum('grpo') / sum('ppo') };
}

/** Value at x of a curve of rising x, between its points; of its ends beyond them. */
function at(curve, x) {
  const next = curve.findIndex((p) => p.x >= x);
  if (next < 0) return curve.at(-1).y;
  if (next === 0) return curve[0].y;
  const [a, b] = [curve[next - 1], curve[next]];
  return a.y + ((b.y - a.y) * (x - a.x)) / (b.x - a.x);
}

function table() {
  const { where: made, results } = readJson(`${folder}/results.json`);
  const timing = readJson(`${folder}/time.json`);
  const planned = Object.fromEntries(
    Object.entries({ grpo: { beta: 0.04 }, ppo: { 'kl-coef': 0.05 } }).map(([name, kl]) => {
      const options = { model: BASE, ...SAME, ...LOOPS[name], ...kl };
      return [name, retort(['plan', name, ...flags(options), '--no-measure']).bytes];
    }),
  );
  /** Of a generated token in all that a step does, at base and trained: both, for lengths of both. */
  const cost = Object.fromEntries(
    names.map((name) => {
      const own = timing.rows.filter((r) => r.name === name);
      return [
        name,
        mean(
          ['base', 'trained'].map((p) =>
            median(own.filter((r) => r.policy === p).map((r) => r.seconds / r.tokens)),
          ),
        ),
      ];
    }),
  );
  const curves = {};
  for (const name of names)
    curves[name] = seeds.map((seed) => {
      const rows = readRows(`${folder}/${name}-seed-${seed}.jsonl`);
      const before = results.find((r) => r.name === name && r.seed === seed).before.sampled;
      let tokens = 0;
      const points = [{ step: 0, tokens, reward: rows[0].reward, accuracy: before }];
      for (const row of rows) {
        tokens += row['completions/mean_length'] * SAME['batch-size'];
        if ('eval/pass1' in row)
          points.push({ step: row.step, tokens, reward: row.reward, accuracy: row['eval/pass1'] });
      }
      return points.map((p) => ({ ...p, seconds: p.tokens * cost[name] }));
    });

  const memory = memoryTable(results, planned);
  const lines = [
    ...names.map(
      (name) =>
        `retort ${name} --model ${BASE} ${flags({ ...SAME, ...LOOPS[name], ...EVALUATED }).join(' ')}`,
    ),
    `seeds ${seeds.join(', ')}; ${made}`,
    '',
    ...memory.lines,
    `parameters, gradients and optimizer: GRPO takes ${memory.share.toFixed(3)} of what PPO takes (at most 0.55: ${memory.share <= 0.55})`,
    '',
  ];

  const speed = ['base', 'trained'].flatMap((policy) =>
    names.map((name) => {
      const own = timing.rows.filter((r) => r.name === name && r.policy === policy);
      const of = (f) => median(own.map(f));
      return [
        `${name}, ${policy}`,
        of((r) => r.seconds).toFixed(2),
        of((r) => r.rollout).toFixed(2),
        of((r) => r.tokens / r.seconds).toFixed(0),
        of((r) => r.speed).toFixed(0),
      ];
    }),
  );
  lines.push(
    ...grid([
      [
        'speed, medians',
        's a step',
        'of that rollouts',
        'generated tokens/s',
        'generated and trained tokens/s',
      ],
      ...speed,
    ]),
    `measured apart, in short runs that alternate: ${timing.where}`,
    '',
  );

  lines.push('held-out accuracy sampled at temperature 1 and training reward, means over seeds');
  const header = ['step', ...names.flatMap((n) => [`${n} tokens`, `${n} s`, `${n} reward`, `${n} accuracy`])];
  const rows = curves.grpo[0].map((_, i) => [
    `${curves.grpo[0][i].step}`,
    ...names.flatMap((name) => {
      const of = (key) => mean(curves[name].map((c) => c[i][key]));
      return [
        `${Math.round(of('tokens') / 1000)}k`,
        of('seconds').toFixed(0),
        of('reward').toFixed(3),
        percent(of('accuracy')),
      ];
    }),
  ]);
  lines.push(...grid([header, ...rows]), '');

  for (const seed of seeds)
    lines.push(
      names
        .map((name) => {
          const r = results.find((one) => one.name === name && one.seed === seed);
          return `seed ${seed} ${name}: sampled ${percent(r.before.sampled)} -> ${percent(r.after.sampled)}, greedy ${percent(r.before.greedy)} -> ${percent(r.after.greedy)}`;
        })
        .join('; '),
    );
  const finals = (name, key) =>
    seeds.map((seed) => results.find((r) => r.name === name && r.seed === seed).after[key]);
  const gains = (name) =>
    seeds.map((seed) => {
      const r = results.find((one) => one.name === name && one.seed === seed);
      return r.after.sampled - r.before.sampled;
    });
  lines.push('', ...names.map((name) => `${name}: gain ${meanPoints(gains(name))}`));
  const apart = (key) => finals('grpo', key).map((x, i) => x - finals('ppo', key)[i]);
  lines.push(
    `GRPO less PPO at the end: sampled ${meanPoints(apart('sampled'))}; greedy ${meanPoints(apart('greedy'))}`,
  );
  for (const axis of ['tokens', 'seconds']) {
    const differences = seeds.map((_, i) => {
      const [a, b] = names.map((name) => curves[name][i].map((p) => ({ x: p[axis], y: p.accuracy })));
      const end = Math.min(a.at(-1).x, b.at(-1).x);
      return at(a, end) - at(b, end);
    });
    lines.push(
      `GRPO less PPO at the same ${axis} (where the shorter run ends): sampled ${meanPoints(differences)}`,
    );
  }
  writeFileSync(`${folder}/summary.txt`, `${lines.join('\n')}\n`);
  console.log(lines.join('\n'));
  if (memory.share > 0.55) process.exit(1);
}

({ learn, time, table })[phase]();
