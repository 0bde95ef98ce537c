// Held-out accuracy of a model on each task, as the table of R1's stages has it.
import { createDevice } from '../compute/device/device.js';
import { openScorer } from '../reward/score.js';
import type { GenerateProgress } from '../rollout/generate.js';
import { loadTask } from '../task/load.js';
import type { MixMemberOption } from '../task/mix.js';
import { evaluateHeldOut, greedyAndSampled } from './held-out.js';
import { loadPolicy } from './policy.js';
import { taskOf } from './r1-options.js';
import { promptTemplate } from './rollout-checks.js';

/** Of one sampled completion at temperature 1, and of the greedy one, on the same held-out problems after each stage. */
export interface TaskAccuracy {
  readonly value: number;
  readonly ci95: readonly [number, number];
  readonly greedy: number;
  readonly greedyCi95: readonly [number, number];
  readonly meanLength: number;
}

export interface MeasureOptions {
  readonly tasks: readonly MixMemberOption[];
  readonly template?: string;
  readonly problems: number;
  /** Default: what the model's context leaves. */
  readonly maxTokens?: number;
  readonly threads?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (task: string, progress: GenerateProgress) => void;
}

/** By the task's name. @throws RetortError interrupted */
export async function measure(model: string, o: MeasureOptions): Promise<Record<string, TaskAccuracy>> {
  const device = createDevice({ threads: o.threads });
  try {
    const policy = loadPolicy(model, device, { trainable: false });
    const accuracies: Record<string, TaskAccuracy> = {};
    for (const member of o.tasks) {
      const { task: word, taskOptions } = taskOf([member]);
      const task = await loadTask(word, taskOptions);
      // A judge costs money each time, and says something else the next time.
      if (task.repeatable === false) continue;
      const scorer = await openScorer({ task });
      try {
        const { greedy, sampled } = await greedyAndSampled((temperature) =>
          evaluateHeldOut(policy, {
            task,
            template: promptTemplate(o, task, policy.tokenizer),
            scorer,
            problems: o.problems,
            temperature,
            maxTokens: o.maxTokens ?? policy.llama.config.maxPositionEmbeddings,
            signal: o.signal,
            onProgress: (p) => o.onProgress?.(task.name, p),
          }),
        );
        accuracies[task.name] = {
          value: sampled.pass1.value,
          ci95: sampled.pass1.interval,
          greedy: greedy.pass1.value,
          greedyCi95: greedy.pass1.interval,
          meanLength: sampled.meanLength,
        };
      } finally {
        await scorer.close();
      }
    }
    return accuracies;
  } finally {
    await device.close();
  }
}
