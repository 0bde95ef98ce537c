// A task of your own: a tiny model is made from its traces, then taught by rewards. Runs in seconds.
import { defineTask, grpo, sft } from 'retort-lm';

// What to learn: problems from random numbers, a prompt, the right answer, and clumsy examples to begin with.
const parity = defineTask({
  name: 'parity',
  make: (random) => ({ n: random.integer(0, 999) }),
  prompt: ({ n }) => `${n}?`,
  gold: ({ n }) => (n % 2 ? 'odd' : 'even'),
  trace: ({ n }, seed) =>
    `<think></think><answer>${(n + (seed % 3 === 0 ? 1 : 0)) % 2 ? 'odd' : 'even'}</answer>`,
  alphabet: '0123456789?odevn',
  template: 'terse',
});

const folder = process.argv[2] ?? `.runs/parity-${Date.now()}`;
const sizes = { dModel: 32, layers: 2, heads: 2, context: 32 };
for await (const { step, steps, metrics } of sft({
  task: parity,
  ...sizes,
  steps: 300,
  learningRate: 4e-3,
  save: `${folder}-base`,
})) {
  if (step === steps) console.log(`sft: loss ${metrics.loss.toFixed(3)}`);
}

const options = { steps: 20, batchSize: 64, maxCompletionLength: 12, learningRate: 1e-3, evalEnds: false };
for await (const { step, metrics } of grpo({ model: `${folder}-base`, task: parity, ...options })) {
  if (step % 5 === 0) console.log(`grpo step ${step}: right ${(100 * metrics.accuracy).toFixed(0)}%`);
}
