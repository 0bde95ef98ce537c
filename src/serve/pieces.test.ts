// Cutting answers into reasoning, content and calls: the same however the text arrives.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createSplitter, type Piece, partial } from './pieces.js';
import type { CallForm } from './tool-calls.js';

interface Options {
  thinking?: boolean;
  calls?: CallForm | null;
}

function split(parts: readonly string[], { thinking = false, calls = null }: Options = {}): Piece[] {
  const splitter = createSplitter({ thinking, calls, tools: new Set(['f', 'g']) });
  const pieces = [...parts.flatMap((part) => splitter.push(part)), ...splitter.end()];
  const joined: Piece[] = [];
  for (const piece of pieces) {
    const last = joined.at(-1);
    if (piece.kind !== 'call' && last && last.kind === piece.kind)
      joined[joined.length - 1] = { kind: piece.kind, text: (last as { text: string }).text + piece.text };
    else joined.push(piece);
  }
  return joined;
}

const reasoning = (text: string): Piece => ({ kind: 'reasoning', text });
const content = (text: string): Piece => ({ kind: 'content', text });
const call = (name: string, args: unknown): Piece => ({
  kind: 'call',
  call: { name, arguments: JSON.stringify(args) },
});

const cases: [what: string, text: string, options: Options, expected: Piece[]][] = [
  ['no reasoning', ' 4 < 5', {}, [content(' 4 < 5')]],
  ['reasoning opened by the model', '\n<think>\nab\n</think>\n\n4', {}, [reasoning('ab'), content('4')]],
  ['reasoning opened by the prompt', 'a b\n</think>4', { thinking: true }, [reasoning('a b'), content('4')]],
  ['no thoughts at all', '</think>4', { thinking: true }, [content('4')]],
  ['cut off while thinking', 'ab </thi', { thinking: true }, [reasoning('ab </thi')]],
  ['a tag later on is text', 'x<think>y</think>', {}, [content('x<think>y</think>')]],
  ['half a tag at the end', '<thin', {}, [content('<thin')]],
  ['nothing', '', {}, []],
  ['spaces alone', '  ', {}, [content('  ')]],
  [
    'a call between tags, text before it',
    'Let me see.\n<tool_call>\n{"name": "f", "arguments": {"a": [1]}}\n</tool_call>',
    { calls: 'tags' },
    [content('Let me see.'), call('f', { a: [1] })],
  ],
  [
    'two calls after reasoning',
    'hm</think>\n<tool_call>{"name":"f","arguments":{}}</tool_call>\n<tool_call>{"name":"g","arguments":{"x":"</a>"}}</tool_call>\n',
    { thinking: true, calls: 'tags' },
    [reasoning('hm'), call('f', {}), call('g', { x: '</a>' })],
  ],
  [
    'a call whose closing tag is missing',
    '<tool_call>{"name":"f","arguments":{}}',
    { calls: 'tags' },
    [call('f', {})],
  ],
  [
    'what is between tags and no call',
    'a <tool_call>{"name":</tool_call> b ',
    { calls: 'tags' },
    [content('a <tool_call>{"name":</tool_call> b ')],
  ],
  ['a bare call', ' {"name": "f", "parameters": {"a": 1}}', { calls: 'json' }, [call('f', { a: 1 })]],
  [
    'bare calls behind the python tag',
    '<|python_tag|>{"name": "f", "parameters": {}}; {"name": "g", "parameters": {"s": "a;}"}}',
    { calls: 'json' },
    [call('f', {}), call('g', { s: 'a;}' })],
  ],
  [
    'JSON that is no call',
    '{"name": "h", "parameters": {}}',
    { calls: 'json' },
    [content('{"name": "h", "parameters": {}}')],
  ],
  ['text where calls were offered', 'It is {4}', { calls: 'json' }, [content('It is {4}')]],
  [
    'calls that nobody offered',
    '{"name": "f", "parameters": {}}',
    {},
    [content('{"name": "f", "parameters": {}}')],
  ],
];

for (const [what, text, options, expected] of cases)
  test(what, () => {
    assert.deepEqual(split([text], options), expected);
    assert.deepEqual(split([...text], options), expected);
  });

test('the same pieces however the text is cut', () => {
  const words = fc.constantFrom(
    ...[
      '<think>',
      '</think>',
      '<tool_call>',
      '</tool_call>',
      '{"name":"f","arguments":{}}',
      ' ',
      '\n',
      '<',
      'a',
      '<t',
      'é',
    ],
  );
  const options = fc.record({
    thinking: fc.boolean(),
    calls: fc.constantFrom<CallForm | null>('tags', 'json', null),
  });
  fc.assert(
    fc.property(fc.array(words), options, fc.array(fc.nat(8)), (list, o, cuts) => {
      const text = list.join('');
      const parts: string[] = [];
      let at = 0;
      for (const length of cuts) {
        parts.push(text.slice(at, at + length));
        at += length;
      }
      parts.push(text.slice(at));
      assert.deepEqual(split(parts, o), split([text], o));
    }),
    { numRuns: 2000 },
  );
});

test('partial: the longest end that a marker may begin with', () => {
  assert.equal(partial('ab<t', '<think>'), 2);
  assert.equal(partial('ab<<', '<think>'), 1);
  assert.equal(partial('<think>', '<think>'), 0);
  assert.equal(partial('', '<think>'), 0);
});
