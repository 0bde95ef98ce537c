// retort resume: goes on with an interrupted run.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { refuse } from '../errors.js';
import type { GrpoInput } from '../train/grpo.js';
import { runConfig } from '../train/recorder.js';
import type { SupervisedInput } from '../train/supervised.js';
import { addThreads } from './flags.js';
import { grpoResult, grpoText, runGrpo } from './grpo.js';
import { runSupervised } from './supervised.js';
import { type CommonOptions, printResult, say } from './terminal.js';

export function addResume(program: Command): void {
  const command = program
    .command('resume')
    .description('go on with a run that was interrupted; it ends as if it had never stopped')
    .argument('<run>', 'folder of the run')
    .action(async (dir: string, o: CommonOptions & { threads?: number }) => {
      const { command, options } = runConfig(dir);
      const done = join(dir, 'summary.json');
      if (existsSync(done)) {
        say(`the run ${dir} is complete`);
        const summary = JSON.parse(readFileSync(done, 'utf8')) as unknown;
        printResult(o, summary, () => JSON.stringify(summary, null, 2));
        return;
      }
      const input = { ...options, ...(o.threads ? { threads: o.threads } : {}), resume: dir };
      if (command === 'grpo') {
        const summary = await runGrpo(input as unknown as GrpoInput);
        printResult(o, grpoResult(summary), () => grpoText(summary));
      } else if (command === 'sft' || command === 'pretrain') {
        await runSupervised(command, input as SupervisedInput, o);
      } else {
        throw refuse(
          'bad-input',
          `command of the run ${dir}`,
          command,
          'this version resumes grpo, sft and pretrain',
        );
      }
    });
  addThreads(command);
}
