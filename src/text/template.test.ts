// Prompt templates: their text, what they open, and what scorers and SFT make of it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetortError } from '../errors.js';
import { buildCharTokenizer } from './char-tokenizer.js';
import { chatRenderer } from './chat.js';
import {
  completionToLearn,
  encodePrompt,
  getTemplate,
  plainTemplate,
  scoredText,
  templateNames,
} from './template.js';
import { createTokenizer, type Tokenizer } from './tokenizer.js';

const characters = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).join('');
const chatml =
  "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + eos_token }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}";

function withChat(template: string | null): Tokenizer {
  const { files } = buildCharTokenizer({ characters: `${characters}\n` });
  const config = { ...JSON.parse(files['tokenizer_config.json']!), chat_template: template };
  return createTokenizer({ ...files, 'tokenizer_config.json': JSON.stringify(config) }, { source: 'test' });
}

test('r1 is the paper, word for word, and opens nothing', () => {
  const r1 = getTemplate('r1');
  assert.equal(
    r1.render('What is 1+1?'),
    'A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The ' +
      'assistant first thinks about the reasoning process in the mind and then provides the user with the answer. ' +
      'The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, ' +
      'respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. ' +
      'User: What is 1+1?. Assistant:',
  );
  assert.equal(r1.opened, '');
  assert.equal(getTemplate('r1-think').render('q'), `${r1.render('q')} <think>`);
});

test('what a template opens belongs to the scored text and not to the completion that SFT learns', () => {
  for (const name of templateNames.filter((one) => one !== 'chat')) {
    const template = getTemplate(name);
    const answer = '<think>2</think><answer>2</answer>';
    const completion = completionToLearn(template, answer);
    assert.equal(scoredText(template, completion), answer);
    assert.equal(template.render('q').endsWith(template.opened), true);
    assert.equal(
      template.render('q') + completion,
      template.render('q').slice(0, -template.opened.length || undefined) + answer,
    );
  }
  assert.equal(getTemplate('terse').opened, '<think>');
  // An answer that does not begin as the template did is left whole.
  assert.equal(completionToLearn(getTemplate('terse'), 'no tags'), 'no tags');
});

test('terse and raw in tokens', () => {
  const tokenizer = buildCharTokenizer({ characters });
  const think = tokenizer.encode('<think>');
  assert.deepEqual(encodePrompt(getTemplate('terse'), tokenizer, '1?'), [
    ...tokenizer.encode('1?'),
    ...think,
  ]);
  assert.deepEqual(encodePrompt(getTemplate('raw'), tokenizer, '1?'), tokenizer.encode('1?'));
});

test('chat goes through the tokenizer, and an opened <think> is found', () => {
  const tokenizer = withChat(chatml);
  const chat = getTemplate('chat', tokenizer);
  assert.equal(chat.render('hi'), '<|user|>hi<|endoftext|><|assistant|><think>\n');
  assert.equal(chat.opened, '<think>\n');
  assert.equal(chat.addSpecialTokens, false);
  const conversation = [
    { role: 'system', content: 'be brief' },
    { role: 'user', content: 'hi' },
  ];
  assert.equal(
    chatRenderer(tokenizer)(conversation, false),
    '<|system|>be brief<|endoftext|><|user|>hi<|endoftext|>',
  );
});

test('what cannot be used is refused in words', () => {
  const refused = (run: () => unknown, message: RegExp) =>
    assert.throws(run, (error: unknown) => error instanceof RetortError && message.test(error.message));
  refused(() => getTemplate('R1'), /prompt template: got "R1"; known are terse, r1, r1-think, raw, chat/);
  refused(() => getTemplate('toString'), /got "toString"/);
  refused(() => getTemplate('chat'), /needs a tokenizer/);
  refused(() => getTemplate('chat', withChat(null)), /has no chat template/);
  refused(() => getTemplate('chat', withChat('{% for %}')), /chat template is broken/);
  refused(
    () => getTemplate('chat', withChat("{{ raise_exception('roles must alternate') }}")),
    /roles must alternate/,
  );
  refused(() => plainTemplate('mine', { after: 'x', opened: '<think>' }), /its text must end with it/);
});
