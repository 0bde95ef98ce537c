// retort bench: what this machine reaches, as shares of a register-only multiply-add loop measured in the same run.

import { availableParallelism } from 'node:os';
import { Argument, type Command } from 'commander';
import { createDevice, type Device } from '../compute/device/device.js';
import type { Layout } from '../compute/op/linear/kernel.js';
import { matmul, pack } from '../compute/op/linear/linear.js';
import { peakFlops, peakKernel } from '../compute/target/peak.js';
import { benchConfig, decodeFlops, timeDecoding, timeTraining, trainFlops } from './bench-models.js';
import { addThreads, whole } from './flags.js';
import { type CommonOptions, percent, printResult, say, table } from './terminal.js';

interface BenchFlags extends CommonOptions {
  readonly threads?: number;
  readonly runs: number;
}

const SHAPES = [
  [2048, 128, 512],
  [2048, 256, 1024],
  [1024, 1024, 1024],
  [64, 128, 512],
] as const;
const WIDTHS = [128, 256] as const;
const TRAIN = { batch: 32, sequence: 128 };
const DECODE = { batches: [64, 256], tokens: 100 };

export function addBench(program: Command): void {
  const command = program
    .command('bench')
    .description('measure this machine: matrix products, training steps, decoding')
    .addArgument(new Argument('<what>', 'what to measure').choices(['matmul', 'train', 'decode', 'all']))
    .option('--runs <n>', 'runs of which the median is taken', whole(1), 5)
    .action((what: string, o: BenchFlags) => bench(what, o));
  addThreads(command);
}

async function bench(what: string, o: BenchFlags): Promise<void> {
  const known = { matmul: benchMatmul, train: benchTrain, decode: benchDecode } as const;
  const names = what === 'all' ? (['matmul', 'train', 'decode'] as const) : [what as keyof typeof known];
  const results: Record<string, object> = {};
  const texts: string[] = [];
  for (const name of names) {
    say(`bench ${name}: ${o.runs} runs each`);
    const { result, text } = await known[name](o);
    results[name] = result;
    texts.push(text);
  }
  printResult(o, what === 'all' ? results : results[what], () => texts.join('\n\n'));
}

interface Benched {
  readonly result: object;
  readonly text: string;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

/** GFLOP/s of one thread in a loop of multiply-adds that touches no memory. */
function measurePeak(device: Device, runs: number): number {
  const mark = device.mark();
  const out = device.temporary([64]);
  const kernel = device.kernel('peak', peakKernel);
  const rounds = 2_000_000;
  const seconds = Array.from({ length: runs + 1 }, () => {
    const began = performance.now();
    device.launch(kernel, 1, [out], [rounds, 0.5, 1]);
    return (performance.now() - began) / 1000;
  });
  device.rewind(mark);
  // The best run: what the chip can do, not what the neighbours left.
  return peakFlops(device.target, rounds) / Math.min(...seconds) / 1e9;
}

async function withDevice<T>(threads: number, run: (device: Device) => T): Promise<T> {
  const device = createDevice({ threads });
  try {
    return run(device);
  } finally {
    await device.close();
  }
}

async function benchMatmul({ threads, runs }: BenchFlags): Promise<Benched> {
  const peakGflops = await withDevice(1, (device) => measurePeak(device, runs));
  const results: {
    m: number;
    k: number;
    n: number;
    layout: Layout;
    threads: number;
    gflops: number;
    shareOfPeak: number;
  }[] = [];
  let target = {};
  for (const count of threads ? [threads] : [...new Set([1, availableParallelism()])]) {
    await withDevice(count, (device) => {
      target = device.target;
      for (const layout of ['rows', 'columns'] as const) {
        for (const [m, k, n] of SHAPES) {
          const gflops = timeMatmul(device, layout, m, k, n, runs);
          results.push({
            m,
            k,
            n,
            layout,
            threads: count,
            gflops,
            shareOfPeak: gflops / (peakGflops * count),
          });
        }
      }
    });
  }
  const rows = results.map((r) => [
    `${r.m} x ${r.k} x ${r.n}`,
    r.layout,
    String(r.threads),
    r.gflops.toFixed(1),
    percent(r.shareOfPeak),
  ]);
  return {
    result: { target, peakGflops, results },
    text: `${table([['m x k x n', 'A in', 'threads', 'GFLOP/s', 'of peak'], ...rows])}\npeak of one thread: ${peakGflops.toFixed(1)} GFLOP/s`,
  };
}

function timeMatmul(device: Device, layout: Layout, m: number, k: number, n: number, runs: number): number {
  const mark = device.mark();
  const a = device.temporary(layout === 'rows' ? [m, k] : [k, m]);
  const source = device.temporary([k, n]);
  const c = device.temporary([m, n]);
  device.fill(a, 0.5);
  device.fill(source, 0.25);
  const b = pack(device, source, k, n, false);
  const once = () =>
    matmul(device, { a, layout, b, c, m, lda: layout === 'rows' ? k : m, accumulate: false });
  once();
  const repeats = Math.max(1, Math.round(2e8 / (2 * m * k * n)));
  const seconds = Array.from({ length: runs }, () => {
    const began = performance.now();
    for (let i = 0; i < repeats; i++) once();
    return (performance.now() - began) / 1000 / repeats;
  });
  device.rewind(mark);
  return (2 * m * k * n) / median(seconds) / 1e9;
}

interface ModelResult {
  readonly dModel: number;
  readonly batch: number;
  readonly threads: number;
  readonly tokensPerSecond: number;
  readonly shareOfPeak: number;
}

function benchTrain(o: BenchFlags): Promise<Benched> {
  const { batch, sequence } = TRAIN;
  return benchModels('train', o, (device, dModel, runs) => {
    const seconds = median(timeTraining(device, dModel, batch, sequence, runs));
    const rate = (batch * sequence) / seconds;
    return [{ batch, rate, flops: rate * trainFlops(benchConfig(dModel, sequence), sequence) }];
  });
}

function benchDecode(o: BenchFlags): Promise<Benched> {
  const { batches, tokens } = DECODE;
  return benchModels('decode', o, (device, dModel, runs) =>
    batches.map((batch) => {
      const rate = (batch * tokens) / median(timeDecoding(device, dModel, batch, tokens, runs));
      return { batch, rate, flops: rate * decodeFlops(benchConfig(dModel, tokens + 1)) };
    }),
  );
}

async function benchModels(
  name: string,
  { threads = availableParallelism(), runs }: BenchFlags,
  measure: (device: Device, dModel: number, runs: number) => { batch: number; rate: number; flops: number }[],
): Promise<Benched> {
  return withDevice(threads, (device) => {
    const peakGflops = measurePeak(device, runs);
    const results = WIDTHS.flatMap((dModel) =>
      measure(device, dModel, runs).map(
        ({ batch, rate, flops }): ModelResult => ({
          dModel,
          batch,
          threads,
          tokensPerSecond: rate,
          shareOfPeak: flops / 1e9 / (peakGflops * threads),
        }),
      ),
    );
    const rows = results.map((r) => [
      `d ${r.dModel}`,
      String(r.batch),
      String(r.threads),
      r.tokensPerSecond.toFixed(0),
      percent(r.shareOfPeak),
    ]);
    return {
      result: { target: device.target, peakGflops, results },
      text: table([[name, 'batch', 'threads', 'tokens/s', 'of peak'], ...rows]),
    };
  });
}
