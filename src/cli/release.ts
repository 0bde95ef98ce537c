// retort release: the folder that one would publish of a run.
import { type Command, Option } from 'commander';
import { exportTypes } from '../publish/export.js';
import { type ReleaseOptions, releaseRun } from '../publish/release.js';
import { type CommonOptions, printResult } from './terminal.js';

interface ReleaseFlags extends CommonOptions {
  readonly out: string;
  readonly name?: string;
  readonly license?: string;
  readonly dataOrigin?: string;
  readonly type: NonNullable<ReleaseOptions['type']>;
}

export function addRelease(program: Command): void {
  program
    .command('release')
    .description(
      "the folder that one would publish of a run: weights, tokenizer, licence, a card from the run's records",
    )
    .argument('<run>', 'folder of a finished run')
    .requiredOption('--out <dir>', 'folder to write')
    .option('--name <name>', 'name of the model; default: that of the folder')
    .option('--license <id>', 'licence, where the model that the run began with states none')
    .option('--data-origin <text>', 'where the data comes from, where Retort did not make it')
    .addOption(new Option('--type <type>', 'how weights are stored').choices(exportTypes.hf).default('F32'))
    .action((run: string, o: ReleaseFlags) => {
      const { out, name, license, dataOrigin, type } = o;
      const { files } = releaseRun({ run, out, name, licence: license, dataOrigin, type });
      printResult(
        o,
        { out, files },
        () => `${out}: ${files.join(', ')}; read README.md before you publish it`,
      );
    });
}
