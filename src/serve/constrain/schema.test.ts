// Schemas as grammars: whatever text a grammar gives, ajv takes it; what is not supported is refused by name.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { ROOT } from '../../../test/support/cli.js';
import { randomSchema, randomText, seeded } from '../../../test/support/schemas.js';
import { ApiError } from '../errors.js';
import type { Tool } from '../schema.js';
import { callGrammar } from './calls.js';
import type { Grammar } from './expression.js';
import { createGuard, type GuardProgram, guardProgram } from './guard.js';
import { FORMATS, KEYWORDS, schemaGrammar } from './schema.js';

const ajv = new Ajv2020({ strict: false, validateFormats: true, ownProperties: true });
addFormats.default(ajv);

/** Texts of a schema's grammar, each checked. */
function checkTexts(schema: unknown, seed: number, count: number): string[] {
  const grammar = schemaGrammar(schema, 'schema');
  const validate = ajv.compile(schema as object);
  const random = seeded(seed);
  return Array.from({ length: count }, () => {
    const text = randomText(random, grammar);
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      assert.fail(`${JSON.stringify(schema)} gave ${text}: ${(error as Error).message}`);
    }
    assert.ok(validate(value), `${text}: ${ajv.errorsText(validate.errors)}: of ${JSON.stringify(schema)}`);
    return text;
  });
}

/** Whether the exact check takes a text, read in parts. */
function guarded(program: GuardProgram, text: string): boolean {
  const guard = createGuard(program);
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length; at += 3) {
    const part = bytes.subarray(at, at + 3);
    if (!guard.permits(part)) return false;
    guard.accept(part);
  }
  return guard.complete;
}

test('400 random schemas: every text of the grammar is a value of the schema, and the exact check takes it', () => {
  const random = seeded(7);
  let texts = 0;
  let mutants = 0;
  for (let i = 0; i < 400; i++) {
    const schema = randomSchema(random);
    let grammar: Grammar;
    try {
      grammar = schemaGrammar(schema, 'schema');
    } catch (error) {
      assert.match((error as Error).message, /no value fits/);
      continue;
    }
    const program = guardProgram(grammar);
    const validate = ajv.compile(schema as object);
    for (const text of checkTexts(schema, i, 10)) {
      texts++;
      assert.ok(guarded(program, text), text);
      const at = Math.floor(random() * text.length);
      const mutant =
        text.slice(0, at) + String.fromCharCode(32 + Math.floor(random() * 95)) + text.slice(at + 1);
      if (!guarded(program, mutant)) continue;
      mutants++;
      assert.ok(validate(JSON.parse(mutant)), `${mutant}: ${ajv.errorsText(validate.errors)}`);
    }
  }
  assert.ok(texts > 3000 && mutants > 100, `only ${texts} texts, ${mutants} changed ones taken`);
});

const tree = {
  $defs: {
    node: {
      type: 'object',
      properties: {
        value: { type: 'integer' },
        children: { type: 'array', items: { $ref: '#/$defs/node' }, maxItems: 2 },
      },
      required: ['value', 'children'],
    },
  },
  $ref: '#/$defs/node',
};

const cases: [what: string, schema: unknown][] = [
  ['a recursive schema', tree],
  ['any value', {}],
  [
    'a reference to the whole',
    {
      type: 'object',
      properties: { next: { anyOf: [{ $ref: '#' }, { type: 'null' }] } },
      required: ['next'],
    },
  ],
  [
    'a property that never ends is left out',
    {
      type: 'object',
      properties: { a: { $ref: '#/$defs/x' }, b: { const: 1 } },
      $defs: { x: { type: 'object', properties: { x: { $ref: '#/$defs/x' } }, required: ['x'] } },
    },
  ],
  ['an open type with bounds', { minimum: 3, maxLength: 2, maxItems: 1 }],
  [
    'a required name without a schema',
    { type: 'object', required: ['a'], additionalProperties: { type: 'boolean' } },
  ],
  ['enum within a type', { type: ['string', 'integer'], enum: ['a', 1, 1.5, null] }],
  ['bounds beyond float64', { type: 'number', maximum: 1e300 }],
  ['fine bounds', { type: 'number', exclusiveMinimum: 0.1234567, maximum: 0.1234568 }],
  ['negative bounds', { type: 'number', minimum: -0.5, exclusiveMaximum: 0 }],
  ['a narrow integer', { type: 'integer', exclusiveMinimum: 8.5, maximum: 10.2 }],
  ['many items', { type: 'array', items: { const: 0 }, minItems: 500 }],
  ['a long string', { type: 'string', minLength: 500, maxLength: 100_000 }],
  ['one schema in allOf', { allOf: [{ type: 'integer' }] }],
  [
    'pointers with escapes',
    { $defs: { 'a/b': { $defs: { 'c~d': { const: 5 } } } }, $ref: '#/$defs/a~1b/$defs/c~0d' },
  ],
];

for (const [what, schema] of cases)
  test(what, () => {
    assert.equal(checkTexts(schema, 1, 200).length, 200);
  });

test('integers: exactly those within bounds', () => {
  for (const [low, high] of [
    ...[
      [0, 0],
      [-3, 4],
      [7, 123],
      [99, 101],
      [-1005, -998],
      [-20, -1],
      [1, 1000],
      [950, 12_345],
    ],
  ]) {
    const grammar = schemaGrammar({ type: 'integer', minimum: low, maximum: high }, 's');
    const random = seeded(3);
    const seen = new Set<number>();
    for (let i = 0; i < 20_000; i++) {
      const text = randomText(random, grammar);
      const value = Number(text);
      assert.ok(value >= low && value <= high && String(value) === text, `${text} within ${low}..${high}`);
      seen.add(value);
    }
    if (high - low < 200) assert.equal(seen.size, high - low + 1, `${low}..${high}`);
  }
});

test('every format is what ajv takes for it', () => {
  for (const format of Object.keys(FORMATS)) checkTexts({ type: 'string', format }, 5, 500);
});

test('what is not supported is a 400 that names the keyword and the place', () => {
  const refused: [schema: unknown, words: RegExp][] = [
    [
      { type: 'object', properties: { a: { multipleOf: 2 } } },
      /at #\/properties\/a: the keyword multipleOf is not supported; supported are type, enum/,
    ],
    [{ not: {} }, /keyword not is/],
    [{ if: {} }, /keyword if is/],
    [{ uniqueItems: true }, /keyword uniqueItems is/],
    [{ patternProperties: {} }, /keyword patternProperties is/],
    [{ allOf: [{}, {}] }, /allOf of several/],
    [{ anyOf: [{}], minimum: 1 }, /anyOf beside minimum/],
    [{ oneOf: [{ type: 'integer' }, { type: 'number' }] }, /oneOf\/0 and oneOf\/1 may both fit/],
    [{ $ref: 'http://x/y' }, /only pointers into this schema/],
    [{ $ref: '#/$defs/none' }, /there is nothing at #\/\$defs\/none/],
    [{ type: 'strin' }, /type: got "strin"/],
    [{ type: 'string', format: 'hostname' }, /format: got "hostname"; supported are date/],
    [{ type: 'string', pattern: '(?=a)' }, /pattern: lookahead/],
    [{ type: 'string', pattern: '(' }, /pattern: it is no regular expression/],
    [{ type: 'string', pattern: 'a', maxLength: 3 }, /write one pattern/],
    [{ type: 'string', minLength: 4000 }, /minLength: got 4000; at most 512/],
    [{ type: 'string', minLength: -1 }, /minLength: got -1/],
    [{ minimum: '1' }, /minimum: got "1"; give a number/],
    [{ required: 'a' }, /required is a list/],
    [{ properties: [] }, /properties is an object/],
    [JSON.parse('{"properties":{"__proto__":{}}}'), /a property named __proto__/],
    [{ items: [{}] }, /name it prefixItems/],
    [{ enum: 3 }, /enum is a list/],
    [{ enum: [1], minimum: 0 }, /enum or const beside minimum/],
    [false, /no value fits/],
    [{ type: 'integer', minimum: 3, maximum: 2 }, /no value fits/],
    [{ type: 'array', minItems: 3, maxItems: 2 }, /no value fits/],
    [
      { $defs: { x: { type: 'array', items: { $ref: '#/$defs/x' }, minItems: 1 } }, $ref: '#/$defs/x' },
      /none that ends/,
    ],
    [7, /a schema is an object/],
    [JSON.parse(`${'{"items":'.repeat(100)}{}${'}'.repeat(100)}`), /levels deep/],
    [{ description: 'x'.repeat(70_000) }, /more than 65536 characters/],
    [{ prefixItems: Array(600).fill(true) }, /at #: prefixItems: got 600; at most 512/],
    [
      { type: 'string', pattern: `^${'(a|b'.repeat(800)}${')'.repeat(800)}$` },
      /nested too deeply once it is written out/,
    ],
  ];
  for (const [schema, words] of refused)
    assert.throws(
      () => schemaGrammar(schema, 'schema'),
      (e) => e instanceof ApiError && e.status === 400 && words.test(e.message),
      JSON.stringify(schema).slice(0, 100),
    );
});

test('references that lead back at once add nothing', () => {
  const $defs = {
    a: { anyOf: [{ $ref: '#/$defs/b' }, { type: 'null' }] },
    b: { anyOf: [{ $ref: '#/$defs/a' }, { type: 'boolean' }] },
  };
  const grammar = schemaGrammar({ $defs, $ref: '#/$defs/a' }, 'schema');
  const random = seeded(1);
  const texts = new Set(Array.from({ length: 100 }, () => randomText(random, grammar)));
  assert.deepEqual([...texts].sort(), ['false', 'null', 'true']);
});

test('a grammar that would be too large is refused before it is compiled', () => {
  const long = Array.from({ length: 300 }, (_, i) => ({ type: 'string', minLength: 500, title: `${i}` }));
  const wide = { type: 'array', prefixItems: long };
  assert.throws(() => schemaGrammar(wide, 'schema'), /too large/);
});

test('the deepest grammars that are taken can be copied between threads', () => {
  const longest = { type: 'string', maxLength: 512 };
  const list = { type: 'array', items: { type: 'integer', minimum: 0 }, maxItems: 512 };
  for (const schema of [longest, list, { prefixItems: Array(512).fill({ type: 'null' }) }])
    assert.ok(structuredClone(schemaGrammar(schema, 'schema')));
});

test('branches of oneOf with many values are told apart with each value read a few times', () => {
  let reads = 0;
  const counted = (values: number[]) =>
    new Proxy(values, {
      get(target, key, receiver) {
        reads++;
        return Reflect.get(target, key, receiver);
      },
    });
  const values = Array.from({ length: 3000 }, (_, i) => i);
  const oneOf = [{ enum: counted(values) }, { enum: counted(values.map((value) => -1 - value)) }];
  schemaGrammar({ oneOf }, 'schema');
  assert.ok(reads < 100 * values.length, `${reads} reads`);
});

test('what would take long to compile is refused, for a schema and for all tools together', () => {
  const properties = (of: (i: number) => unknown) => ({
    type: 'object',
    properties: Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`p${i}`, of(i)])),
  });
  const words = /its repetitions written out, its character classes count \d+ .*; at most 512 are supported/;
  const refused = (run: () => unknown, param: string) =>
    assert.throws(
      run,
      (e) => e instanceof ApiError && e.status === 400 && e.param === param && words.test(e.message),
    );
  const long = (i: number) => ({ type: 'string', pattern: `^[a-z${i}]{1,64}x.*\\w+$` });
  refused(() => schemaGrammar(properties(long), 'schema'), 'schema');
  refused(() => schemaGrammar({ enum: Array.from({ length: 9000 }, (_, i) => i) }, 'schema'), 'schema');
  refused(() => schemaGrammar({ type: 'string', pattern: '^.{1,40}$' }, 'schema'), 'schema');
  // Equal ones are compiled once.
  schemaGrammar(
    properties(() => long(0)),
    'schema',
  );
  schemaGrammar(
    properties((i) => ({ type: 'string', format: Object.keys(FORMATS)[i % 7] })),
    'schema',
  );
  schemaGrammar(
    properties((i) => ({ type: 'string', pattern: `^[A-Z]{2}-${i}[0-9]{4}$` })),
    'schema',
  );

  // A group that is repeated is compiled once, but each place of it counts.
  const pattern = '^(([a-f0-9]{1,16}-){1,16}[/:]){1,16}$';
  const grammar = schemaGrammar({ type: 'string', pattern }, 'schema');
  const random = seeded(8);
  for (let i = 0; i < 200; i++) assert.match(JSON.parse(randomText(random, grammar)), new RegExp(pattern));
  for (const wide of ['^(.{1,16}x){1,16}$', '^((.{1,8}x){1,16}){1,30}$'])
    refused(() => schemaGrammar({ type: 'string', pattern: wide }, 'schema'), 'schema');

  const tools = (count: number, of: (i: number) => object) =>
    Array.from({ length: count }, (_, i): Tool => {
      return { type: 'function', function: { name: `t${i}`, parameters: { properties: { a: of(i) } } } };
    });
  refused(() => callGrammar('tags', tools(20, long)), 'tools');
  callGrammar(
    'tags',
    tools(128, () => ({})),
  );
});

test('the documentation lists what is supported', () => {
  const text = readFileSync(`${ROOT}/docs/api.md`, 'utf8');
  for (const word of [...KEYWORDS, ...Object.keys(FORMATS)]) assert.ok(text.includes(`\`${word}\``), word);
});
