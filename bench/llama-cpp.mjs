// Retort's server and llama.cpp's batched generation through node-llama-cpp: the same GGUF file, machine and run.
// Usage: npm run install:llama-cpp && node bench/llama-cpp.mjs [FILE.gguf]
// Without a file: the model of `retort bench decode`, 256 wide. Writes results/serve/llama-cpp.txt.
//
// llama.cpp gets 64 sequences that generate at once in its own process, without HTTP; Retort 64 clients that stream over
// HTTP from a server in another process. Both sample at temperature 1, prompts of 2 tokens, answers of 100. llama.cpp gets
// the number of threads that it is fastest with: on few shared cores its threads wait for one another.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeBenchModel } from '../dist/src/cli/bench-serve.js';

const SEQUENCES = 64;
const TOKENS = 100;
const SECONDS = 8;
/** One after the other, so that both meet the same machine; the median counts. */
const ROUNDS = 3;

const entry = new URL('../test/llama-cpp/node_modules/node-llama-cpp/dist/index.js', import.meta.url);
if (!existsSync(entry)) {
  console.error('llama.cpp is not installed: run npm run install:llama-cpp');
  process.exit(2);
}
const { getLlama, getModuleVersion } = await import(entry);

function retort(args) {
  const main = new URL('../dist/src/cli/main.js', import.meta.url).pathname;
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args, '--json'], {
    encoding: 'utf8',
  });
  if (status === 0) return JSON.parse(stdout.trim().split('\n').at(-1));
  console.error(stderr);
  process.exit(1);
}

const folder = mkdtempSync(join(tmpdir(), 'retort-llama-cpp-'));
let file = process.argv[2];
if (!file) {
  file = join(folder, 'model.gguf');
  retort([
    'export',
    '--model',
    writeBenchModel(join(folder, 'model'), TOKENS),
    '--format',
    'gguf',
    '--out',
    file,
  ]);
}

const library = await getLlama({ gpu: false, build: 'never', skipDownload: true, logLevel: 'fatal' });
const model = await library.loadModel({ modelPath: file });

/** Tokens a second of 64 sequences of one context, which computes them in batches. */
async function llamaCpp(threads, seconds) {
  const context = await model.createContext({
    contextSize: TOKENS + 8,
    sequences: SEQUENCES,
    batchSize: SEQUENCES * 2,
    threads,
  });
  const sequences = Array.from({ length: SEQUENCES }, () => context.getSequence());
  let tokens = 0;
  let end = Number.POSITIVE_INFINITY;
  async function generate(sequence, number) {
    for (let turn = 0; performance.now() < end; turn++) {
      await sequence.clearHistory();
      const prompt = [1, 32 + ((number + turn) % 16)];
      let count = 0;
      for await (const _ of sequence.evaluate(prompt, {
        temperature: 1,
        seed: number + turn,
        yieldEogToken: true,
      })) {
        tokens++;
        if (++count === TOKENS || performance.now() >= end) break;
      }
    }
  }
  const all = sequences.map(generate);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const before = tokens;
  const began = performance.now();
  end = began + 1000 * seconds;
  await Promise.all(all);
  const rate = (tokens - before) / ((performance.now() - began) / 1000);
  await context.dispose();
  return rate;
}

const counts = [...new Set([1, Math.ceil(availableParallelism() / 2), availableParallelism()])];
const tried = [];
for (const threads of counts) tried.push({ threads, rate: await llamaCpp(threads, 2) });
const { threads } = tried.reduce((best, one) => (one.rate > best.rate ? one : best));

const theirs = [];
const ours = [];
for (let round = 1; round <= ROUNDS; round++) {
  console.error(`round ${round} of ${ROUNDS}`);
  theirs.push(await llamaCpp(threads, SECONDS));
  const { results } = retort([
    ...['bench', 'serve', '--model', file, '--clients', `${SEQUENCES}`],
    ...['--seconds', `${SECONDS}`, '--tokens', `${TOKENS}`],
  ]);
  if (results[0].errors.length > 0) throw new Error(results[0].errors[0]);
  ours.push(results[0].tokensPerSecond);
}
await library.dispose();
rmSync(folder, { recursive: true, force: true });

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const list = (values) => values.map((v) => v.toFixed(0)).join(', ');
const text = `node bench/llama-cpp.mjs${process.argv[2] ? ' FILE' : ''}: node-llama-cpp ${await getModuleVersion()}, ${availableParallelism()} x ${cpus()[0].model.trim()}, node ${process.version}
${SEQUENCES} answers of ${TOKENS} tokens at once, tokens/s in ${ROUNDS} rounds:
  llama.cpp, batched, in process, ${threads} of ${counts.join(', ')} threads   ${list(theirs)}
  retort serve, streamed by HTTP, ${availableParallelism()} threads   ${list(ours)}
ratio of the medians: ${(median(ours) / median(theirs)).toFixed(2)}
`;
mkdirSync('results/serve', { recursive: true });
writeFileSync('results/serve/llama-cpp.txt', text);
console.log(text);
