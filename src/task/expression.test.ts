// The expression parser: fuzzed, held against an independent valuation, and tried on the holes others left open.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type Expression,
  evaluateExpression,
  formatExpression,
  normaliseExpression,
  type Operator,
  parseExpression,
} from './expression.js';

const OPERATORS: Operator[] = ['+', '-', '*', '/'];

const trees = fc.letrec<{ tree: Expression; leaf: Expression; node: Expression }>((tie) => ({
  tree: fc.oneof({ maxDepth: 4 }, tie('leaf'), tie('node')),
  leaf: fc.record({ kind: fc.constant('number' as const), value: fc.nat(999) }),
  node: fc.record({
    kind: fc.constant('operation' as const),
    operator: fc.constantFrom(...OPERATORS),
    left: tie('tree'),
    right: tie('tree'),
  }),
})).tree;

const exactValue = (text: string) => {
  const parsed = parseExpression(text);
  assert.ok(parsed.ok, `${text}: ${parsed.ok ? '' : parsed.reason}`);
  const value = evaluateExpression(parsed.expression);
  return value && `${value.numerator}/${value.denominator}`;
};

// Written differently on purpose: an unreduced fraction of BigInts by structural recursion, compared by
// multiplying across.
type Fraction = [bigint, bigint] | null;
function fraction(e: Expression): Fraction {
  if (e.kind === 'number') return [BigInt(e.value), 1n];
  const a = fraction(e.left);
  const b = fraction(e.right);
  if (!a || !b) return null;
  if (e.operator === '*') return [a[0] * b[0], a[1] * b[1]];
  if (e.operator === '/') return b[0] === 0n ? null : [a[0] * b[1], a[1] * b[0]];
  const sign = e.operator === '+' ? 1n : -1n;
  return [a[0] * b[1] + sign * b[0] * a[1], a[1] * b[1]];
}

test('every tree, written out and parsed, has the value of an independent exact evaluation', () => {
  let undefinedValues = 0;
  fc.assert(
    fc.property(trees, (tree) => {
      const text = formatExpression(tree);
      fc.pre(text.length <= 200);
      const parsed = parseExpression(text);
      assert.ok(parsed.ok);
      assert.deepEqual(parsed.expression, structuredClone(tree));
      const expected = fraction(tree);
      const got = evaluateExpression(parsed.expression);
      if (expected === null) undefinedValues++;
      assert.equal(got === null, expected === null);
      if (got && expected) {
        assert.ok(got.denominator > 0n);
        assert.equal(got.numerator * expected[1], expected[0] * got.denominator);
      }
    }),
    { numRuns: 2000, seed: 7 },
  );
  assert.ok(undefinedValues > 0, 'division by zero never came up');
});

test('the normalised form keeps the value, is its own normal form and ignores order', () => {
  const mirror = (e: Expression): Expression =>
    e.kind === 'number'
      ? e
      : e.operator === '+' || e.operator === '*'
        ? { ...e, left: mirror(e.right), right: mirror(e.left) }
        : { ...e, left: mirror(e.left), right: mirror(e.right) };
  fc.assert(
    fc.property(trees, (tree) => {
      const normal = normaliseExpression(tree);
      assert.equal(normaliseExpression(mirror(tree)), normal);
      fc.pre(normal.length <= 200);
      const parsed = parseExpression(normal);
      assert.ok(parsed.ok);
      assert.equal(normaliseExpression(parsed.expression), normal);
      // Turning a/(b/c) into a*c/b may define what was not (c = 0 in a/(b/c) is then 0), never change a value.
      const before = evaluateExpression(tree);
      if (before) assert.deepEqual(evaluateExpression(parsed.expression), before);
    }),
    { numRuns: 2000, seed: 8 },
  );
});

test('normal forms of what people write', () => {
  const normal = (text: string) => {
    const parsed = parseExpression(text);
    assert.ok(parsed.ok);
    return normaliseExpression(parsed.expression);
  };
  for (const same of [
    ['3+12+12', '12+(12+3)', '(12 + 3) + 12'],
    ['20-(5-3)', '20+3-5', '3+(20-5)'],
    ['8/(4/2)', '8*2/4', '2*(8/4)'],
    ['2*(3+4)', '(4+3)*2'],
  ]) {
    assert.equal(new Set(same.map(normal)).size, 1, same.join(' | '));
  }
  assert.equal(normal('(3+12)+12'), '3+12+12');
  assert.notEqual(normal('2+2'), normal('2*2'));
  assert.notEqual(normal('5-3'), normal('3-5'));
});

test('any string gives a result or a reason, never an exception', () => {
  const near = fc.string({ unit: fc.constantFrom(...'0123456789+-*/() .,=x'), maxLength: 60 });
  fc.assert(
    fc.property(
      fc.oneof(
        near,
        fc.uint16Array({ maxLength: 100 }).map((units) => String.fromCharCode(...units)),
      ),
      (text) => {
        const parsed = parseExpression(text);
        if (parsed.ok) {
          evaluateExpression(parsed.expression);
          assert.match(text, /^[0-9+\-*/() ]+$/);
        } else assert.ok(parsed.reason.length > 0);
      },
    ),
    { numRuns: 3000, seed: 9 },
  );
});

test('values by hand', () => {
  assert.equal(exactValue('1+2*3'), '7/1');
  assert.equal(exactValue('20-5-3'), '12/1');
  assert.equal(exactValue('8/4/2'), '1/1');
  assert.equal(exactValue(' ( 1 + 2 ) * 3 '), '9/1');
  assert.equal(exactValue('1/3+1/6'), '1/2');
  assert.equal(exactValue('3-5'), '-2/1');
  assert.equal(exactValue('1/(3-5)'), '-1/2');
  assert.equal(exactValue('0/(3-5)'), '0/1');
  assert.equal(exactValue('5/(3-3)'), null);
  // Beyond 2^53, where double precision would be off by one.
  assert.equal(exactValue('999999999999999*999999999999999+1'), '999999999999998000000000000002/1');
});

test('the holes of other checkers are closed', () => {
  for (const text of [
    ...[
      '2**3',
      '7//2',
      '3.5',
      '-3+5',
      '+3',
      '2*-3',
      '1 2',
      '3(4)',
      '(3)4',
      '()',
      '',
      ' ',
      '1+',
      '(1',
      '1)',
      '(1))',
    ],
    ...['1e3', '0x10', '1_000', '1,000', '03', '00', '2^3', '5%3', 'Infinity', '1\n+2', '١+٢', '2×3', '1=1'],
    ...[
      '9'.repeat(16),
      '9'.repeat(100_000),
      '('.repeat(1_000_000),
      `${'('.repeat(500_000)}1${')'.repeat(500_000)}`,
    ],
  ]) {
    assert.equal(parseExpression(text).ok, false, text.slice(0, 40));
  }
  assert.equal(exactValue(`${'('.repeat(99)}1${')'.repeat(99)}`), '1/1');
});
