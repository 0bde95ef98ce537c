// retort eval: accuracy on held-out problems, with intervals.
import type { Command } from 'commander';
import { createDevice } from '../compute/device/device.js';
import { refuse } from '../errors.js';
import { openScorer } from '../reward/score.js';
import type { Estimate } from '../reward/statistics.js';
import { loadTask } from '../task/load.js';
import { optionsFromWords } from '../task/options.js';
import { getTemplate } from '../text/template.js';
import { evaluate } from '../train/evaluate.js';
import { loadPolicy } from '../train/policy.js';
import { stopSignal } from './stop.js';
import {
  type CommonOptions,
  openProgress,
  percent,
  percentWithInterval,
  printResult,
  say,
  table,
} from './terminal.js';

interface EvalFlags extends CommonOptions {
  readonly model: string;
  readonly task: string;
  readonly taskOption?: string[];
  readonly template?: string;
  readonly split: 'train' | 'heldout';
  readonly problems: number;
  readonly samples: number;
  readonly temperature?: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly maxTokens?: number;
  readonly seed: number;
  readonly threads?: number;
}

export function addEval(program: Command): void {
  program
    .command('eval')
    .description('accuracy on held-out problems: greedy pass@1, or pass@k and maj@k of several samples')
    .requiredOption('--model <dir>', 'folder of the model')
    .requiredOption('--task <name>', 'name of a task, or path of a module that exports one')
    .option('--task-option <name=value...>', 'options of the task')
    .option('--template <name>', "prompt template; default: the task's")
    .option('--split <split>', 'heldout or train', 'heldout')
    .option('--problems <n>', 'different problems', Number, 500)
    .option('--samples <k>', 'samples of each problem', Number, 1)
    .option(
      '--temperature <t>',
      'sampling temperature; default: 0 (greedy) for one sample, 1 for several',
      Number,
    )
    .option('--top-k <k>', 'keep the k likeliest tokens; 0 keeps all', Number, 0)
    .option('--top-p <p>', 'keep the fewest tokens whose probability reaches p', Number, 1)
    .option('--min-p <p>', 'keep tokens at least this share as likely as the likeliest', Number, 0)
    .option(
      '--max-tokens <n>',
      "most tokens of a completion; default: what the model's context leaves",
      Number,
    )
    .option('--seed <n>', 'seed of problems and sampling', Number, 0)
    .option('--threads <n>', 'threads that compute', Number)
    .action(run);
}

async function run(o: EvalFlags): Promise<void> {
  if (o.split !== 'train' && o.split !== 'heldout')
    throw refuse('bad-input', 'split', o.split, 'use heldout or train');
  for (const [name, value] of [
    ['problems', o.problems],
    ['samples', o.samples],
  ] as const) {
    if (!Number.isInteger(value) || value < 1)
      throw refuse('bad-input', name, value, 'give a whole number of at least 1');
  }
  const temperature = o.temperature ?? (o.samples === 1 ? 0 : 1);
  if (temperature === 0 && o.samples > 1) {
    throw refuse(
      'bad-input',
      'samples at temperature 0',
      o.samples,
      'they would all be the same: give a temperature',
    );
  }
  const task = await loadTask(o.task, optionsFromWords(o.taskOption ?? []));
  const device = createDevice({ threads: o.threads });
  const scorer = await openScorer({
    task,
    onFailure: ({ name, kind, message }) => say(`reward ${name} ${kind}: ${message}`),
  });
  const progress = openProgress('eval', 'completions');
  try {
    const policy = loadPolicy(o.model, device, { trainable: false });
    const template = getTemplate(o.template ?? task.template, policy.tokenizer);
    const { topK, topP, minP, split, problems, samples, seed } = o;
    const e = await evaluate(policy, {
      task,
      template,
      scorer,
      split,
      problems,
      samples,
      temperature,
      topK,
      topP,
      minP,
      maxTokens: o.maxTokens ?? policy.llama.config.maxPositionEmbeddings,
      seed,
      signal: stopSignal.signal,
      onProgress: (p) => progress.update(p.finished, p.total, `${p.tokens} tokens`),
    });
    progress.end();
    const result = {
      problems: e.problems,
      samples,
      temperature,
      pass1: e.pass1.value,
      ci95: e.pass1.interval,
      passAtK: byK(e.passAtK),
      majAtK: byK(e.majAtK),
      meanReward: e.meanReward,
      meanLength: e.meanLength,
      truncated: e.truncated,
      failed: e.failed,
      tokens: e.tokens,
      measures: e.measures,
    };
    printResult(o, result, () => {
      const rows = [...e.passAtK].map(([k, pass]) => {
        const majority = e.majAtK.get(k) as Estimate;
        return [
          `k = ${k}`,
          percentWithInterval(pass.value, pass.interval),
          percentWithInterval(majority.value, majority.interval),
        ];
      });
      const lines = [
        `${task.name}, ${e.problems} ${split} problems, ${samples} sample${samples > 1 ? 's' : ''} each, temperature ${temperature}`,
        table([['95% interval', 'pass@k', 'maj@k'], ...rows]),
        `mean reward ${e.meanReward.toFixed(3)}, mean length ${e.meanLength.toFixed(1)} tokens, ${percent(e.truncated)} cut by the length limit`,
      ];
      const measures = Object.entries(e.measures).map(([name, value]) => `${name} ${value.toFixed(3)}`);
      if (measures.length > 0) lines.push(`means: ${measures.join(', ')}`);
      return lines.join('\n');
    });
  } finally {
    progress.end();
    await scorer.close();
    await device.close();
  }
}

function byK(
  estimates: ReadonlyMap<number, Estimate>,
): Record<string, { value: number; ci95: readonly [number, number] }> {
  return Object.fromEntries([...estimates].map(([k, { value, interval }]) => [k, { value, ci95: interval }]));
}
