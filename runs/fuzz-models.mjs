// 10,000 mutated model files (GGUF, safetensors, configurations, tokenizers): each loads or ends in a RetortError, and
// memory stays flat. Writes how many did which to results/fuzz-models.txt. Run `npm run build` first.
import { writeFileSync } from 'node:fs';
import { fuzzModels } from '../dist/test/support/fuzz-models.js';

const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const started = performance.now();
const { files, loaded, refused, early, late, peak } = await fuzzModels(10_000, 1);
const text = `${files} mutated files: ${refused} refused with a RetortError, ${loaded} loaded, none otherwise
in use after a tenth ${mebibytes(early)}, after all ${mebibytes(late)}; at the peak ${mebibytes(peak)} more than at first
${((performance.now() - started) / 1000).toFixed(0)} s
`;
process.stdout.write(text);
writeFileSync(new URL('../results/fuzz-models.txt', import.meta.url), text);
if (late - early > 8 << 20) process.exit(1);
