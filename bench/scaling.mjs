// How speed grows with the model, the batch and the sequence: training and decoding, with the share of the peak.
// Usage: node bench/scaling.mjs train|decode      Some minutes. Writes results/bench/scaling-WHAT.txt.
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { measure } from '../dist/src/cli/bench-measure.js';
import { benchConfig, benchTokenizer, trainFlops, withTraining } from '../dist/src/cli/bench-models.js';
import { percent, table } from '../dist/src/cli/terminal.js';
import { createDevice } from '../dist/src/compute/device/device.js';
import { createLlama, freeLlama, initLlama } from '../dist/src/model/llama.js';
import { forwardOperations } from '../dist/src/model/operations.js';
import { createEngine } from '../dist/src/rollout/engine.js';

const WIDTHS = [64, 128, 256, 512, 1024];
const BATCHES = [1, 8, 64, 256, 1024];
const SEQUENCES = [64, 256, 1024, 4096];
/** Runs of which the median counts. */
const RUNS = 5;
/** Steps decoded in one run. */
const STEPS = 8;
/** Positions that a measurement moves on by: two runs warm up. */
const MOVED = STEPS * (RUNS + 2);
/** Milliseconds of decoding before that: memory is touched, JavaScript compiled, and each thread on a core of its own. */
const WARM_MS = 500;
/** Bytes of cache past which a batch is left out: memory, and time to fill it. */
const MOST_CACHE = 4 * 2 ** 30;

function train(device, dModel, sequence) {
  const batch = Math.max(1, 4096 / sequence);
  const tokens = batch * sequence;
  const flops = tokens * trainFlops(benchConfig(dModel, sequence), sequence);
  const { seconds, shareOfPeak } = withTraining(device, dModel, { batch, sequence }, (step) =>
    measure(device, RUNS, flops, step),
  );
  return { rate: tokens / seconds, shareOfPeak };
}

/** Decodes some tokens from position `context` on of `batch` sequences. */
function decode(device, dModel, batch, context) {
  const config = benchConfig(dModel, context + 2 * MOVED);
  const llama = createLlama(device, config, { trainable: false });
  initLlama(llama, 0);
  const longest = context + 2 * MOVED;
  const engine = createEngine(
    { llama, tokenizer: benchTokenizer },
    { maxSequences: batch, maxLength: longest },
  );
  try {
    const promptIds = Array.from({ length: context }, (_, i) => (i * 7) % config.vocabSize);
    // The prompt is computed once and shared; each sequence reads it for itself all the same.
    const start = () => {
      const request = engine.submit({ promptIds, n: batch, maxTokens: 2 * MOVED, seed: 0, problem: 0 });
      let started = 0;
      while (started < batch) started = engine.step().tokens.length;
      return request;
    };
    for (const until = performance.now() + WARM_MS; performance.now() < until; ) {
      const warming = start();
      while (engine.busy && performance.now() < until) engine.step();
      engine.cancel(warming);
    }
    start();
    const flops = (batch * STEPS * forwardOperations(config, context, context + MOVED)) / MOVED;
    const { seconds, shareOfPeak } = measure(device, RUNS, flops, () => {
      for (let i = 0; i < STEPS; i++) engine.step();
    });
    return { rate: (batch * STEPS) / seconds, shareOfPeak };
  } finally {
    engine.close();
    freeLlama(llama);
  }
}

const cell = (result) => (result ? `${result.rate.toFixed(0)} (${percent(result.shareOfPeak)})` : '-');
const what = process.argv[2];
if (what !== 'train' && what !== 'decode') {
  console.error('say what to measure: node bench/scaling.mjs train|decode');
  process.exit(2);
}
const device = createDevice();
const texts = [];
const section = (title, header, columns, of) => {
  const rows = [];
  for (const dModel of WIDTHS) {
    const cells = columns.map((column) => {
      console.error(`${title}: d ${dModel}, ${column}`);
      return cell(of(dModel, column));
    });
    rows.push([`d ${dModel}`, ...cells]);
  }
  texts.push(`${title}\n${table([[header, ...columns.map(String)], ...rows])}`);
};
const cacheBytes = (dModel, batch, context) => 4 * 2 * 4 * dModel * batch * (context + 2 * MOVED);
if (what === 'train')
  section('training, 4096 tokens a step, by the length of the sequences', 'sequence', SEQUENCES, (d, s) =>
    train(device, d, s),
  );
else {
  section('decoding from position 64 on, by the batch', 'batch', BATCHES, (d, batch) =>
    cacheBytes(d, batch, 64) > MOST_CACHE ? undefined : decode(device, d, batch, 64),
  );
  section('decoding 16 sequences, by the position they stand at', 'position', SEQUENCES, (d, context) =>
    decode(device, d, 16, context),
  );
}
await device.close();
const text = [
  `node bench/scaling.mjs ${what}: tokens/s (share of the multiply-add loop's peak); 4 layers; ${device.threads} threads, ${device.target.name} with ${device.target.lanes} lanes; ${cpus()[0].model.trim()}; node ${process.version}`,
  '',
  texts.join('\n\n'),
].join('\n');
mkdirSync('results/bench', { recursive: true });
writeFileSync(`results/bench/scaling-${what}.txt`, `${text}\n`);
console.log(text);
