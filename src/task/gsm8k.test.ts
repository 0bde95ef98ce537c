// GSM8K: which number of a completion counts, and files that are missing or malformed.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { RetortError } from '../errors.js';
import { gsm8k } from './gsm8k.js';
import type { Score } from './task.js';

const line = (question: string, answer: string) => `${JSON.stringify({ question, answer })}\n`;

function withFiles(train: string, heldout: string, run: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'retort-gsm8k-'));
  try {
    writeFileSync(join(folder, 'train.jsonl'), train);
    writeFileSync(join(folder, 'test.jsonl'), heldout);
    run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const good = [
  line('What is 1+1?', '1+1=<<1+1=2>>2\n#### 2'),
  line('Price?', 'It is $1,234.\n#### 1,234'),
] as const;

test('the last number of the answer counts, in tags, a box or behind ####', () => {
  withFiles(good[0], good[1], (path) => {
    const task = gsm8k({ path });
    const problem = task.problem('heldout', 0, 0);
    const reward = (completion: string) => (task.score(problem, completion) as Score).rewards.answer;
    for (const right of [
      '<answer>1,234</answer>',
      '<answer>$1234.00</answer>',
      '<answer>2 + 1232 = 1,234 dollars.</answer>',
      '<answer>\\boxed{1{,}234}</answer>',
      'so the price is \\boxed{1234 \\text{ dollars}}, and not 7',
      'working\n#### 1234\n7 more words',
    ]) {
      assert.equal(reward(right), 1, right);
      assert.equal(task.answerKey(problem, right), '1234');
    }
    for (const wrong of ['<answer>-1234</answer>', '<answer>1.234</answer>', '<answer>1234 or 5</answer>']) {
      assert.equal(reward(wrong), 0.1, wrong);
    }
    assert.equal(reward('The answer is 1234'), 0);
    assert.equal(task.answerKey(problem, 'The answer is 1234'), null);
    assert.equal(task.trace?.(task.problem('train', 0, 0), 0), '<think>1+1=2</think><answer>2</answer>');
  });
});

test('missing data and malformed lines are refused with file, line and remedy', () => {
  const refusal =
    (code: string, ...parts: RegExp[]) =>
    (e: unknown) =>
      e instanceof RetortError && e.code === code && parts.every((part) => part.test(e.message));
  assert.throws(() => gsm8k(), refusal('bad-input', /path/, /grade-school-math/));
  assert.throws(
    () => gsm8k({ path: '/nowhere' }),
    refusal('bad-input', /nowhere.*train\.jsonl/, /grade-school-math/),
  );
  withFiles(`${good[0]}\n{"question": "broken`, good[1], (path) => {
    assert.throws(() => gsm8k({ path }), refusal('bad-data', /train\.jsonl, line 3/, /not JSON/));
  });
  withFiles(good[0], `${good[1]}{"question": "q", "answer": "no marker"}\n`, (path) => {
    assert.throws(() => gsm8k({ path }), refusal('bad-data', /test\.jsonl, line 2/, /####/));
  });
  withFiles(good[0], good[0], (path) => {
    assert.throws(() => gsm8k({ path }), refusal('bad-input', /heldout\[0\].*also in train/));
  });
  withFiles('', good[1], (path) => {
    assert.throws(() => gsm8k({ path }), refusal('bad-input', /problems\.train/));
  });
});
