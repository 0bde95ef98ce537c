// retort keys: the keys of a server: made, listed, removed.
import type { Command } from 'commander';
import { addKey, readKeys, removeKey } from '../serve/keys.js';
import { number, repeatable } from './flags.js';
import { SERVE_FOLDER } from './serve.js';
import { type CommonOptions, printResult, say, table } from './terminal.js';

interface KeysFlags extends CommonOptions {
  readonly folder: string;
}

interface AddFlags extends KeysFlags {
  readonly requestsPerMinute?: number;
  readonly tokensPerMinute?: number;
  readonly budget?: number;
  readonly model?: string[];
}

export function addKeys(program: Command): void {
  const keys = program.command('keys').description('API keys of a server: add, list, remove');
  const folder = (command: Command) => command.option('--folder <dir>', "the server's folder", SERVE_FOLDER);
  const add = folder(keys.command('add <name>'))
    .description('make a key; it is shown once, and kept as a hash')
    .option('--requests-per-minute <n>', 'most requests a minute', number(0.001, 1e9))
    .option('--tokens-per-minute <n>', 'most tokens a minute, of prompts and answers', number(1, 1e12))
    .option(
      '--budget <amount>',
      "most that its requests may cost in all, at the server's prices",
      number(0, 1e12),
    )
    .action((name: string, o: AddFlags) => {
      const { requestsPerMinute, tokensPerMinute, budget, model: models } = o;
      const key = addKey(o.folder, name, { requestsPerMinute, tokensPerMinute, budget, models });
      say(`key ${name}: keep it, it is not shown again`);
      printResult(o, { name, key }, () => key);
    });
  repeatable(add, '--model <name>', 'a model that it may use; default: all');
  folder(keys.command('list'))
    .description('the keys and their limits')
    .action((o: KeysFlags) => {
      const all = readKeys(o.folder).map(({ hash, ...shown }) => shown);
      printResult(o, { keys: all }, () =>
        table([
          ['name', 'key', 'requests/min', 'tokens/min', 'budget', 'models', 'made'],
          ...all.map((k) => [
            ...[
              k.name,
              k.hint,
              `${k.requestsPerMinute ?? '-'}`,
              `${k.tokensPerMinute ?? '-'}`,
              `${k.budget ?? '-'}`,
            ],
            ...[k.models?.join(' ') ?? 'all', k.created.slice(0, 10)],
          ]),
        ]),
      );
    });
  folder(keys.command('remove <name>'))
    .description('take a key back; a running server stops taking it within a second')
    .action((name: string, o: KeysFlags) => {
      const { id } = removeKey(o.folder, name);
      printResult(o, { name, id }, () => `removed ${name}`);
    });
}
