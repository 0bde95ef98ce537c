// What rehearsals of loops with rollouts share: a staged policy and its rewards, and how such a run is made smaller.
import type { Device } from '../../compute/device/device.js';
import type { LlamaConfig } from '../../model/config.js';
import type { Llama } from '../../model/llama.js';
import type { Scorer } from '../../reward/score.js';
import type { Task } from '../../task/task.js';
import type { PromptTemplate } from '../../text/template.js';
import type { Tokenizer } from '../../text/tokenizer.js';
import type { Job } from '../rollout.js';
import { evaluateNow } from '../rollout-evaluation.js';
import type { RolloutOptions } from '../rollout-options.js';
import { drawLengths, STAGED_END, stagedStream } from './lengths.js';
import { type ChangedOptions, halved, type Phase, stageModel, stopIfAborted } from './rehearsal.js';

/** What is trained, on what. */
export interface RolloutSubject {
  readonly config: LlamaConfig;
  readonly tokenizer: Tokenizer;
  readonly task: Task;
  readonly template: PromptTemplate;
}

/** Rewards that differ within every group: no group is left out, none replaced. */
export const stagedScorer: Scorer = {
  failures: new Map(),
  scoreAll: async (items) =>
    items.map((_, i) => ({ rewards: { planned: i % 2 }, reward: i % 2, correct: false, failed: [] })),
  close: async () => {},
};

/** A policy whose completions get `meanLength` tokens on average, and what it works on. */
export function stageJob<O extends RolloutOptions>(
  device: Device,
  { config, tokenizer, task, template }: RolloutSubject,
  o: O,
  meanLength: number,
  signal: AbortSignal | undefined,
): { llama: Llama; job: Job<O> } {
  const llama = stageModel(device, config, { trainable: true });
  const stream = stagedStream(drawLengths(meanLength, o.maxCompletionLength));
  const job: Job<O> = {
    policy: { llama, tokenizer: { ...tokenizer, eosTokenIds: [], stream } },
    task,
    template,
    scorer: stagedScorer,
    o: { ...o, stop: [STAGED_END] },
    onProgress: () => stopIfAborted(signal),
  };
  return { llama, job };
}

/** Plays an evaluation, where the run has any. */
export async function playEvaluation(
  job: Job,
  meanLength: number,
  done: (phase: Phase, step: number) => void,
): Promise<void> {
  const { o } = job;
  if (!o.evalEnds && o.evalEvery === 0) return;
  await evaluateNow({ ...job, o: { ...o, stop: [], maxCompletionLength: meanLength } }, 1, 'rehearsal');
  done('evaluation', 0);
}

/** Less to do: shorter completions, then fewer layers, then fewer problems; null where there is no less. */
export function smallerRollouts<O extends RolloutOptions>(
  subject: RolloutSubject,
  o: O,
  meanLength: number,
): { readonly subject: RolloutSubject; readonly o: O; readonly meanLength: number } | null {
  const length = halved(o.maxCompletionLength, 32);
  if (length !== null) {
    const mean = Math.ceil((meanLength * length) / o.maxCompletionLength);
    return { subject, o: { ...o, maxCompletionLength: length }, meanLength: mean };
  }
  const { config } = subject;
  const layers = halved(config.numHiddenLayers, 1);
  if (layers !== null)
    return { subject: { ...subject, config: { ...config, numHiddenLayers: layers } }, o, meanLength };
  const problems = halved(o.batchSize / o.numGenerations, 1);
  return problems === null
    ? null
    : { subject, o: { ...o, batchSize: problems * o.numGenerations }, meanLength };
}

/** Options with which a run takes less memory of a kind. */
export function lighterRollouts(
  o: RolloutOptions & { readonly gradientCheckpointing: boolean },
  kind: string,
): readonly ChangedOptions[] {
  if (kind === 'kvCache') {
    const sequences = halved(Math.min(o.maxSequences, o.batchSize), 1);
    return sequences === null ? [] : [{ maxSequences: sequences }];
  }
  const ways: ChangedOptions[] = [];
  // Passes hold whole sequences: fewer tokens than the longest has would change nothing.
  const tokens = halved(o.microBatchTokens, o.maxCompletionLength);
  if (tokens !== null) ways.push({ microBatchTokens: tokens });
  if (!o.gradientCheckpointing) ways.push({ gradientCheckpointing: true });
  return ways;
}
