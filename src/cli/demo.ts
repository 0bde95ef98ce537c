// retort demo: the main job on the model that ships, measured before and after.
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import type { Evaluation } from '../train/evaluate.js';
import type { GrpoInput, GrpoSummary } from '../train/grpo.js';
import { packageFolder } from '../version.js';
import { addSeed, addThreads, whole } from './flags.js';
import { runGrpo } from './grpo.js';
import {
  type CommonOptions,
  duration,
  percent,
  percentWithInterval,
  printResult,
  say,
  table,
} from './terminal.js';

/** What the demo runs; `runs/demo.sh` measures exactly this. */
const SETTINGS = {
  task: 'countdown',
  steps: 30,
  batchSize: 512,
  numGenerations: 8,
  minibatches: 2,
  learningRate: 1.5e-4,
  epsilonHigh: 0.28,
  maxCompletionLength: 140,
  evalProblems: 500,
} as const;

/** Countdown with three numbers has few held-out problems of each kind; the first two are shown. */
const SHOWN = 2;

interface DemoFlags extends CommonOptions {
  readonly seed: number;
  readonly threads?: number;
  readonly steps: number;
  readonly out?: string;
}

export function addDemo(program: Command): void {
  const command = program
    .command('demo')
    .description('teach the model that ships to search better for countdown, and measure it')
    .option('--steps <n>', 'steps of GRPO', whole(1), SETTINGS.steps)
    .option('--out <dir>', 'folder of the run; default: a new one below .runs')
    .action(demo);
  addSeed(command, 'problems and sampling');
  addThreads(command);
}

async function demo(o: DemoFlags): Promise<void> {
  const model = fileURLToPath(new URL('models/countdown-base', packageFolder));
  const out = o.out ?? `.runs/demo-${new Date().toISOString().replace(/[:.]/g, '-')}`;
  say('Countdown: make the target from the numbers, each used once. The model that ships searches clumsily;');
  say(`${o.steps} steps of GRPO reward right answers, and held-out problems show what it learned.`);
  const measured = new Map<string, Evaluation>();
  const input: GrpoInput = { ...SETTINGS, model, out, steps: o.steps, seed: o.seed, threads: o.threads };
  const summary = await runGrpo(input, (when, name, e) => measured.set(`${when} ${name}`, e));
  const search = {
    before: searchOf(measured.get('before sampled')),
    after: searchOf(measured.get('after sampled')),
  };
  printResult(o, { ...summary, search }, () => report(summary, measured, out));
}

/** What the searches held, and what chance would have found with as many tries. */
function searchOf(e: Evaluation | undefined): Record<string, number> | null {
  if (!e) return null;
  const { tries, rightTries, repeatedTries, randomSearch } = e.measures;
  return {
    accuracy: e.pass1.value,
    triesPerProblem: tries,
    rightArithmetic: rightTries / tries,
    repeatedTries: repeatedTries / tries,
    randomSearch,
    meanLength: e.meanLength,
  };
}

function report(summary: GrpoSummary, measured: ReadonlyMap<string, Evaluation>, out: string): string {
  const rows = (['before', 'after'] as const).flatMap((when) => {
    const greedy = measured.get(`${when} greedy`);
    const sampled = measured.get(`${when} sampled`);
    const search = searchOf(sampled);
    if (!greedy || !sampled || !search) return [];
    return [
      [
        when,
        percentWithInterval(greedy.pass1.value, greedy.pass1.interval),
        percentWithInterval(sampled.pass1.value, sampled.pass1.interval),
        search.triesPerProblem.toFixed(2),
        percent(search.rightArithmetic),
        percent(search.repeatedTries),
        percent(search.randomSearch),
      ],
    ];
  });
  const header = ['held out', 'greedy', 'sampled', 'tries', 'right arithmetic', 'repeats', 'random search'];
  const shown = Array.from({ length: SHOWN }, (_, i) =>
    (['before', 'after'] as const).flatMap((when) => {
      const e = measured.get(`${when} sampled`)?.completions[i]?.[0];
      return e ? [`${when.padEnd(6)}  ${e.prompt} ${e.completion.text}  (reward ${e.scored.reward})`] : [];
    }),
  );
  return [
    ...shown.flatMap((lines) => [...lines, '']),
    table([header, ...rows]),
    '(95% intervals; random search: the chance to hit with as many random tries)',
    '',
    `${summary.steps} steps, ${summary.tokens} tokens generated, ${duration(summary.seconds)}`,
    `run: ${out}`,
    `try next: retort eval --model ${out}/checkpoints/step-${summary.steps} --task countdown --samples 8`,
    '          retort task countdown      retort grpo --help',
  ].join('\n');
}
