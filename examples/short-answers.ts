// A reward of your own beside a task's: shorter completions are worth a little more. Use it with
//   retort grpo --task countdown --rewards ./dist/examples/short-answers.js ...
import { defineReward } from 'retort-lm';

export const reward = defineReward({
  name: 'short',
  weight: 0.1,
  score: (_problem, _completion, { tokenCount = 0 }) => Math.max(0, 1 - tokenCount / 200),
});
