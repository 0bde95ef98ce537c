// What a launch costs beside its work, and where the time of a decoding step goes: JavaScript, own kernels, waiting.
// Usage: node bench/dispatch.mjs      Writes results/bench/dispatch.txt.
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { median } from '../dist/src/cli/bench-measure.js';
import { withDecoding } from '../dist/src/cli/bench-models.js';
import { createDevice } from '../dist/src/compute/device/device.js';
import { buildKernel } from '../dist/src/compute/kernel/builder.js';

const RUNS = 9;
const LAUNCHES = 20_000;
/** One store an item: as little as a kernel can do. */
const touch = (target) =>
  buildKernel('touch', target, { y: 'f32*' }, (b, p) => {
    b.items((item) => b.store(p.y, item, b.float(1)));
  });

const lines = [
  `node bench/dispatch.mjs: medians of ${RUNS} runs; ${cpus().length} x ${cpus()[0].model.trim()}; node ${process.version}`,
  '',
];
/** Microseconds of one of `count` runs of `work`. */
const time = (count, work) => {
  const runs = [];
  for (let run = 0; run < RUNS; run++) {
    const began = performance.now();
    work();
    runs.push((1000 * (performance.now() - began)) / count);
  }
  return median(runs);
};
for (const threads of [1, 2]) {
  const device = createDevice({ threads });
  const y = device.tensor('other', [threads]);
  const kernel = device.kernel('touch', touch);
  const one = () => {
    for (let i = 0; i < LAUNCHES; i++) device.launch(kernel, threads, [y], []);
  };
  one();
  const each = time(LAUNCHES, one);
  const recording = device.record(threads, () => {
    for (let i = 0; i < 100; i++) device.launch(kernel, threads, [y], []);
  });
  const replay = () => {
    for (let i = 0; i < LAUNCHES / 100; i++) device.replay(recording);
  };
  replay();
  lines.push(
    `${threads} threads: a launch ${each.toFixed(2)} us, one of a recording of 100 ${time(LAUNCHES, replay).toFixed(3)} us`,
  );
  await device.close();
}
lines.push('');
const TOKENS = 100;
for (const [dModel, batch] of [
  [128, 64],
  [256, 64],
]) {
  const device = createDevice({ threads: 2 });
  let inside = 0;
  const { replay } = device;
  device.replay = (recording) => {
    const began = performance.now();
    replay.call(device, recording);
    inside += performance.now() - began;
  };
  withDecoding(device, dModel, { batch, tokens: TOKENS }, (round) => {
    round();
    round();
    const shares = [];
    const steps = [];
    for (let run = 0; run < RUNS; run++) {
      inside = 0;
      const began = performance.now();
      round();
      const all = performance.now() - began;
      steps.push((1000 * all) / TOKENS);
      shares.push(1 - inside / all);
    }
    const step = median(steps);
    const outside = median(shares);
    lines.push(
      `decoding, d ${dModel}, batch ${batch}: ${step.toFixed(0)} us a step, of which ${(outside * step).toFixed(0)} us (${(100 * outside).toFixed(0)}%) outside the kernels`,
    );
  });
  await device.close();
}
mkdirSync('results/bench', { recursive: true });
writeFileSync('results/bench/dispatch.txt', `${lines.join('\n')}\n`);
console.log(lines.join('\n'));
