// retort eval: accuracy on held-out problems, with intervals.
import { accessSync, constants, statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import { writeFileAtomically } from '../checkpoint/atomic.js';
import { fileProblem } from '../checkpoint/files.js';
import { createDevice } from '../compute/device/device.js';
import { refuse } from '../errors.js';
import { openScorer } from '../reward/score.js';
import type { Estimate } from '../reward/statistics.js';
import { loadTask } from '../task/load.js';
import { optionsFromWords } from '../task/options.js';
import { getTemplate } from '../text/template.js';
import { type Evaluation, evaluate, MAX_PROBLEMS } from '../train/evaluate.js';
import { loadPolicy } from '../train/policy.js';
import { addSampling, addSeed, addTask, addThreads, number, splitOption, whole } from './flags.js';
import { openProgress } from './progress.js';
import { stopSignal } from './stop.js';
import { type CommonOptions, percent, percentWithInterval, printResult, say, table } from './terminal.js';

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
  readonly out?: string;
  readonly threads?: number;
}

export function addEval(program: Command): void {
  const command = program
    .command('eval')
    .description('accuracy on held-out problems: greedy pass@1, or pass@k and maj@k of several samples')
    .requiredOption('--model <path>', 'folder or GGUF file of the model')
    .option('--template <name>', "prompt template; default: the task's")
    .addOption(splitOption('heldout'))
    .option('--problems <n>', 'different problems', whole(1, MAX_PROBLEMS), 500)
    .option('--samples <k>', 'samples of each problem', whole(1), 1)
    .option(
      '--temperature <t>',
      'sampling temperature; default: 0 (greedy) for one sample, 1 for several',
      number(0, 100),
    )
    .option(
      '--max-tokens <n>',
      "most tokens of a completion; default: what the model's context leaves",
      whole(1),
    )
    .option('--out <file>', 'write every completion with its rewards to this JSONL file')
    .action(run);
  addTask(command);
  addSampling(command);
  addSeed(command, 'problems and sampling');
  addThreads(command);
}

async function run(o: EvalFlags): Promise<void> {
  const temperature = o.temperature ?? (o.samples === 1 ? 0 : 1);
  if (temperature === 0 && o.samples > 1) {
    throw refuse(
      'bad-input',
      'samples at temperature 0',
      o.samples,
      'they would all be the same: give a temperature',
    );
  }
  if (o.out) checkFile(o.out);
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
    const { signal } = stopSignal;
    say(`${task.name}: ${problems} ${split} problems, ${samples} sample${samples > 1 ? 's' : ''} each`);
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
      signal,
      onProgress: (p) => progress.update(p.finished, p.total, `${p.tokens} tokens`),
    });
    progress.end();
    if (o.out) writeCompletions(o.out, e);
    const result = {
      problems: e.problems,
      samples,
      temperature,
      pass1: e.pass1.value,
      ci95: e.pass1.interval,
      passAtK: byName(e.passAtK),
      majAtK: byName(e.majAtK),
      meanReward: e.meanReward,
      meanLength: e.meanLength,
      truncated: e.truncated,
      failed: e.failed,
      tokens: e.tokens,
      measures: e.measures,
      byKind: byName(e.byKind),
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
      for (const [kind, { value, interval }] of e.byKind)
        lines.push(`${kind}: ${percentWithInterval(value, interval)}`);
      return lines.join('\n');
    });
  } finally {
    progress.end();
    await scorer.close();
    await device.close();
  }
}

/** Refuses, before the work, a file that cannot be written after it. */
function checkFile(path: string): void {
  let problem: string | null = null;
  try {
    accessSync(dirname(path), constants.W_OK);
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) problem = 'it is a folder, not a file';
  } catch (error) {
    problem = fileProblem(error);
  }
  if (problem === null) return;
  const remedy = `${problem}: name a file in a folder that is there`;
  throw refuse('bad-input', 'file for the completions', path, remedy);
}

/** One line a completion, as `retort score` reads them. */
function writeCompletions(path: string, { completions }: Evaluation): void {
  const lines = completions.flat().map(({ problem, prompt, completion, scored }) => {
    const { rewards, reward, correct } = scored;
    const { text, ids } = completion;
    return JSON.stringify({
      problem,
      prompt,
      completion: text,
      tokens: ids.length,
      rewards,
      reward,
      correct,
    });
  });
  writeFileAtomically(path, lines.map((line) => `${line}\n`).join(''));
}

function byName(
  estimates: ReadonlyMap<number | string, Estimate>,
): Record<string, { value: number; ci95: readonly [number, number] }> {
  return Object.fromEntries([...estimates].map(([k, { value, interval }]) => [k, { value, ci95: interval }]));
}
