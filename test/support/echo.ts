// A toy task for the loops: say the digit again. Learned in seconds, and imitated only half right, so that rewards have
// something to teach.
import { defineTask } from '../../src/task/define.js';
import { type SupervisedInput, sft } from '../../src/train/supervised.js';
import { finish } from './finish.js';

export const echo = defineTask<{ digit: number }>({
  name: 'echo',
  problem: (split, index) => ({ digit: (split === 'train' ? 0 : 5) + (index % 5) }),
  prompt: ({ digit }) => `${digit}?`,
  gold: ({ digit }) => String(digit),
  trace: ({ digit }, seed) => `<think></think><answer>${seed % 2 ? digit : (digit * 7 + seed) % 10}</answer>`,
  alphabet: '0123456789?',
  template: 'terse',
});

/** Sizes of a model that learns it. */
export const tiny = { dModel: 32, layers: 2, heads: 2, context: 32, batchTokens: 256 };

/** Makes a model that knows the format and is right about half of the time. */
export async function makeEchoBase(save: string, options: Partial<SupervisedInput> = {}): Promise<void> {
  // Every digit is trained on here: held-out problems of this toy are digits that reinforcement does not see.
  const all = { ...echo, problem: (_: string, index: number) => ({ digit: index % 10 }) } as typeof echo;
  await finish(sft({ ...tiny, task: all, steps: 150, learningRate: 3e-3, save, ...options }));
}
