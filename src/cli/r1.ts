// retort r1: the pipeline of DeepSeek-R1, or R1-Zero, from a configuration file.
import type { Command } from 'commander';
import { z } from 'zod';
import { parseJson, readTextFile } from '../checkpoint/files.js';
import { type R1Input, type R1Step, type R1Summary, r1, type StageResult } from '../train/r1.js';
import { addSeed, addThreads } from './flags.js';
import { GRPO_SHOWN } from './grpo.js';
import { openProgress, type Progress } from './progress.js';
import { openRolloutProgress, type RolloutProgress } from './rollout-progress.js';
import { judgingText, sayFailure } from './rollout-text.js';
import { stopSignal } from './stop.js';
import { type CommonOptions, duration, percentWithInterval, printResult, say, table } from './terminal.js';

interface R1Flags extends CommonOptions {
  readonly config: string;
  readonly zero?: boolean;
  readonly base?: string;
  readonly out?: string;
  readonly seed?: number;
  readonly threads?: number;
}

export function addR1(program: Command): void {
  const command = program
    .command('r1')
    .description(
      "R1's pipeline: cold start, reasoning RL, rejection sampling and SFT, RL on all tasks; a table of every stage",
    )
    .requiredOption(
      '--config <file>',
      'JSON file: base, out, tasks, and what each stage sets; runs/r1.json is one',
    )
    .option('--zero', 'R1-Zero: the base and rewards alone')
    .option('--base <path>', "instead of the configuration's base")
    .option('--out <dir>', "instead of the configuration's folder")
    .action(async (o: R1Flags) => {
      const { config, json: _, debug: __, ...flags } = o as R1Flags & { debug?: boolean };
      const given = parseJson(
        readTextFile(config, 'bad-input', 'name the configuration of the pipeline, a JSON file'),
        config,
        z.looseObject({}),
        'bad-input',
      );
      // Only what was typed: a default of a flag must not win over the file.
      const typed = Object.entries(flags).filter(([name]) => command.getOptionValueSource(name) === 'cli');
      const summary = await runR1({ ...given, ...Object.fromEntries(typed) } as unknown as R1Input);
      printResult(o, summary, () => r1Text(summary));
    });
  addSeed(command, 'problems, weights and sampling');
  addThreads(command);
}

/** Runs the pipeline with the progress of each stage. */
export async function runR1(input: R1Input): Promise<R1Summary> {
  const show = openStages();
  const loop = r1({
    ...input,
    signal: stopSignal.signal,
    warn: say,
    onProgress: show.onProgress,
    onEvaluation: show.onEvaluation,
    onRewardFailure: sayFailure,
  });
  let result: IteratorResult<R1Step, R1Summary> = await loop.next();
  for (; !result.done; result = await loop.next()) show.step(result.value);
  show.end();
  return result.value;
}

/** Progress of whichever loop runs. */
function openStages() {
  let name = '';
  let rl: RolloutProgress | null = null;
  let bar: Progress | null = null;
  const end = () => {
    rl?.end();
    bar?.end();
    rl = null;
    bar = null;
  };
  const enter = (stage: string) => {
    if (stage === name) return;
    end();
    name = stage;
    say(`stage: ${stage}`);
  };
  const barOf = (stage: string, unit: string): Progress => {
    bar ??= openProgress(stage, unit);
    return bar;
  };
  const rlOf = (): RolloutProgress => {
    rl ??= openRolloutProgress(GRPO_SHOWN);
    return rl;
  };
  return {
    end,
    onProgress: ((stage, p) => rlOf().onProgress(stage, p)) as NonNullable<R1Input['onProgress']>,
    onEvaluation: ((...e) => rlOf().onEvaluation(...e)) as NonNullable<R1Input['onEvaluation']>,
    step(event: R1Step) {
      enter(event.stage);
      switch (event.loop) {
        case 'sft': {
          const { step, steps, metrics } = event.step;
          barOf(event.stage, 'steps').update(step, steps, `loss ${metrics.loss.toFixed(3)}`);
          return;
        }
        case 'grpo':
          rlOf().step(event.step);
          return;
        case 'sample': {
          const { step, steps, counts } = event.step;
          barOf(event.stage, 'problems').update(step, steps, `${counts.kept} of ${counts.sampled} kept`);
          return;
        }
        case 'done':
          end();
          for (const [task, a] of Object.entries(event.result.accuracies))
            say(`${event.stage}: ${task} ${percentWithInterval(a.value, a.ci95)} sampled`);
      }
    },
  };
}

export function r1Text({ stages, model, run }: R1Summary): string {
  const measured = stages.filter(({ model }) => model !== null);
  const tasks = Object.keys(measured[0].accuracies);
  const mean = ({ accuracies }: StageResult) =>
    tasks.reduce((sum, task) => sum + accuracies[task].value, 0) / tasks.length;
  const rows = measured.map((stage) => [
    stage.name,
    ...tasks.map((task) => percentWithInterval(stage.accuracies[task].value, stage.accuracies[task].ci95)),
    `${(100 * mean(stage)).toFixed(1)}%`,
  ]);
  const spent = stages.map(
    ({ name, tokens, trainedTokens, seconds }) =>
      `${name}: ${tokens} tokens generated, ${trainedTokens} trained on, ${duration(seconds)}`,
  );
  const judged = stages.flatMap(({ judging }) => (judging ? [judgingText(judging)] : []));
  return [
    table([['held-out, sampled', ...tasks, 'mean'], ...rows]),
    '',
    ...spent.slice(1),
    ...judged,
    `run: ${run}`,
    `model: ${model}`,
  ].join('\n');
}
