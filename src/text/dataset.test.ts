// Data sets: prompts and completions, conversations, documents, and lines that are wrong.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { sentencePieceLike } from '../../test/support/tokenizers.js';
import { RetortError } from '../errors.js';
import { buildCharTokenizer } from './char-tokenizer.js';
import { encodePair, loadExamples, readDocuments, readExamples } from './dataset.js';
import { getTemplate } from './template.js';
import { createTokenizer } from './tokenizer.js';

const scratch = mkdtempSync(join(tmpdir(), 'retort-dataset-'));
after(() => rmSync(scratch, { recursive: true, force: true }));
const path = join(scratch, 'x.jsonl');
const characters = `${Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).join('')}\n`;
const plain = buildCharTokenizer({ characters });
const chatTemplate =
  "{% for m in messages %}{{ '[' + m.role + ']' + m.content + eos_token + '\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}";
const chat = createTokenizer(
  {
    ...plain.files,
    'tokenizer_config.json': JSON.stringify({
      ...JSON.parse(plain.files['tokenizer_config.json']!),
      chat_template: chatTemplate,
    }),
  },
  { source: 'test' },
);

function write(...lines: unknown[]): void {
  writeFileSync(
    path,
    lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n'),
  );
}

const texts = (examples: ReturnType<typeof loadExamples>) =>
  examples.map(({ promptIds, completionIds }) => [plain.decode(promptIds), plain.decode(completionIds)]);

test('prompts and completions, with and without a template', () => {
  write({ prompt: '1+1=?', completion: '<think>2</think>', id: 7 }, '', { prompt: 'a', completion: 'b' });
  assert.deepEqual(texts(loadExamples(path, plain)), [
    ['1+1=?', '<think>2</think><|endoftext|>'],
    ['a', 'b<|endoftext|>'],
  ]);
  assert.deepEqual(texts(loadExamples(path, plain, { template: getTemplate('terse') })), [
    ['1+1=?<think>', '2</think><|endoftext|>'],
    ['a<think>', 'b<|endoftext|>'],
  ]);
});

test('each assistant turn of a conversation is a completion', () => {
  const messages = [
    { role: 'user', content: 'hi' },
    { role: 'assistant', content: 'yes?' },
    { role: 'user', content: '1+1' },
    { role: 'assistant', content: '2' },
  ];
  write({ messages }, { prompt: messages.slice(0, 3), completion: messages.slice(3) });
  const first = ['[user]hi<|endoftext|>\n[assistant]', 'yes?<|endoftext|>\n'];
  const second = [
    '[user]hi<|endoftext|>\n[assistant]yes?<|endoftext|>\n[user]1+1<|endoftext|>\n[assistant]',
    '2<|endoftext|>\n',
  ];
  assert.deepEqual(texts(loadExamples(path, chat)), [first, second, second]);
});

test('a wrong line is named with its number and the remedy', () => {
  const good = { prompt: 'a', completion: 'b' };
  const user = { role: 'user', content: 'x' };
  const cases: Array<[unknown, RegExp]> = [
    ['{"prompt": "a", ', /x\.jsonl:3: the line is not JSON .*each line is/],
    ['[1]', /x\.jsonl:3: a line without "messages" needs "prompt" and "completion"; each line is/],
    ['7', /x\.jsonl:3: a line without/],
    [{ prompt: 'a' }, /x\.jsonl:3: a line without/],
    [{ prompt: 'a', completion: 1 }, /x\.jsonl:3: field completion: .*string/],
    [{ prompt: 'a', completion: '' }, /x\.jsonl:3: field completion: it is empty/],
    [{ prompt: 'é', completion: 'b' }, /x\.jsonl:3: the vocabulary has no token for a character: got "é"/],
    [{ messages: [] }, /x\.jsonl:3: field messages/],
    [{ messages: [{ role: 'user' }] }, /x\.jsonl:3: field messages\.0\.content/],
    [{ messages: [user] }, /x\.jsonl:3: the conversation has no assistant turn/],
    [{ prompt: [user], completion: 'b' }, /x\.jsonl:3: field completion/],
  ];
  for (const [line, message] of cases) {
    write(good, good, line, good);
    assert.throws(
      () => loadExamples(path, chat),
      (error: unknown) =>
        error instanceof RetortError && error.code === 'bad-data' && message.test(error.message),
      JSON.stringify(line),
    );
  }
  write({ messages: [user, { role: 'assistant', content: 'y' }] });
  assert.throws(() => loadExamples(path, plain), /x\.jsonl:1: the tokenizer has no chat template/);
  write('');
  assert.throws(() => loadExamples(path, plain), /x\.jsonl holds no example/);
  assert.throws(() => loadExamples(join(scratch, 'no.jsonl'), plain), /no\.jsonl: there is no such file/);
});

test('lines are read as they are asked for', () => {
  write({ prompt: 'a', completion: 'b' }, 'broken');
  const reader = readExamples(path, plain);
  assert.equal(reader.next().done, false);
  assert.throws(() => reader.next(), /x\.jsonl:2/);
});

test('a chat template that rewrites what stands before an answer is refused', () => {
  const template = '{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}';
  const config = { ...JSON.parse(plain.files['tokenizer_config.json']!), chat_template: template };
  const tokenizer = createTokenizer(
    { ...plain.files, 'tokenizer_config.json': JSON.stringify(config) },
    { source: 't' },
  );
  write({
    messages: [
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'b' },
    ],
  });
  assert.throws(() => loadExamples(path, tokenizer), /x\.jsonl:1: turn 2: the chat template changes/);
});

test('with merges, the completion goes on from the ids of the prompt alone', () => {
  const merged = createTokenizer(sentencePieceLike(), { source: 'test' });
  const example = encodePair(merged, 'once upon', ' a time');
  assert.deepEqual(example.promptIds, merged.encode('once upon', { addSpecialTokens: true }));
  assert.equal(merged.decode([...example.promptIds, ...example.completionIds]), '<s> once upon a time</s>');
  assert.throws(() => encodePair(merged, 'once upon a ti', 'me'), /join inside a token, near "pon a time"/);
});

test('documents for pretraining', () => {
  const documents = (file: string, text: string) => {
    writeFileSync(join(scratch, file), text);
    return [...readDocuments(join(scratch, file), plain)].map((ids) => plain.decode(ids));
  };
  const end = '<|endoftext|>';
  assert.deepEqual(documents('a.txt', 'one\ntwo'), [`one\ntwo${end}`]);
  assert.deepEqual(documents('a.txt', `one\r\n${end}\ntwo${end}three\n`), [
    `one\n${end}`,
    `two${end}`,
    `three\n${end}`,
  ]);
  assert.deepEqual(documents('a.jsonl', '{"text":"a\\nb"}\n{"text":""}\n{"text":"c"}'), [
    `a\nb${end}`,
    `c${end}`,
  ]);
  assert.throws(() => documents('a.txt', ' \n'), /a\.txt holds no text/);
  assert.throws(() => documents('a.jsonl', '{"text":"a"}\n{"txt":1}'), /a\.jsonl:2: field text/);
  assert.throws(
    () => documents('a.txt', `ok${end}\nok\né`),
    /a\.txt:2: the vocabulary has no token .*got "é"/,
  );
});

test('a long document is cut at an empty line and ended once', () => {
  const paragraph = `${'x'.repeat(50_000)}\n\n`;
  writeFileSync(join(scratch, 'long.txt'), paragraph.repeat(3));
  const documents = [...readDocuments(join(scratch, 'long.txt'), plain)].map((ids) => plain.decode(ids));
  assert.equal(documents.length, 2);
  assert.equal(documents.join(''), `${paragraph.repeat(3)}<|endoftext|>`);
});
