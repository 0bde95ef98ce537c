// retort resume: goes on with an interrupted run.
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { refuse } from '../errors.js';
import type { GrpoInput } from '../train/grpo.js';
import type { PpoInput } from '../train/ppo.js';
import { runConfig } from '../train/recorder.js';
import type { SampleInput, SampleSummary } from '../train/sample.js';
import type { SupervisedInput, SupervisedSummary } from '../train/supervised.js';
import type { SupervisedCommand } from '../train/supervised-options.js';
import { addThreads } from './flags.js';
import { runGrpo } from './grpo.js';
import { runPpo } from './ppo.js';
import { type RolloutSummary, rolloutText } from './rollout-text.js';
import { runSample, sampleText } from './sample.js';
import { runSupervised, supervisedText } from './supervised.js';
import { type CommonOptions, printResult, say } from './terminal.js';

/** Goes on with a run of a loop with rollouts, by its verb. */
const ROLLOUTS: Readonly<Record<string, (input: unknown) => Promise<RolloutSummary>>> = {
  grpo: (input) => runGrpo(input as GrpoInput),
  ppo: (input) => runPpo(input as PpoInput),
};

export function addResume(program: Command): void {
  const command = program
    .command('resume')
    .description('go on with a run that was interrupted; it ends as if it had never stopped')
    .argument('<run>', 'folder of the run')
    .action(async (named: string, o: CommonOptions & { threads?: number }) => {
      const { command, options, cwd } = runConfig(named);
      const dir = inFolder(cwd, named);
      const done = join(dir, 'summary.json');
      if (existsSync(done)) {
        say(`the run ${dir} is complete`);
        const summary = JSON.parse(readFileSync(done, 'utf8')) as unknown;
        printResult(o, summary, () => textOf(command, summary));
        return;
      }
      const input = { ...options, ...(o.threads ? { threads: o.threads } : {}), resume: dir };
      if (command in ROLLOUTS) {
        const summary = await ROLLOUTS[command](input);
        printResult(o, { ...summary }, () => rolloutText(summary));
      } else if (command === 'sft' || command === 'pretrain') {
        await runSupervised(command, input as SupervisedInput, o);
      } else if (command === 'sample') {
        await runSample(input as unknown as SampleInput, o);
      } else {
        throw refuse(
          'bad-input',
          `command of the run ${dir}`,
          command,
          'this version resumes grpo, ppo, sft, pretrain and sample',
        );
      }
    });
  addThreads(command);
}

function textOf(command: string, summary: unknown): string {
  if (command in ROLLOUTS) return rolloutText(summary as RolloutSummary);
  if (command === 'sample') return sampleText(summary as SampleSummary);
  return supervisedText(command as SupervisedCommand, summary as SupervisedSummary);
}

/** Goes to the folder in which a run began, where that is another one, and gives the path of the run from there. */
function inFolder(cwd: string, run: string): string {
  // A run that was moved to another machine is resumed from the folder that the user chose.
  if (cwd === process.cwd() || !existsSync(cwd)) return run;
  const path = resolve(run);
  process.chdir(cwd);
  say(`the run began in ${cwd}: relative paths of its options start there`);
  return path;
}
