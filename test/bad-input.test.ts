// What users get wrong, through the command line: status 2, a message that names what, where and the remedy, no stack.
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { COUNTDOWN_BASE, retort, temporaryFolder } from './support/cli.js';

interface Case {
  readonly what: string;
  readonly args: (cwd: string) => string;
  readonly says: readonly RegExp[];
  /** A folder that must not be left behind. */
  readonly without?: string;
}

const GRPO = 'grpo --model base --task countdown --steps 1 --no-eval-ends';
const SFT = 'sft --task countdown --steps 1';
const PPO = 'ppo --model base --task countdown --steps 1 --no-eval-ends';

const cases: readonly Case[] = [
  { what: 'unknown verb', args: () => 'evla', says: [/unknown command 'evla'/, /mean eval/] },
  { what: 'unknown option', args: () => `${SFT} --stepz 3`, says: [/unknown option '--stepz'/, /--steps/] },
  { what: 'missing option', args: () => 'grpo --model base', says: [/--task/] },
  { what: 'option of a kind', args: () => `${GRPO} --loss-type gspo`, says: [/'gspo'/, /dr_grpo/] },
  { what: 'kl estimator', args: () => `${PPO} --kl-estimator k2`, says: [/'k2'/, /k1, k3/] },
  {
    what: 'critic that learns for longer than the run',
    args: () => `${PPO} --critic-warmup-steps 1 --out run`,
    says: [/criticWarmupSteps of 1 steps/, /got 1/, /give less/],
    without: 'run',
  },
  {
    what: 'critic that is not there',
    args: () => `${PPO} --critic-model nowhere --out run`,
    says: [/nowhere.config\.json/, /no such file/],
    without: 'run',
  },
  {
    what: 'no number',
    args: () => 'generate --model base --seed x',
    says: [/--seed/, /'x'/, /whole number/],
  },
  { what: 'no threads', args: () => `${GRPO} --threads 0`, says: [/threads/, /got 0/, /1/] },
  {
    what: 'model folder that is not there',
    args: () => 'generate --model nowhere',
    says: [/nowhere.config\.json/, /no such file/, /model\.safetensors/],
  },
  {
    what: 'model folder without weights',
    args: broken((dir) => rmSync(join(dir, 'model.safetensors')), `${GRPO} --out run`),
    says: [/broken.model\.safetensors/, /no such file/, /name a safetensors file/],
    without: 'run',
  },
  {
    what: 'model folder without tokenizer',
    args: broken((dir) => rmSync(join(dir, 'tokenizer.json'))),
    says: [/broken.tokenizer\.json/, /no such file/, /name a model folder/],
  },
  {
    what: 'truncated weights',
    args: broken((dir) => truncateSync(join(dir, 'model.safetensors'), 100_000)),
    says: [/broken.model\.safetensors/, /outside the file/, /copy it again/],
  },
  {
    what: 'header that points outside the file',
    args: broken((dir) =>
      editHeader(dir, (header) => {
        header['model.norm.weight'].data_offsets = [0, 2 ** 40];
      }),
    ),
    says: [/broken.model\.safetensors/, /model\.norm\.weight/],
  },
  {
    what: 'header that is no JSON',
    args: broken((dir) => writeFileSync(join(dir, 'model.safetensors'), Buffer.alloc(64, 7))),
    says: [/broken.model\.safetensors/, /header/],
  },
  {
    what: 'tensor of a wrong shape',
    args: broken((dir) => editJson(join(dir, 'config.json'), (c) => ({ ...c, intermediate_size: 96 }))),
    says: [/shape of tensor model\.layers\.0\.mlp/, /broken.model\.safetensors/, /config\.json/],
  },
  {
    what: 'NaN weights',
    args: broken((dir) => {
      const path = join(dir, 'model.safetensors');
      const bytes = readFileSync(path);
      bytes.writeFloatLE(Number.NaN, bytes.length - 4);
      writeFileSync(path, bytes);
    }),
    says: [/broken.model\.safetensors/, /NaN/],
  },
  {
    what: 'vocabulary that does not fit',
    args: broken((dir) =>
      editJson(join(dir, 'tokenizer.json'), (t) => {
        const last = t.added_tokens.length + Object.keys(t.model.vocab).length;
        t.added_tokens.push({ ...t.added_tokens[0], id: last, content: '<more>' });
        return t;
      }),
    ),
    says: [/vocab/i, /tokenizer/],
  },
  { what: 'unknown task', args: () => 'task countdwon', says: [/unknown task/, /did you mean countdown/] },
  {
    what: 'task module that is not there',
    args: () => 'task ./mine.js',
    says: [/module not found/, /mine\.js/],
  },
  {
    what: 'unknown option of a task',
    args: () => 'task countdown --task-option cuont=4',
    says: [/unknown option of task countdown/, /did you mean count/],
  },
  {
    what: 'task whose characters the model cannot spell',
    args: () => 'grpo --model base --task countdown --task-option wording=words --steps 1 --out run',
    says: [/character/, /U/],
    without: 'run',
  },
  {
    what: 'malformed JSONL',
    args: (cwd) => {
      writeFileSync(join(cwd, 'data.jsonl'), '{"prompt":"1","completion":"2"}\n{"prompt":"1"\n');
      return 'sft --model base --data data.jsonl --out run';
    },
    says: [/data\.jsonl:2: the line is not JSON/],
    without: 'run',
  },
  {
    what: 'JSONL without the fields',
    args: (cwd) => {
      writeFileSync(join(cwd, 'data.jsonl'), '{"prompt":"1","completion":"2"}\n\n{"prompt":"1"}\n');
      return 'sft --model base --data data.jsonl --out run';
    },
    says: [/data\.jsonl:3/, /completion/],
    without: 'run',
  },
  {
    what: 'malformed JSONL to score',
    args: (cwd) => {
      const line = JSON.stringify({ problem: { numbers: [1, 2], target: 3 }, completion: '' });
      writeFileSync(
        join(cwd, 'scores.jsonl'),
        `${line}\n{"problem":{"numbers":[1,"2"],"target":3},"completion":""}\n`,
      );
      return 'score --task countdown --file scores.jsonl';
    },
    says: [/scores\.jsonl:2/, /numbers/],
  },
  {
    what: 'example longer than the context',
    args: (cwd) => {
      writeFileSync(join(cwd, 'long.jsonl'), `{"prompt":"1","completion":"${'2'.repeat(500)}"}\n`);
      return 'sft --model base --data long.jsonl --out run';
    },
    says: [/long\.jsonl:1: tokens of an example: got 502/, /context/],
    without: 'run',
  },
  {
    what: 'held-out example longer than the context',
    args: (cwd) => {
      writeFileSync(join(cwd, 'short.jsonl'), '{"prompt":"1","completion":"2"}\n');
      return 'sft --model base --data short.jsonl --eval-data long.jsonl --out run';
    },
    says: [/long\.jsonl:1: tokens of an example: got 502/, /context/],
    without: 'run',
  },
  {
    what: 'traces of a task longer than the context',
    args: () => `${SFT} --context 20 --out run`,
    says: [/tokens of train example 0 of task countdown/, /context is 20/],
    without: 'run',
  },
  {
    what: 'prompt longer than the context',
    args: () => `generate --model base --prompt ${'1'.repeat(600)}`,
    says: [/tokens of the prompt: got 600/, /context/],
  },
  {
    what: 'prompts of a task longer than the context',
    args: () =>
      'grpo --model base --task number-sort --task-option minCount=50 --task-option maxCount=50 --task-option maxNumber=999999 --steps 1 --max-completion-length 8 --out run',
    says: [/tokens of train prompt 0 of task number-sort/, /longer context/],
    without: 'run',
  },
  {
    what: 'completions longer than the context',
    args: () => `${GRPO} --max-completion-length 4000 --out run`,
    says: [/maxCompletionLength: got 4000/, /context/, /give less/],
  },
  {
    what: 'group of one',
    args: () => `${GRPO} --num-generations 1`,
    says: [/numGenerations/, /got 1/, /at least 2/],
  },
  {
    what: 'batch that does not divide',
    args: () => 'grpo --model nowhere --task countdown --batch-size 30 --num-generations 8',
    says: [/batchSize with numGenerations 8: got 30/, /multiple: 32/],
  },
  {
    what: 'minibatches that do not divide',
    args: () => `${GRPO} --batch-size 32 --minibatches 3`,
    says: [/minibatches of 4 groups: got 3/],
  },
  {
    what: 'learning rate 0',
    args: () => `${GRPO} --learning-rate 0`,
    says: [/learningRate/, /got 0/, /above 0/],
  },
  {
    what: 'negative learning rate',
    args: () => `${SFT} --learning-rate -1`,
    says: [/learningRate/, /got -1/, /above 0/],
  },
  {
    what: 'output folder with another run',
    args: () => `${GRPO} --out old-run`,
    says: [/output folder: got "old-run"/, /another run/, /resume/],
  },
  {
    what: 'output folder with other files',
    args: () => `${SFT} --out base`,
    says: [/output folder: got "base"/, /holds other files/, /new or empty folder/],
  },
  {
    what: 'folder to save to with other files',
    args: () => `${SFT} --save base --out run`,
    says: [/save the model to: got "base"/, /new or empty folder/],
    without: 'run',
  },
  {
    what: 'folder to save to that will hold the run',
    args: () => `${SFT} --save run --out run`,
    says: [/save the model to: got "run"/, /--out/],
    without: 'run',
  },
  {
    what: 'file for a folder to save to',
    args: () => `${GRPO} --save base/config.json --out run`,
    says: [/save the model to: got "base\/config\.json"/, /a file, not a folder/],
    without: 'run',
  },
  {
    what: 'completions to a folder that is not there',
    args: () => 'eval --model base --task countdown --out nowhere/all.jsonl',
    says: [/completions: got "nowhere\/all\.jsonl"/, /no such file or folder/, /folder that is there/],
  },
  {
    what: 'completions to a folder',
    args: () => 'eval --model base --task countdown --out base',
    says: [/completions: got "base"/, /it is a folder/],
  },
  {
    what: 'sizes of a new model and a model',
    args: () => `${SFT} --model base --d-model 32 --out run`,
    says: [/option dModel of sft with a model: got 32/, /one of the two/],
    without: 'run',
  },
  { what: 'resume of no run', args: () => 'resume base', says: [/base/, /run/] },
  { what: 'resume of nothing', args: () => 'resume nowhere', says: [/nowhere/, /no such file/] },
  {
    what: 'a run instead of a model',
    args: () => 'generate --model old-run',
    says: [/old-run/, /checkpoints/],
  },
  {
    what: 'reward module that exports none',
    args: (cwd) => {
      writeFileSync(join(cwd, 'empty.mjs'), 'export const other = 1, more = 2;\n');
      return `${GRPO} --rewards ./empty.mjs`;
    },
    says: [/empty\.mjs/, /reward/],
  },
  {
    what: 'unknown reward',
    args: () => `${GRPO} --rewards think-fromat`,
    says: [/unknown reward/, /think-format/],
  },
  {
    what: 'weight of an unknown reward',
    args: () => `${GRPO} --rewards think-format --reward-weight anwser=2 --out run`,
    says: [/weight of an unknown reward: got "anwser"/, /the rewards are answer, think-format/],
    without: 'run',
  },
  {
    what: 'several samples that would be the same',
    args: () => 'eval --model base --task countdown --samples 4 --temperature 0',
    says: [/samples at temperature 0: got 4/],
  },
  {
    what: 'a wait that the vocabulary cannot spell',
    args: () => 'eval --model base --task countdown --min-thinking 20',
    says: [/text in place of a stop, "Wait"/, /character: got "W"/],
  },
  {
    what: 'a plot into a folder that is not there',
    args: () => 'eval --model base --task countdown --plot nowhere/plot.svg',
    says: [/file for the plot: got "nowhere\/plot.svg"/],
  },
  {
    what: 'the best of one sample',
    args: () => 'eval --model base --task countdown --best-of logprob',
    says: [/--best-of with samples: got 1; .*--samples 4/],
  },
  {
    what: 'samples that would be the same, to learn from',
    args: () => 'sample --model base --task countdown --temperature 0 --out run',
    says: [/samples at temperature 0: got 8/],
    without: 'run',
  },
  {
    what: 'more problems than the split has',
    args: () => 'eval --model base --task multiply --task-option digits=1 --problems 1000',
    says: [/different heldout problems of task multiply: got 1000/, /ask for fewer/],
  },
  {
    what: 'more problems within a run than the split has',
    args: () =>
      'grpo --model base --task multiply --task-option digits=1 --no-eval-ends --eval-every 50 --eval-problems 1000 --out run',
    says: [/different heldout problems of task multiply: got 1000/, /ask for fewer/],
    without: 'run',
  },
];

/** A copy of the model that `spoil` breaks, and a command that reads it. */
function broken(spoil: (dir: string) => void, command = GRPO): Case['args'] {
  return (cwd) => {
    const dir = join(cwd, 'broken');
    rmSync(dir, { recursive: true, force: true });
    cpSync(join(cwd, 'base'), dir, { recursive: true });
    spoil(dir);
    return command.replace('--model base', '--model broken');
  };
}

// biome-ignore lint/suspicious/noExplicitAny: whatever JSON a file holds
type Json = any;

function editJson(path: string, edit: (json: Json) => Json): void {
  writeFileSync(path, JSON.stringify(edit(JSON.parse(readFileSync(path, 'utf8')))));
}

function editHeader(dir: string, edit: (header: Json) => void): void {
  const path = join(dir, 'model.safetensors');
  const bytes = readFileSync(path);
  const size = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + size).toString('utf8'));
  edit(header);
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([length, text, bytes.subarray(8 + size)]));
}

test('bad input', { concurrency: 1 }, async (t) => {
  const cwd = temporaryFolder(t);
  before(async () => {
    cpSync(COUNTDOWN_BASE, join(cwd, 'base'), { recursive: true });
    mkdirSync(join(cwd, 'old-run'));
    const made = await retort(
      'sft --task number-sort --steps 1 --d-model 8 --layers 1 --heads 2 --out old-run'.split(' '),
      { cwd },
    );
    assert.equal(made.status, 0, made.stderr);
  });
  for (const { what, args, says, without } of cases) {
    await t.test(what, async () => {
      const command = args(cwd);
      const { status, stdout, stderr } = await retort(command.split(' '), { cwd });
      assert.equal(status, 2, `${command}\n${stderr}`);
      assert.equal(stdout, '');
      assert.match(stderr, /^retort: /m);
      assert.doesNotMatch(stderr, /^\s+at /m, 'a stack');
      for (const pattern of says) assert.match(stderr, pattern);
      if (without) assert.throws(() => readFileSync(join(cwd, without, 'config.json')), { code: 'ENOENT' });
    });
  }
  await t.test('with --debug, the stack', async () => {
    const { status, stderr } = await retort(['generate', '--model', 'nowhere', '--debug'], { cwd });
    assert.equal(status, 2);
    assert.match(stderr, /^\s+at .*\.js:\d+/m);
  });
});
