// retort serve: the HTTP API over one or more models, until Ctrl-C.
import type { Command } from 'commander';
import { RetortError, refuse } from '../errors.js';
import { parseModelSpec } from '../serve/model.js';
import { templateNames } from '../text/template.js';
import { addDtypes, addThreads, type DtypeFlags, modelDtype, number, repeatable, whole } from './flags.js';
import { stopSignal } from './stop.js';
import { type CommonOptions, printResult, say } from './terminal.js';

interface ServeFlags extends CommonOptions, DtypeFlags {
  readonly model: string[];
  readonly host: string;
  readonly port: number;
  readonly folder: string;
  readonly template?: string;
  readonly maxSequences: number;
  readonly context?: number;
  readonly kvCache: number;
  readonly queue: number;
  readonly timeLimit: number;
  readonly watch?: number;
  readonly logPrompts?: string;
  readonly priceInput: number;
  readonly priceCached?: number;
  readonly priceOutput: number;
  readonly threads?: number;
}

/** Where the server's folder is, unless it is said. */
export const SERVE_FOLDER = '.retort';

export function addServe(program: Command): void {
  const command = program
    .command('serve')
    .description("serve models by OpenAI's HTTP protocol, with DeepSeek's reasoning_content")
    .option('--host <host>', 'address to listen on; beyond this machine only with keys', '127.0.0.1')
    .option('--port <n>', 'port to listen on; 0 takes a free one', whole(0, 65535), 8000)
    .option('--folder <dir>', 'folder of the keys and the usage log', SERVE_FOLDER)
    .option(
      '--template <name>',
      `how a conversation becomes a prompt: ${templateNames.join(', ')}; default: the model's chat template`,
    )
    .option('--max-sequences <n>', 'samples that run at once', whole(1, 4096), 256)
    .option('--context <n>', "longest sequence, prompt included; default: the model's context", whole(2))
    .option('--kv-cache <mib>', 'most MiB of keys and values', whole(1), 1024)
    .option('--queue <n>', 'samples that may wait; more get 429', whole(0), 1024)
    .option('--time-limit <seconds>', 'longest time that one request may take', number(0.001, 86_400), 600)
    .option(
      '--watch <seconds>',
      'look so often whether a model has changed, and swap it in; SIGHUP looks at once',
      number(0.1, 86_400),
    )
    .option(
      '--log-prompts <file>',
      'write every request and its answer there; default: prompts are not logged',
    )
    .option('--price-input <price>', 'price of a million tokens of input', number(0, 1e6), 0)
    .option('--price-cached <price>', 'of input that a cache held; default: as other input', number(0, 1e6))
    .option('--price-output <price>', 'of output', number(0, 1e6), 0)
    .action(serve);
  repeatable(
    command,
    '--model <name=dir>',
    'a model folder, a GGUF file or the folder of a run, and the name that requests call it by',
  );
  addDtypes(command);
  addThreads(command);
}

async function serve(o: ServeFlags): Promise<void> {
  if (!o.model) throw refuse('bad-input', '--model', undefined, 'name the folder of a model');
  if (o.template !== undefined && !templateNames.includes(o.template))
    throw refuse('bad-input', '--template', o.template, `known are ${templateNames.join(', ')}`);
  const models = o.model.map(parseModelSpec);
  // Loaded for this verb alone: the others start faster.
  const { startServer } = await import('../serve/server.js');
  const { signal } = stopSignal;
  const server = await startServer({
    ...{ models, host: o.host, port: o.port, folder: o.folder, template: o.template, threads: o.threads },
    ...{
      maxSequences: o.maxSequences,
      maxLength: o.context,
      queue: o.queue,
      maxKvBytes: o.kvCache * 2 ** 20,
      dtype: modelDtype(o),
      kvCacheDtype: o.kvCacheDtype,
      timeLimitSeconds: o.timeLimit,
      logPrompts: o.logPrompts,
    },
    prices: { input: o.priceInput, cachedInput: o.priceCached ?? o.priceInput, output: o.priceOutput },
    say,
  });
  const names = [...server.models.keys()];
  printResult(o, { url: server.url, models: names }, () => `${names.join(', ')}: ${server.url}/v1`);
  const reload = () => void server.reload();
  process.on('SIGHUP', reload);
  const timer = o.watch === undefined ? undefined : setInterval(reload, 1000 * o.watch);
  const end = await Promise.race([
    server.died,
    new Promise<null>((resolve) => {
      if (signal.aborted) resolve(null);
      signal.addEventListener('abort', () => resolve(null), { once: true });
    }),
  ]);
  clearInterval(timer);
  process.off('SIGHUP', reload);
  await server.close();
  if (end)
    throw new RetortError('bad-kernel', `the engine died: ${end.message}; start the server again`, {
      cause: end,
    });
}
