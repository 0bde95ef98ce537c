// Several samples of one prompt from the model that ships, with their probability.
import { createDevice, createEngine, encodePrompt, generateAll, getTemplate, loadPolicy } from 'retort-lm';

const device = createDevice();
const policy = loadPolicy('models/countdown-base', device, { trainable: false });
const promptIds = encodePrompt(getTemplate('terse'), policy.tokenizer, '3 7 12=43?');

const engine = createEngine(policy, { maxSequences: 4 });
const [samples] = await generateAll(engine, [{ promptIds, n: 4, maxTokens: 120, seed: 1, problem: 0 }]);
for (const { text, logprobs } of samples) {
  const total = logprobs.reduce((a, b) => a + b, 0);
  console.log(`${text}   (log-probability ${total.toFixed(1)})`);
}
engine.close();
await device.close();
