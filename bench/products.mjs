// Matrix products timed as bench_matmul.py of ../shared/bench/pytorch times PyTorch's: the best of three stretches of 0.4 s.
// B is packed beforehand, as weights are, which stay packed until they change.
// Usage: node bench/products.mjs THREADS     after npm run build
import { createDevice } from '../dist/src/compute/device/device.js';
import { matmul, pack } from '../dist/src/compute/op/linear/linear.js';

const threads = Number(process.argv[2]);
if (!Number.isInteger(threads) || threads < 1) {
  console.error(`threads: got ${process.argv[2]}; give a whole number from 1`);
  process.exit(2);
}
const device = createDevice({ threads });
for (const [m, k, n] of [
  [2048, 128, 512],
  [2048, 256, 1024],
  [1024, 1024, 1024],
  [64, 128, 512],
]) {
  const mark = device.mark();
  const [a, b, c] = [device.temporary([m, k]), device.temporary([k, n]), device.temporary([m, n])];
  device.fill(a, 0.5);
  device.fill(b, 0.25);
  const packed = pack(device, b, k, n);
  const seconds = (times) => {
    const began = performance.now();
    for (let i = 0; i < times; i++) matmul(device, { a, b: packed, c, m, lda: k });
    return (performance.now() - began) / 1000 / times;
  };
  seconds(1);
  const times = Math.max(3, Math.min(2000, Math.floor(0.4 / seconds(1))));
  const best = Math.min(seconds(times), seconds(times), seconds(times));
  const rate = ((2 * m * k * n) / best / 1e9).toFixed(1);
  console.log(`threads=${threads} ${m}x${k}x${n}: ${rate} GFLOP/s (${(best * 1e6).toFixed(0)} us)`);
  device.rewind(mark);
}
await device.close();
