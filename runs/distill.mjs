// A small student of a large teacher: RL alone, distilled, distilled then RL, at equal compute of the student's side; and
// answers against logits against on-policy distillation at the same. Writes results/distill.
// Usage: node runs/distill.mjs [SEED,SEED,...]      (default 0,1,2)
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { madeWith, readJson, retort, writeJson } from './retort.mjs';
import { mean, percent, points } from './statistics.mjs';

const seeds = (process.argv[2] ?? '0,1,2').split(',').map(Number);
const RUNS = '.runs/distill';
const RESULTS = 'results/distill';
mkdirSync(RUNS, { recursive: true });
mkdirSync(RESULTS, { recursive: true });

const said = [];
/** Runs a verb in a folder of its own, once: a run that is there already is not made again. */
function once(name, args) {
  const out = `${RUNS}/${name}`;
  const line = `retort ${args.join(' ')}`;
  if (!said.some((s) => s.startsWith(line.replace(/--seed \d+/, '')))) said.push(line);
  const done = `${out}/summary.json`;
  if (existsSync(done)) return { ...readJson(done), out };
  rmSync(out, { recursive: true, force: true });
  const began = performance.now();
  const result = retort([...args, '--out', out]);
  console.error(`${name}: ${((performance.now() - began) / 1000).toFixed(0)} s`);
  return { ...result, out };
}
const last = ({ out, steps }) => `${out}/checkpoints/step-${steps}`;
const spent = ({ operations }) => operations.trained + operations.generated;

const COUNTDOWN = ['--task', 'countdown', '--max-completion-length', '170'];
const MEASURED = ['--eval-problems', '1000'];
const grpo = (model, rate, more) => [
  ...['grpo', '--model', model, ...COUNTDOWN, '--batch-size', '512', '--num-generations', '8'],
  ...['--minibatches', '2', '--epsilon-high', '0.28', '--learning-rate', rate, ...MEASURED, ...more],
];

const teacher = once('teacher', grpo('models/countdown-base', '1.5e-4', ['--steps', '60', '--seed', '0']));
const base = once('student-base', [
  ...['sft', '--task', 'countdown', '--d-model', '64', '--hidden', '160', '--steps', '1000'],
  ...['--warmup-steps', '100', '--learning-rate', '3e-3', '--seed', '0'],
]);

/** As pilots with one seed chose them: after distillation a higher rate undoes what was learned. */
const RL_RATE = '3e-4';
const THEN_RL_RATE = '1e-4';
const METHODS = {
  responses: ['--learning-rate', '1e-3'],
  logits: ['--method', 'logits', '--learning-rate', '1e-3'],
  'on-policy': ['--method', 'on-policy', '--lmbda', '0.5', '--learning-rate', '1e-3'],
};
const distill = (method, steps, seed) => [
  ...['distill', '--teacher', last(teacher), '--model', last(base), ...COUNTDOWN, '--problems', '4000'],
  ...[...METHODS[method], ...MEASURED, '--steps', `${steps}`, '--seed', `${seed}`],
];

/** Steps that spend so much, from what some first ones spend. */
const REHEARSED = 30;
const perStep = {};
for (const method of Object.keys(METHODS)) {
  const short = once(`rehearsal-${method}`, [
    ...distill(method, REHEARSED, seeds[0]).map((word) => (word === '1000' ? '0' : word)),
  ]);
  perStep[method] = spent(short) / REHEARSED;
}
const stepsFor = (method, operations) => Math.max(1, Math.round(operations / perStep[method]));

const RL_STEPS = 60;
const thenRl = (distilled, steps, seed) =>
  grpo(last(distilled), THEN_RL_RATE, ['--steps', `${steps}`, '--seed', `${seed}`]);
let rlPerStep = null;
const rows = [];
const row = (seed, arm, parts) => {
  const { before, after } = { before: parts[0].before, after: parts.at(-1).after };
  rows.push({
    seed,
    arm,
    before,
    after,
    trained: parts.reduce((n, p) => n + p.operations.trained, 0),
    generated: parts.reduce((n, p) => n + p.operations.generated, 0),
    teacher: parts.reduce((n, p) => n + (p.teacherOperations ?? 0), 0),
    seconds: parts.reduce((n, p) => n + p.seconds, 0),
  });
  write();
};
for (const seed of seeds) {
  const rl = once(`rl-${seed}`, grpo(last(base), RL_RATE, ['--steps', `${RL_STEPS}`, '--seed', `${seed}`]));
  row(seed, 'base', [
    { before: rl.before, after: rl.before, operations: { trained: 0, generated: 0 }, seconds: 0 },
  ]);
  row(seed, 'RL alone', [rl]);
  const budget = spent(rl);
  for (const method of Object.keys(METHODS))
    row(seed, `distilled, ${method}`, [
      once(`${method}-${seed}`, distill(method, stepsFor(method, budget), seed)),
    ]);
  // Half of it on answers, the rest on RL. What a step costs depends on how long its completions get: a first run tells.
  const half = once(`half-${seed}`, distill('responses', stepsFor('responses', budget / 2), seed));
  const left = budget - spent(half);
  rlPerStep ??= spent(once('rehearsal-then-rl', thenRl(half, RL_STEPS / 3, seed))) / (RL_STEPS / 3);
  const then = once(`then-rl-${seed}`, thenRl(half, Math.max(1, Math.round(left / rlPerStep)), seed));
  row(seed, 'half distilled (responses), then RL', [half, then]);
  const whole = once(`responses-${seed}`, distill('responses', stepsFor('responses', budget), seed));
  const beyond = once(`beyond-${seed}`, thenRl(whole, RL_STEPS / 2, seed));
  row(seed, 'beyond equal compute: distilled (responses), then RL', [whole, beyond]);
}

function write() {
  const spread = (values) => (values.length < 2 ? '' : ` (${values.map(points).join(', ')})`);
  const arms = [...new Set(rows.map((r) => r.arm))];
  const ops = (n) => n.toExponential(2).replace('+', '');
  const lines = [
    ...said,
    `seeds ${seeds.join(', ')}; ${madeWith(base.out)}`,
    `teacher: held-out greedy ${percent(teacher.after.greedy)}, sampled ${percent(teacher.after.sampled)}`,
    `student's base: ${ops(spent(base))} operations, the same for all rows and in none of them`,
    '',
    'held-out accuracy in percent, mean (of each seed); operations of the student, and of the teacher apart, mean',
    '',
    ['arm', 'greedy', 'sampled', 'student', 'of it generated', 'teacher', 'seconds'].join(' | '),
    ...arms.map((arm) => {
      const of = rows.filter((r) => r.arm === arm);
      const accuracy = (name) =>
        `${points(mean(of.map((r) => r.after[name])))}${spread(of.map((r) => r.after[name]))}`;
      const total = (f) => ops(mean(of.map(f)));
      return [
        arm,
        accuracy('greedy'),
        accuracy('sampled'),
        total((r) => r.trained + r.generated),
        total((r) => r.generated),
        total((r) => r.teacher),
        mean(of.map((r) => r.seconds)).toFixed(0),
      ].join(' | ');
    }),
  ];
  writeFileSync(`${RESULTS}/summary.txt`, `${lines.join('\n')}\n`);
  writeJson(`${RESULTS}/results.json`, rows);
}
console.log(readFileSync(`${RESULTS}/summary.txt`, 'utf8'));
