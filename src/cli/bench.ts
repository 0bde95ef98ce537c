// retort bench: what this machine reaches, as shares of a register-only multiply-add loop measured in the same run.

import { availableParallelism } from 'node:os';
import { Argument, type Command, Option } from 'commander';
import { createDevice, type Device } from '../compute/device/device.js';
import { type Dtype, dtypes } from '../compute/kernel/bfloat16.js';
import { matmul, matmulColumns, pack } from '../compute/op/linear/linear.js';
import { refuse } from '../errors.js';
import { disassemble } from './bench-disassemble.js';
import { type Measured, measure } from './bench-measure.js';
import { benchConfig, decodeFlops, trainFlops, withDecoding, withTraining } from './bench-models.js';
import { type Profile, profile, profileTable } from './bench-profile.js';
import { benchServe, parseClients } from './bench-serve.js';
import { addThreads, number, whole } from './flags.js';
import { type CommonOptions, percent, printResult, say, table } from './terminal.js';

interface BenchFlags extends CommonOptions {
  readonly threads?: number;
  readonly runs: number;
  readonly profile?: boolean;
  readonly disassemble?: string;
  readonly model?: string;
  readonly dtype?: Dtype;
  readonly clients: number[];
  readonly seconds: number;
  readonly tokens: number;
  readonly priceHour?: number;
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
    .description('measure this machine: matrix products, training steps, decoding, serving')
    .addArgument(
      new Argument('[what]', 'what to measure')
        .choices(['matmul', 'train', 'decode', 'serve', 'all'])
        .default('all'),
    )
    .option('--runs <n>', 'runs of which the median is taken', whole(1), 5)
    .option('--profile', 'time, bytes and share of the peak of each kernel in a training and a decoding step')
    .option('--disassemble <kernel>', "print a kernel's x86-64 code instead of measuring")
    .addOption(
      new Option(
        '--dtype <dtype>',
        'how matrices, keys and values are kept; default: decode float32, serve as the server does',
      ).choices(dtypes),
    )
    .option('--model <dir>', 'serve: folder of the model; default: the one of decode, 256 wide')
    .option('--clients <list>', 'serve: numbers of clients at once', parseClients, [1, 8, 64])
    .option('--seconds <n>', 'serve: seconds for each number of clients', number(1, 3600), 10)
    .option('--tokens <n>', 'serve: most tokens of an answer', whole(1), 100)
    .option('--price-hour <dollars>', 'serve: what this machine costs an hour', number(0, 1e6))
    .action((what: string, o: BenchFlags) => {
      if (what === 'serve') return serve(o);
      if (o.disassemble !== undefined) return printCode(o.disassemble, o);
      return o.profile ? printProfiles(what, o) : bench(what, o);
    });
  addThreads(command);
}

async function serve(o: BenchFlags): Promise<void> {
  const { priceHour: pricePerHour } = o;
  const { result, text } = await benchServe({ ...o, pricePerHour });
  printResult(o, result, () => text);
}

async function printCode(name: string, o: BenchFlags): Promise<void> {
  const kernels = await disassemble(name);
  printResult(o, { kernels }, () =>
    kernels.map(({ kernel, instructions }) => [`${kernel}:`, ...instructions].join('\n')).join('\n\n'),
  );
}

async function printProfiles(what: string, o: BenchFlags): Promise<void> {
  if (what === 'matmul') throw refuse('bad-input', 'what to profile', what, 'use train, decode or all');
  const found: { title: string; dModel: number; profile: Profile }[] = [];
  await withDevice(o.threads ?? availableParallelism(), (device) => {
    for (const dModel of WIDTHS) {
      if (what !== 'decode') {
        const title = `train, d ${dModel}, batch ${TRAIN.batch} x ${TRAIN.sequence}`;
        say(title);
        const result = withTraining(device, dModel, TRAIN, (step) => profile(device, 1, step));
        found.push({ title, dModel, profile: result });
      }
      if (what === 'train') continue;
      for (const batch of DECODE.batches) {
        const title = `decode, d ${dModel}, batch ${batch}, ${o.dtype ?? 'float32'}`;
        say(title);
        const shape = { batch, tokens: DECODE.tokens, dtype: o.dtype };
        const result = withDecoding(device, dModel, shape, (round) => profile(device, DECODE.tokens, round));
        found.push({ title, dModel, profile: result });
      }
    }
  });
  printResult(o, { profiles: found }, () =>
    found.map(({ title, profile }) => profileTable(title, profile)).join('\n\n'),
  );
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

async function withDevice<T>(threads: number, run: (device: Device) => T): Promise<T> {
  const device = createDevice({ threads });
  try {
    return run(device);
  } finally {
    await device.close();
  }
}

/** The best speed of the loop over all measurements, and a word where the machine was busy. */
function summarise(all: readonly Measured[]): number {
  const disturbance = Math.max(...all.map((m) => m.disturbance));
  if (disturbance > 0.25) {
    say(
      `the machine was busy: the multiply-add loop slowed by up to ${percent(disturbance)}; trust the shares, not the rates`,
    );
  }
  return Math.max(...all.map((m) => m.peakGflops));
}

async function benchMatmul({ threads, runs }: BenchFlags): Promise<Benched> {
  const results: Record<string, unknown>[] = [];
  const rows: string[][] = [];
  const all: Measured[] = [];
  let target = {};
  for (const count of threads ? [threads] : [...new Set([1, availableParallelism()])]) {
    await withDevice(count, (device) => {
      target = device.target;
      for (const layout of ['rows', 'columns'] as const) {
        for (const [m, k, n] of SHAPES) {
          const { measured, gflops } = timeMatmul(device, layout, m, k, n, runs);
          const { shareOfPeak } = measured;
          all.push(measured);
          results.push({ m, k, n, layout, threads: count, gflops, shareOfPeak });
          rows.push([`${m} x ${k} x ${n}`, layout, `${count}`, gflops.toFixed(1), percent(shareOfPeak)]);
        }
      }
    });
  }
  const peakGflops = summarise(all);
  const header = ['m x k x n', 'A in', 'threads', 'GFLOP/s', 'of peak'];
  return {
    result: { target, peakGflops, results },
    text: `${table([header, ...rows])}\npeak of one thread: ${peakGflops.toFixed(1)} GFLOP/s`,
  };
}

function timeMatmul(
  device: Device,
  layout: 'rows' | 'columns',
  m: number,
  k: number,
  n: number,
  runs: number,
): { measured: Measured; gflops: number } {
  const mark = device.mark();
  const a = device.temporary(layout === 'rows' ? [m, k] : [k, m]);
  const source = device.temporary([k, n]);
  const c = device.temporary([m, n]);
  device.fill(a, 0.5);
  device.fill(source, 0.25);
  const packed = pack(device, source, k, n);
  const lda = layout === 'rows' ? k : m;
  const flops = 2 * m * k * n;
  // Small products are repeated until a run takes some 20 ms.
  const repeats = Math.ceil(5e8 / flops);
  const measured = measure(device, runs, repeats * flops, () => {
    for (let i = 0; i < repeats; i++) {
      if (layout === 'rows') matmul(device, { a, b: packed, c, m, lda });
      else matmulColumns(device, { a, b: source, c, m, n, k, lda, add: false });
    }
  });
  device.rewind(mark);
  return { measured, gflops: (repeats * flops) / measured.seconds / 1e9 };
}

function benchTrain(o: BenchFlags): Promise<Benched> {
  const tokens = TRAIN.batch * TRAIN.sequence;
  return benchModels('train', o, (device, dModel) => {
    const flops = tokens * trainFlops(benchConfig(dModel, TRAIN.sequence), TRAIN.sequence);
    const measured = withTraining(device, dModel, TRAIN, (step) => measure(device, o.runs, flops, step));
    return [{ batch: TRAIN.batch, dtype: 'float32', tokens, measured }];
  });
}

function benchDecode(o: BenchFlags): Promise<Benched> {
  const { dtype = 'float32' } = o;
  return benchModels('decode', o, (device, dModel) =>
    DECODE.batches.map((batch) => {
      const tokens = batch * DECODE.tokens;
      const flops = tokens * decodeFlops(benchConfig(dModel, DECODE.tokens + 1), DECODE.tokens);
      const shape = { batch, tokens: DECODE.tokens, dtype };
      const measured = withDecoding(device, dModel, shape, (round) => measure(device, o.runs, flops, round));
      return { batch, dtype, tokens, measured };
    }),
  );
}

/** One measurement of a model. */
interface Ran {
  readonly batch: number;
  readonly dtype: Dtype;
  readonly tokens: number;
  readonly measured: Measured;
}

async function benchModels(
  name: string,
  { threads = availableParallelism() }: BenchFlags,
  run: (device: Device, dModel: number) => Ran[],
): Promise<Benched> {
  return withDevice(threads, (device) => {
    const all: Measured[] = [];
    const rows: string[][] = [];
    const results: Record<string, unknown>[] = [];
    for (const dModel of WIDTHS) {
      for (const { batch, dtype, tokens, measured } of run(device, dModel)) {
        const { seconds, shareOfPeak } = measured;
        const tokensPerSecond = tokens / seconds;
        all.push(measured);
        results.push({ dModel, batch, dtype, threads, tokensPerSecond, shareOfPeak });
        rows.push([
          `d ${dModel}`,
          `${batch}`,
          dtype,
          `${threads}`,
          tokensPerSecond.toFixed(0),
          percent(shareOfPeak),
        ]);
      }
    }
    return {
      result: { target: device.target, peakGflops: summarise(all), results },
      text: table([[name, 'batch', 'kept in', 'threads', 'tokens/s', 'of peak'], ...rows]),
    };
  });
}
