// retort score: rewards for completions that stand in a file.
import type { Command } from 'commander';
import { z } from 'zod';
import { readJsonl } from '../checkpoint/jsonl.js';
import { RetortError } from '../errors.js';
import { findReward, rewardNames } from '../reward/load.js';
import { openScorer, type ScoreItem } from '../reward/score.js';
import { loadTask } from '../task/load.js';
import { optionsFromWords } from '../task/options.js';
import type { Task } from '../task/task.js';
import { addTask, repeatable, weightsFromWords, whole } from './flags.js';
import { percent, say } from './terminal.js';

const REMEDY = 'each line is {"problem": {...}, "completion": "..."}';
const line = z.looseObject({ problem: z.unknown(), completion: z.string(), tokens: z.number().optional() });
/** Lines scored at a time. */
const BATCH = 256;

interface ScoreFlags {
  readonly task: string;
  readonly file: string;
  readonly taskOption?: string[];
  readonly rewards?: string[];
  readonly rewardWeight?: string[];
  readonly maxCompletionLength: number;
}

export function addScore(program: Command): void {
  const command = program
    .command('score')
    .description('score completions of a JSONL file; the lines come back with their rewards')
    .requiredOption('--file <path>', 'JSONL: lines of {"problem": {...}, "completion": "..."}')
    .option('--max-completion-length <n>', 'what the reward soft-overlong measures with', whole(1), 256)
    .action(score);
  addTask(command);
  repeatable(command, '--rewards <reward>', `a further reward: ${rewardNames().join(', ')}, or a module`);
  repeatable(command, '--reward-weight <name=value>', 'weight of a reward in the sum');
}

async function score(o: ScoreFlags): Promise<void> {
  const task = await loadTask(o.task, optionsFromWords(o.taskOption ?? []));
  const setting = { maxTokens: o.maxCompletionLength, task };
  const rewards = await Promise.all((o.rewards ?? []).map((word) => findReward(word, setting)));
  const scorer = await openScorer({
    task,
    rewards,
    rewardWeights: weightsFromWords(o.rewardWeight ?? []),
    onFailure: ({ name, kind, message }) => say(`reward ${name} ${kind}: ${message}`),
  });
  let lines = 0;
  let right = 0;
  let sum = 0;
  const flush = async (batch: { value: object; item: ScoreItem }[]) => {
    const scores = await scorer.scoreAll(batch.map((b) => b.item));
    scores.forEach(({ rewards: byName, reward, correct, failed }, i) => {
      lines++;
      sum += reward;
      if (correct) right++;
      // A line of completions.jsonl has results already; they are replaced.
      const results = { rewards: byName, reward, correct, failed: failed.length > 0 ? failed : undefined };
      process.stdout.write(`${JSON.stringify({ ...batch[i].value, ...results })}\n`);
    });
  };
  try {
    // All lines are read before any is scored: a broken one is refused before anything is printed.
    const entries = [...readJsonl(o.file, { code: 'bad-data', remedy: REMEDY })];
    const items = entries.map((entry) => readItem(task, o.file, entry));
    for (let at = 0; at < items.length; at += BATCH) await flush(items.slice(at, at + BATCH));
  } finally {
    await scorer.close();
  }
  const mean = lines > 0 ? (sum / lines).toFixed(4) : 'none';
  say(
    `${lines} completions, ${right} right${lines > 0 ? ` (${percent(right / lines)})` : ''}, mean reward ${mean}`,
  );
}

function readItem(
  task: Task,
  file: string,
  { number, value }: { number: number; value: unknown },
): { value: object; item: ScoreItem } {
  const parsed = line.safeParse(value);
  if (!parsed.success) {
    throw new RetortError(
      'bad-data',
      `${file}:${number}: ${parsed.error.issues[0].path.join('.') || 'line'}: ${parsed.error.issues[0].message}; ${REMEDY}`,
    );
  }
  const { completion, tokens } = parsed.data;
  try {
    return {
      value: parsed.data,
      item: { problem: task.parseProblem(parsed.data.problem), completion, tokenCount: tokens },
    };
  } catch (error) {
    if (error instanceof RetortError)
      throw new RetortError(error.code, `${file}:${number}: ${error.message}; mend or remove the line`, {
        cause: error,
      });
    throw error;
  }
}
