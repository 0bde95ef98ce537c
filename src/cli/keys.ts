// retort keys: the keys of a server: made, listed, removed.
import { Argument, type Command } from 'commander';
import { refuse } from '../errors.js';
import { addKey, readKeys, removeKey } from '../serve/keys.js';
import { kebab } from '../train/option-flags.js';
import { number, repeatable } from './flags.js';
import { SERVE_FOLDER } from './serve.js';
import { type CommonOptions, printResult, say, table } from './terminal.js';

interface KeysFlags extends CommonOptions {
  readonly folder: string;
  readonly requestsPerMinute?: number;
  readonly tokensPerMinute?: number;
  readonly budget?: number;
  readonly model?: string[];
}

export function addKeys(program: Command): void {
  const command = program
    .command('keys')
    .description('API keys of a server; a running one heeds a change within a second')
    .addArgument(
      new Argument('<action>', 'add shows the new key once; it is kept as a hash').choices([
        'add',
        'list',
        'remove',
      ]),
    )
    .argument('[name]', 'name of the key')
    .option('--folder <dir>', "the server's folder", SERVE_FOLDER)
    .option('--requests-per-minute <n>', 'most requests a minute', number(0.001, 1e9))
    .option('--tokens-per-minute <n>', 'most tokens a minute, of prompts and answers', number(1, 1e12))
    .option(
      '--budget <amount>',
      "most that its requests may cost in all, at the server's prices",
      number(0, 1e12),
    )
    .action((action: string, name: string | undefined, o: KeysFlags) => {
      if (action !== 'add') refuseLimits(action, o);
      if (action === 'list') {
        if (name !== undefined)
          throw refuse('bad-input', 'name of the key', name, 'list shows all: leave it out');
        return list(o);
      }
      if (!name) throw refuse('bad-input', 'name of the key', name, `say which: retort keys ${action} NAME`);
      return action === 'add' ? add(name, o) : remove(name, o);
    });
  repeatable(command, '--model <name>', 'a model that it may use; default: all');
}

/** @throws RetortError bad-input for a limit that would have no effect */
function refuseLimits(
  action: string,
  { requestsPerMinute, tokensPerMinute, budget, model }: KeysFlags,
): void {
  const limits = { requestsPerMinute, tokensPerMinute, budget, model };
  for (const [name, value] of Object.entries(limits))
    if (value !== undefined)
      throw refuse(
        'bad-input',
        `--${kebab(name)}`,
        value,
        `retort keys ${action} sets no limits: leave it out`,
      );
}

function add(name: string, o: KeysFlags): void {
  const { requestsPerMinute, tokensPerMinute, budget, model: models } = o;
  const key = addKey(o.folder, name, { requestsPerMinute, tokensPerMinute, budget, models });
  say(`key ${name}: keep it, it is not shown again`);
  printResult(o, { name, key }, () => key);
}

function list(o: KeysFlags): void {
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
}

function remove(name: string, o: KeysFlags): void {
  const { id } = removeKey(o.folder, name);
  printResult(o, { name, id }, () => `removed ${name}`);
}
