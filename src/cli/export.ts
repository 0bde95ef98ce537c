// retort export: a model for other programs, as a Hugging Face folder or a GGUF file.
import fs from 'node:fs';
import { type Command, Option } from 'commander';
import { type ExportOptions, exportModel, exportTypes } from '../publish/export.js';
import { type CommonOptions, drawLive, printResult, say } from './terminal.js';

interface ExportFlags extends CommonOptions {
  readonly model: string;
  readonly out: string;
  readonly format: 'hf' | 'gguf';
  readonly type: string;
  readonly name?: string;
}

export function addExport(program: Command): void {
  const types = [...new Set(Object.values(exportTypes).flat())];
  program
    .command('export')
    .description('a model for other programs: a Hugging Face folder, or a GGUF file for llama.cpp and Ollama')
    .requiredOption('--model <path>', 'folder or GGUF file of the model')
    .requiredOption('--out <path>', 'folder or file to write')
    .addOption(new Option('--format <format>', 'what to write').choices(['hf', 'gguf']).makeOptionMandatory())
    .addOption(
      new Option('--type <type>', 'how matrices are stored; F16 and BF16 lose digits, Q8_0 more')
        .choices(types)
        .default('F32'),
    )
    .option('--name <name>', "name in a GGUF file's metadata; default: that of the model's folder")
    .action(run);
}

function run(o: ExportFlags): void {
  // Not interrupted between tensors: Ctrl-C ends it at once, and nothing is left under the name.
  exportModel({
    ...(o as ExportOptions),
    warn: say,
    onTensor: (name, done, total) => drawLive([`tensor ${done + 1} of ${total}  ${name}`]),
  });
  const bytes = sizeOf(o.out);
  printResult(
    o,
    { out: o.out, format: o.format, type: o.type, bytes },
    () => `${o.out}: ${(bytes / 1e6).toFixed(1)} MB`,
  );
}

function sizeOf(path: string): number {
  const stat = fs.statSync(path);
  if (stat.isFile()) return stat.size;
  return fs.readdirSync(path).reduce((sum, name) => sum + fs.statSync(`${path}/${name}`).size, 0);
}
