// retort pull: a model from the Hugging Face hub.
import type { Command } from 'commander';
import { openProgress } from './progress.js';
import { stopSignal } from './stop.js';
import { type CommonOptions, printResult } from './terminal.js';

interface PullFlags extends CommonOptions {
  readonly file?: string;
}

export function addPull(program: Command): void {
  program
    .command('pull')
    .description(
      'a model from the Hugging Face hub (HF_TOKEN, HF_ENDPOINT and HF_HOME are heeded); prints its path',
    )
    .argument('<model>', 'ORG/NAME or ORG/NAME@REVISION')
    .option('--file <name>', 'a GGUF file of the repository instead of its safetensors')
    .action(pull);
}

async function pull(model: string, o: PullFlags): Promise<void> {
  // Loaded here alone: no other verb has a use for it.
  const [{ hubOf }, { pullModel }] = await Promise.all([import('../hub/hub.js'), import('../hub/pull.js')]);
  const progress = openProgress('pull', 'MB');
  const megabytes = (bytes: number) => Math.round(bytes / 1e5) / 10;
  try {
    const pulled = await pullModel({
      hub: hubOf(process.env),
      model,
      file: o.file,
      signal: stopSignal.signal,
      onProgress: (done, total, file) => progress.update(megabytes(done), megabytes(total), file),
    });
    progress.end();
    printResult(o, pulled, () => pulled.path);
  } finally {
    progress.end();
  }
}
