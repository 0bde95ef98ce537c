// 10,000 mutated model files (GGUF, safetensors, configurations, tokenizers): each loads or ends in a RetortError, and
// memory stays flat. Prints how many did which. Run `npm run build` first.
import { fuzzModels } from '../dist/test/support/fuzz-models.js';

const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const started = performance.now();
const { files, loaded, refused, early, late, peak } = await fuzzModels(10_000, Number(process.argv[2] ?? 1));
console.log(
  `${files} mutated files: ${refused} refused with a RetortError, ${loaded} loaded, none otherwise`,
);
console.log(
  `in use after a tenth ${mebibytes(early)}, after all ${mebibytes(late)}; at the peak ${mebibytes(peak)} more than at first`,
);
console.log(`${((performance.now() - started) / 1000).toFixed(0)} s`);
if (late - early > 8 << 20) process.exit(1);
