// One sequence decoded by Retort on one thread and by llama2.c, in the same run, greedily, from the same weights.
// Usage: node bench/llama2c.mjs RUN_C [MODEL]     RUN_C is llama2.c's run.c; MODEL a folder (default ../shared/models/stories260K)
// Builds run.c with gcc -Ofast -march=native and with -O3. Writes results/bench/llama2c.txt.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createDevice } from '../dist/src/compute/device/device.js';
import { createEngine } from '../dist/src/rollout/engine.js';
import { loadPolicy } from '../dist/src/train/policy.js';

const TOKENS = 256;
const ROUNDS = 5;
const REPEATS = 40;

const [runC, folder = '../shared/models/stories260K'] = process.argv.slice(2);
if (!runC) {
  console.error("name llama2.c's run.c: node bench/llama2c.mjs RUN_C [MODEL]");
  process.exit(2);
}
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** The model in llama2.c's format: a header of seven integers, then each kind of weight for all layers. */
function writeBin({ llama }, path) {
  const c = llama.config;
  const header = Int32Array.of(
    c.hiddenSize,
    c.intermediateSize,
    c.numHiddenLayers,
    c.numAttentionHeads,
    c.numKeyValueHeads,
    c.tieWordEmbeddings ? c.vocabSize : -c.vocabSize,
    c.maxPositionEmbeddings,
  );
  const values = new Map(llama.parameters.map((p) => [p.name, llama.device.floats(p.value)]));
  /** Rows of a rotate-half matrix in llama2.c's order: the pair's halves side by side. */
  const interleaved = (w) => {
    const half = c.headDim / 2;
    const out = new Float32Array(w.length);
    for (let row = 0; row < w.length / c.hiddenSize; row++) {
      const inHead = row % c.headDim;
      const from = row - inHead + (inHead % 2) * half + Math.floor(inHead / 2);
      out.set(w.subarray(from * c.hiddenSize, (from + 1) * c.hiddenSize), row * c.hiddenSize);
    }
    return out;
  };
  const layers = (name, f = (w) => w) =>
    Array.from({ length: c.numHiddenLayers }, (_, i) => f(values.get(`model.layers.${i}.${name}.weight`)));
  const parts = [
    values.get('model.embed_tokens.weight'),
    ...layers('input_layernorm'),
    ...layers('self_attn.q_proj', interleaved),
    ...layers('self_attn.k_proj', interleaved),
    ...layers('self_attn.v_proj'),
    ...layers('self_attn.o_proj'),
    ...layers('post_attention_layernorm'),
    ...layers('mlp.gate_proj'),
    ...layers('mlp.down_proj'),
    ...layers('mlp.up_proj'),
    values.get('model.norm.weight'),
    new Float32Array(c.maxPositionEmbeddings * c.headDim),
    ...(c.tieWordEmbeddings ? [] : [values.get('lm_head.weight')]),
  ];
  writeFileSync(
    path,
    Buffer.concat(
      [header, ...parts].map((p) =>
        Buffer.from(Uint8Array.from(new Uint8Array(p.buffer, p.byteOffset, p.byteLength))),
      ),
    ),
  );
}

const device = createDevice({ threads: 1 });
const scratch = mkdtempSync(join(tmpdir(), 'llama2c-'));

/** Retort with matrices, keys and values kept as `dtype`. */
function contender(dtype) {
  const model = loadPolicy(folder, device, { trainable: false, dtype });
  const noStop = {
    ...model,
    tokenizer: { ...model.tokenizer, eosTokenIds: [] },
    llama: { ...model.llama, config: { ...model.llama.config, eosTokenIds: [] } },
  };
  const engine = createEngine(noStop, { maxSequences: 1, kvCacheDtype: dtype });
  const decode = () => {
    engine.submit({ promptIds: [1], maxTokens: TOKENS, temperature: 0, seed: 0, problem: 0 });
    for (;;) {
      const { finished } = engine.step();
      if (finished.length > 0) return finished[0].ids;
    }
  };
  for (let i = 0; i < 20; i++) decode();
  return { dtype, model, engine, decode, rates: [], ids: [] };
}

try {
  const ours = [contender('float32'), contender('bfloat16')];
  const bin = join(scratch, 'model.bin');
  writeBin(ours[0].model, bin);
  const builds = ['-Ofast', '-O3'].map((level) => {
    const program = join(scratch, `run${level}`);
    const source = new URL('llama2c.c', import.meta.url).pathname;
    execFileSync('gcc', [level, '-march=native', `-DRUN_C="${resolve(runC)}"`, '-o', program, source, '-lm']);
    return { level, program, rates: [], tokens: '' };
  });
  for (let round = 0; round < ROUNDS; round++) {
    for (const build of builds) {
      const [first, ...times] = execFileSync(build.program, [bin, `${TOKENS}`, `${REPEATS}`], {
        encoding: 'utf8',
      })
        .trim()
        .split('\n');
      build.tokens = first.trim();
      build.rates.push(median(times.map(Number)));
    }
    for (const one of ours) {
      const times = [];
      for (let i = 0; i < REPEATS; i++) {
        const began = performance.now();
        one.ids = one.decode();
        times.push((1000 * TOKENS) / (performance.now() - began));
      }
      one.rates.push(median(times));
    }
  }
  const rateOf = ({ rates }) => median(rates).toFixed(0).padStart(8);
  const compared = (one, { rates, tokens }) => {
    const other = tokens.split(' ').findIndex((t, i) => Number(t) !== one.ids[i]);
    const text = other < 0 ? 'the same tokens' : `other tokens from ${other}`;
    return `${(median(one.rates) / median(rates)).toFixed(2)} (${text})`;
  };
  const lines = [
    `node bench/llama2c.mjs: medians of ${ROUNDS} rounds of ${REPEATS}; one thread, one sequence, ${TOKENS} tokens, greedy; ${cpus()[0].model.trim()}; node ${process.version}; target ${device.target.name}, ${device.target.lanes} lanes`,
    '',
    ...builds.map((build) => `llama2.c, gcc ${build.level.padEnd(6)} native ${rateOf(build)} tokens/s`),
    ...ours.map(
      (one) =>
        `retort, kept as ${one.dtype.padEnd(8)}    ${rateOf(one)} tokens/s   ratios ${builds.map((build) => compared(one, build)).join(', ')}`,
    ),
  ];
  mkdirSync('results/bench', { recursive: true });
  writeFileSync('results/bench/llama2c.txt', `${lines.join('\n')}\n`);
  console.log(lines.join('\n'));
  for (const { engine } of ours) engine.close();
} finally {
  rmSync(scratch, { recursive: true });
  await device.close();
}
