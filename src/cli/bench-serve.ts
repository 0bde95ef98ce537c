// retort bench serve: what the server gives so many clients, against the engine alone, and what a million tokens cost.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeModelFolder } from '../checkpoint/folder.js';
import { createDevice } from '../compute/device/device.js';
import type { Dtype } from '../compute/kernel/bfloat16.js';
import { RetortError, refuse } from '../errors.js';
import { createLlama, freeLlama, initLlama, weightsOf } from '../model/llama.js';
import { createEngine } from '../rollout/engine.js';
import { buildCharTokenizer } from '../text/char-tokenizer.js';
import { createTokenizer } from '../text/tokenizer.js';
import { loadPolicy } from '../train/policy.js';
import { API_PRICES, READ_ON } from './api-prices.js';
import { connectLoadClient, type LoadResult, runLoad } from './bench-load.js';
import { benchConfig } from './bench-models.js';
import { say, table } from './terminal.js';

export interface BenchServeOptions {
  /** Folder of a model; default: the one of `bench decode`, 256 wide. */
  readonly model?: string;
  readonly clients: readonly number[];
  /** How matrices, keys and values are kept. Default: as the server does. */
  readonly dtype?: Dtype;
  readonly seconds: number;
  readonly threads?: number;
  /** Most tokens of an answer. */
  readonly tokens: number;
  /** What this machine costs an hour, in US dollars. */
  readonly pricePerHour?: number;
}

interface Served extends LoadResult {
  /** Tokens a second of the engine alone, with as many sequences at once. */
  readonly engineTokensPerSecond: number;
  readonly shareOfEngine: number;
  /** Of output, at the price an hour. */
  readonly dollarsPerMillionTokens: number | null;
}

const PROMPTS = 16;
const WIDTH = 256;

export async function benchServe(o: BenchServeOptions): Promise<{ result: object; text: string }> {
  const folder = mkdtempSync(join(tmpdir(), 'retort-bench-'));
  try {
    const dir = o.model ?? writeBenchModel(join(folder, 'model'), o.tokens);
    const most = Math.max(...o.clients);
    const prompts = promptsOf(dir);
    const server = await startProcess(dir, folder, most, o);
    const results: Served[] = [];
    try {
      const expected = await greedyAlone(server.url, prompts, o.tokens);
      for (const clients of o.clients) {
        // Before and after, since a machine that others use as well is not equally fast at all times.
        const before = await engineSpeed(dir, clients, prompts, o);
        say(`${clients} clients for ${o.seconds} s`);
        const load = await runLoad({
          ...{ url: server.url, model: 'bench', clients, seconds: o.seconds, tokens: o.tokens },
          ...{ prompts, expected },
        });
        const engineTokensPerSecond = (before + (await engineSpeed(dir, clients, prompts, o))) / 2;
        const perHour = load.tokensPerSecond * 3600;
        results.push({
          ...load,
          engineTokensPerSecond,
          shareOfEngine: load.tokensPerSecond / engineTokensPerSecond,
          dollarsPerMillionTokens: o.pricePerHour === undefined ? null : (o.pricePerHour / perHour) * 1e6,
        });
      }
    } finally {
      await server.stop();
    }
    return {
      result: { dtype: o.dtype ?? 'default', results, prices: { readOn: READ_ON, models: API_PRICES } },
      text: report(results),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The model that `bench decode` runs, with a vocabulary of 64 and a context that holds prompt and answer. */
export function writeBenchModel(dir: string, tokens: number): string {
  const { files } = buildCharTokenizer({
    characters: 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456',
  });
  // Nothing ends an answer, so that all are equally long.
  const tokenizer = createTokenizer({ ...files, 'tokenizer_config.json': '{}' }, { source: 'bench' });
  const device = createDevice({ threads: 1 });
  const config = { ...benchConfig(WIDTH, tokens + 8), vocabSize: tokenizer.vocabSize };
  const llama = createLlama(device, config, { trainable: false });
  initLlama(llama, 0);
  writeModelFolder(dir, { config, tensors: weightsOf(llama), tokenizer });
  freeLlama(llama);
  void device.close();
  return dir;
}

/** Short prompts that differ, of ids that every vocabulary has. */
function promptsOf(dir: string): number[][] {
  const device = createDevice({ threads: 1 });
  const { llama, tokenizer } = loadPolicy(dir, device, { trainable: false });
  const start = tokenizer.bosTokenId ?? 0;
  const { vocabSize } = tokenizer;
  freeLlama(llama);
  void device.close();
  return Array.from({ length: PROMPTS }, (_, i) => [start, Math.floor(vocabSize / 2) + i]);
}

async function engineSpeed(
  dir: string,
  sequences: number,
  prompts: readonly (readonly number[])[],
  o: BenchServeOptions,
): Promise<number> {
  say(`the engine alone, ${sequences} sequences at once`);
  const device = createDevice({ threads: o.threads });
  try {
    const policy = loadPolicy(dir, device, { trainable: false, dtype: o.dtype });
    const engine = createEngine(policy, { maxSequences: sequences, kvCacheDtype: o.dtype });
    let problem = 0;
    const submit = () => {
      const promptIds = prompts[problem % prompts.length];
      engine.submit({ promptIds, maxTokens: o.tokens, seed: 0, problem: problem++ });
    };
    for (let i = 0; i < sequences; i++) submit();
    const run = (seconds: number) => {
      const before = engine.generatedTokens;
      const began = performance.now();
      while (performance.now() < began + 1000 * seconds)
        for (let ended = engine.step().finished.length; ended > 0; ended--) submit();
      return (engine.generatedTokens - before) / ((performance.now() - began) / 1000);
    };
    run(1);
    return run(Math.min(5, o.seconds));
  } finally {
    await device.close();
  }
}

async function startProcess(
  dir: string,
  cwd: string,
  maxSequences: number,
  { dtype, threads = availableParallelism() }: BenchServeOptions,
): Promise<{ url: string; stop(): Promise<void> }> {
  const main = fileURLToPath(new URL('./main.js', import.meta.url));
  const args = ['serve', '--model', `bench=${resolve(dir)}`, '--port', '0', '--json'];
  args.push('--max-sequences', `${maxSequences}`, '--threads', `${threads}`);
  if (dtype) args.push('--dtype', dtype, '--kv-cache-dtype', dtype);
  const child: ChildProcess = spawn(process.execPath, [main, ...args], {
    cwd,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  const line = child.stdout && once(child.stdout, 'data');
  const first = (await Promise.race([line, ended])) as [unknown];
  if (!Buffer.isBuffer(first[0])) throw new RetortError('bad-kernel', 'the server did not start');
  const { url } = JSON.parse(first[0].toString()) as { url: string };
  return {
    url,
    async stop() {
      child.kill('SIGINT');
      await ended;
    },
  };
}

/** What each prompt gives when nothing else runs. */
async function greedyAlone(
  url: string,
  prompts: readonly (readonly number[])[],
  tokens: number,
): Promise<string[]> {
  const client = connectLoadClient(url);
  const texts: string[] = [];
  for (const prompt of prompts)
    texts.push((await client.complete({ model: 'bench', prompt, max_tokens: tokens, temperature: 0 })).text);
  client.close();
  return texts;
}

/** @throws RetortError bad-input for what is no list of whole numbers */
export function parseClients(word: string): number[] {
  const numbers = word.split(',').map(Number);
  if (numbers.length === 0 || numbers.some((n) => !Number.isInteger(n) || n < 1 || n > 4096))
    throw refuse(
      'bad-input',
      '--clients',
      word,
      'give whole numbers from 1 to 4096 with commas between, 1,8,64',
    );
  return numbers;
}

function report(results: readonly Served[]): string {
  const ms = (seconds: number) => `${(1000 * seconds).toFixed(0)} ms`;
  const dollars = (amount: number) => `$${amount < 0.1 ? amount.toPrecision(2) : amount.toFixed(2)}`;
  const priced = results.some((r) => r.dollarsPerMillionTokens !== null);
  const rows = results.map((r) => [
    ...[`${r.clients}`, r.tokensPerSecond.toFixed(0), `${(100 * r.shareOfEngine).toFixed(0)}%`],
    ...[ms(r.firstToken.p50), ms(r.firstToken.p99), r.answerSpeed.toFixed(0)],
    ...[`${r.health.worst.toFixed(1)} ms`, `${r.different} of ${r.compared}`, `${r.errors.length}`],
    ...(priced ? [dollars(r.dollarsPerMillionTokens ?? 0)] : []),
  ]);
  const header = [
    ...['clients', 'tokens/s', 'of engine', 'first token', 'of 99%', 'an answer', '/health at worst'],
    ...['greedy that differ', 'errors', ...(priced ? ['a million tokens'] : [])],
  ];
  const errors = [...new Set(results.flatMap((r) => r.errors))].slice(0, 5);
  const lines = [table([header, ...rows]), ...errors];
  if (priced) {
    const others = API_PRICES.map((p) => [
      p.model,
      dollars(p.input),
      dollars(p.cachedInput),
      dollars(p.output),
    ]);
    lines.push('', `what others asked for a million tokens (${READ_ON}; they serve other models):`);
    lines.push(table([['model', 'input', 'cached', 'output'], ...others]));
    lines.push(...new Set(API_PRICES.map((p) => p.source)));
  }
  return lines.join('\n');
}
