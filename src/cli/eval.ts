// retort eval: accuracy on held-out problems, with intervals; by the tokens that are spent on thinking and on votes.
import { accessSync, constants, statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import { writeFileAtomically } from '../checkpoint/atomic.js';
import { fileProblem } from '../checkpoint/files.js';
import { contextOf } from '../checkpoint/open-model.js';
import { createDevice } from '../compute/device/device.js';
import { refuse } from '../errors.js';
import { findReward, rewardNames } from '../reward/load.js';
import { openScorer } from '../reward/score.js';
import { loadTask } from '../task/load.js';
import { optionsFromWords } from '../task/options.js';
import { getTemplate } from '../text/template.js';
import { evaluate, limitsFor, MAX_PROBLEMS, meanLogprob } from '../train/evaluate.js';
import { loadPolicy } from '../train/policy.js';
import type { Sample } from '../train/scoring.js';
import { type Measured, nameOf, oneText, plotOf, resultOf, type Setting, settingsText } from './eval-text.js';
import {
  addDtypes,
  addSampling,
  addSeed,
  addTask,
  addThreads,
  type DtypeFlags,
  modelDtype,
  number,
  splitOption,
  whole,
} from './flags.js';
import { openProgress } from './progress.js';
import { stopSignal } from './stop.js';
import { type CommonOptions, printResult, say } from './terminal.js';

interface EvalFlags extends CommonOptions, DtypeFlags {
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
  readonly bestOf?: string;
  readonly thinkingBudget?: (number | null)[];
  readonly close: string;
  readonly minThinking?: number[];
  readonly wait: string;
  readonly plot?: string;
  readonly seed: number;
  readonly out?: string;
  readonly threads?: number;
}

/** The rating that needs no reward. */
const LOGPROB = 'logprob';

export function addEval(program: Command): void {
  const command = program
    .command('eval')
    .description(
      'accuracy on held-out problems: greedy pass@1, or pass@k, maj@k and best@k of several samples; by thinking budget',
    )
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
    .option(
      '--best-of <scorer>',
      `take the best of k samples by a reward (${rewardNames().join(', ')}, or a module), or by ${LOGPROB}, the model's own mean log-probability`,
    )
    .option(
      '--thinking-budget <n,...>',
      'close the thought after n tokens and go on with the answer; several are measured one after another, none is no limit',
      budgets,
    )
    .option('--close <text>', 'what is written where the budget is spent', '</think><answer>')
    .option('--min-thinking <n,...>', 'do not let a thought stop before n tokens', leastThoughts)
    .option(
      '--wait <text>',
      'what is written where a thought would stop too early; empty: the stop is only forbidden',
      'Wait',
    )
    .option('--plot <file>', 'draw accuracy against tokens into this SVG file')
    .option('--out <file>', 'write every completion with its rewards to this JSONL file')
    .action(run);
  addTask(command);
  addSampling(command);
  addSeed(command, 'problems and sampling');
  addDtypes(command);
  addThreads(command);
}

function budgets(word: string): (number | null)[] {
  return word.split(',').map((part) => (part.trim() === 'none' ? null : whole(0)(part)));
}

function leastThoughts(word: string): number[] {
  return word.split(',').map((part) => whole(0)(part));
}

/** What is measured one after another; one setting without limits where no flag asks for more. */
function settingsOf(o: EvalFlags): Setting[] {
  const { close, wait } = o;
  if (!o.thinkingBudget && !o.minThinking) return [{ thinking: null }];
  return (o.minThinking ?? [0]).flatMap((least) =>
    (o.thinkingBudget ?? [null]).map((budget) => ({ thinking: { budget, close, least, wait } })),
  );
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
  if (o.bestOf && o.samples === 1)
    throw refuse(
      'bad-input',
      '--best-of with samples',
      1,
      'there is nothing to choose: give --samples 4, say',
    );
  if (o.out) checkFile(o.out, 'file for the completions');
  if (o.plot) checkFile(o.plot, 'file for the plot');
  const settings = settingsOf(o);
  const task = await loadTask(o.task, optionsFromWords(o.taskOption ?? []));
  const maxTokens = o.maxTokens ?? contextOf(o.model);
  const reward = o.bestOf && o.bestOf !== LOGPROB ? await findReward(o.bestOf, { maxTokens, task }, 0) : null;
  const device = createDevice({ threads: o.threads });
  const scorer = await openScorer({
    task,
    rewards: reward ? [reward] : [],
    // It chooses among completions; what is trained on is not its business.
    rewardWeights: reward ? { [reward.name]: 0 } : {},
    signal: stopSignal.signal,
    onFailure: ({ name, kind, message }) => say(`reward ${name} ${kind}: ${message}`),
  });
  const rate = !o.bestOf ? undefined : reward ? ratingOf(reward.name) : meanLogprob;
  try {
    const policy = loadPolicy(o.model, device, { trainable: false, dtype: modelDtype(o) });
    const template = getTemplate(o.template ?? task.template, policy.tokenizer);
    const { topK, topP, minP, split, problems, samples, seed } = o;
    const { signal } = stopSignal;
    const each = `${samples} sample${samples > 1 ? 's' : ''} each`;
    say(`${task.name}: ${problems} ${split} problems, ${each}`);
    // All of them, before the first is measured.
    for (const { thinking } of settings) if (thinking) limitsFor(policy, template, thinking);
    const measured: Measured[] = [];
    for (const setting of settings) {
      const progress = openProgress(settings.length > 1 ? `eval ${nameOf(setting)}` : 'eval', 'completions');
      try {
        const evaluation = await evaluate(policy, {
          ...{
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
            maxTokens,
            seed,
          },
          ...{ rate, signal, thinking: setting.thinking ?? undefined },
          engine: { kvCacheDtype: o.kvCacheDtype },
          onProgress: (p) => progress.update(p.finished, p.total, `${p.tokens} tokens`),
        });
        measured.push({ ...setting, evaluation });
      } finally {
        progress.end();
      }
    }
    if (o.out) writeCompletions(o.out, measured);
    const title = `${task.name}, ${problems} ${split} problems, ${each}, temperature ${temperature}`;
    if (o.plot) {
      const { plotSvg } = await import('../publish/plot-svg.js');
      writeFileAtomically(o.plot, plotSvg(plotOf(measured, title)));
    }
    printResult(o, resultOf(measured, { samples, temperature }), () => {
      const text = measured.length > 1 ? settingsText(measured, title) : oneText(measured[0], title);
      return o.plot ? `${text}\nplot: ${o.plot}` : text;
    });
  } finally {
    await scorer.close();
    await device.close();
  }
}

/** The value that a reward gave; a completion on which it failed is not chosen. */
function ratingOf(name: string): (one: Sample) => number {
  return ({ scored }) => (scored.failed.includes(name) ? Number.NaN : scored.rewards[name]);
}

/** Refuses, before the work, a file that cannot be written after it. */
function checkFile(path: string, what: string): void {
  let problem: string | null = null;
  try {
    accessSync(dirname(path), constants.W_OK);
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) problem = 'it is a folder, not a file';
  } catch (error) {
    problem = fileProblem(error);
  }
  if (problem === null) return;
  const remedy = `${problem}: name a file in a folder that is there`;
  throw refuse('bad-input', what, path, remedy);
}

/** One line a completion, as `retort score` reads them. */
function writeCompletions(path: string, measured: readonly Measured[]): void {
  const lines = measured.flatMap(({ thinking, evaluation }) =>
    evaluation.completions.flat().map(({ problem, prompt, completion, scored }) => {
      const { rewards, reward, correct } = scored;
      const { text, ids } = completion;
      return JSON.stringify({
        ...(thinking ? { thinkingBudget: thinking.budget, minThinking: thinking.least } : {}),
        problem,
        prompt,
        completion: text,
        tokens: ids.length,
        rewards,
        reward,
        correct,
      });
    }),
  );
  writeFileAtomically(path, lines.map((line) => `${line}\n`).join(''));
}
