// Arithmetic expressions: digits, + - * / ( ) and spaces, nothing else. Parsed without recursion, valued exactly.

export type Operator = '+' | '-' | '*' | '/';

/** A parsed expression. Numbers are safe integers. */
export type Expression =
  | { readonly kind: 'number'; readonly value: number }
  | {
      readonly kind: 'operation';
      readonly operator: Operator;
      readonly left: Expression;
      readonly right: Expression;
    };

export type ParseResult =
  | { readonly ok: true; readonly expression: Expression }
  | { readonly ok: false; readonly reason: string };

/** An exact fraction in lowest terms; the denominator is positive. */
export interface Rational {
  readonly numerator: bigint;
  readonly denominator: bigint;
}

/** Longer texts are refused unread: it bounds the depth of a tree and the size of its value. */
export const MAX_EXPRESSION_LENGTH = 200;
const MAX_DIGITS = 15;
const PRECEDENCE: Readonly<Record<string, number>> = { '+': 1, '-': 1, '*': 2, '/': 2 };

/**
 * Parses an expression. There is no unary minus, no `**`, no `//`, no decimal point, no number that starts with a
 * superfluous zero or has more than 15 digits; `1 2` is two numbers and so an error. Operators of one rank group to
 * the left. Never throws; takes at most 200 characters.
 */
export function parseExpression(text: string): ParseResult {
  if (text.length > MAX_EXPRESSION_LENGTH) return bad(`longer than ${MAX_EXPRESSION_LENGTH} characters`);
  const values: Expression[] = [];
  const pending: string[] = [];
  let wantsValue = true;
  for (let at = 0; at < text.length; at++) {
    const c = text[at];
    if (c === ' ') continue;
    if (wantsValue) {
      if (c === '(') {
        pending.push(c);
        continue;
      }
      const digits = /^\d+/.exec(text.slice(at))?.[0];
      if (digits === undefined) return bad(`expected a number or ( at ${at}`);
      if (digits.length > MAX_DIGITS) return bad(`number of more than ${MAX_DIGITS} digits at ${at}`);
      if (digits.length > 1 && digits[0] === '0') return bad(`number with a leading zero at ${at}`);
      values.push({ kind: 'number', value: Number(digits) });
      at += digits.length - 1;
      wantsValue = false;
    } else if (c === ')') {
      while (pending.length > 0 && pending[pending.length - 1] !== '(') reduce(values, pending);
      if (pending.pop() !== '(') return bad(`) without ( at ${at}`);
    } else if (c in PRECEDENCE) {
      while (PRECEDENCE[pending[pending.length - 1]] >= PRECEDENCE[c]) reduce(values, pending);
      pending.push(c);
      wantsValue = true;
    } else {
      return bad(`expected an operator or ) at ${at}`);
    }
  }
  if (wantsValue) return bad('ends where a number is expected');
  while (pending.length > 0) {
    if (pending[pending.length - 1] === '(') return bad('( without )');
    reduce(values, pending);
  }
  return { ok: true, expression: values[0] };
}

function bad(reason: string): ParseResult {
  return { ok: false, reason };
}

function reduce(values: Expression[], pending: string[]): void {
  const right = values.pop() as Expression;
  const left = values.pop() as Expression;
  values.push({ kind: 'operation', operator: pending.pop() as Operator, left, right });
}

/** The exact value, or null where something is divided by zero. */
export function evaluateExpression(e: Expression): Rational | null {
  if (e.kind === 'number') return { numerator: BigInt(e.value), denominator: 1n };
  const a = evaluateExpression(e.left);
  const b = a && evaluateExpression(e.right);
  if (!a || !b) return null;
  switch (e.operator) {
    case '+':
      return lowest(a.numerator * b.denominator + b.numerator * a.denominator, a.denominator * b.denominator);
    case '-':
      return lowest(a.numerator * b.denominator - b.numerator * a.denominator, a.denominator * b.denominator);
    case '*':
      return lowest(a.numerator * b.numerator, a.denominator * b.denominator);
    case '/':
      if (b.numerator === 0n) return null;
      return lowest(a.numerator * b.denominator, a.denominator * b.numerator);
  }
}

function lowest(numerator: bigint, denominator: bigint): Rational {
  let [a, b] = [numerator, denominator];
  while (b !== 0n) [a, b] = [b, a % b];
  // The divisor takes the sign of the denominator, so that the denominator comes out positive.
  const divisor = a < 0n === denominator < 0n ? a : -a;
  return { numerator: numerator / divisor, denominator: denominator / divisor };
}

/** The numbers of an expression, from left to right. */
export function numbersOf(e: Expression): number[] {
  return e.kind === 'number' ? [e.value] : [...numbersOf(e.left), ...numbersOf(e.right)];
}

/** The operators that an expression uses, each once. */
export function operatorsOf(e: Expression): Set<Operator> {
  if (e.kind === 'number') return new Set();
  return new Set([...operatorsOf(e.left), e.operator, ...operatorsOf(e.right)]);
}

/** The text of an expression with no more parentheses than its tree needs; it parses back to the same tree. */
export function formatExpression(e: Expression): string {
  if (e.kind === 'number') return String(e.value);
  const rank = PRECEDENCE[e.operator];
  const side = (x: Expression, min: number) =>
    x.kind === 'operation' && PRECEDENCE[x.operator] < min ? `(${formatExpression(x)})` : formatExpression(x);
  return `${side(e.left, rank)}${e.operator}${side(e.right, rank + 1)}`;
}

/**
 * One text for all the ways to write the same calculation by commuting and regrouping: sums (with what is taken
 * away) and products (with what is divided by) are flattened, and their members sorted. `3+12+12` and `12+(12+3)`
 * agree, `a-(b-c)` agrees with `a+c-b`, `a/(b/c)` with `a*c/b`. Calculations that only happen to have one value
 * (`2*2` and `2+2`, `5*1` and `5/1`) stay apart, and so do products whose factors change sign together.
 */
export function normaliseExpression(e: Expression): string {
  const plus: string[] = [];
  const minus: string[] = [];
  const collect = (x: Expression, positive: boolean): void => {
    if (x.kind === 'operation' && (x.operator === '+' || x.operator === '-')) {
      collect(x.left, positive);
      collect(x.right, x.operator === '+' ? positive : !positive);
    } else (positive ? plus : minus).push(normaliseProduct(x));
  };
  collect(e, true);
  return joinSorted(plus, minus, '+', '-');
}

function normaliseProduct(e: Expression): string {
  const over: string[] = [];
  const under: string[] = [];
  const collect = (x: Expression, upper: boolean): void => {
    if (x.kind === 'number') (upper ? over : under).push(String(x.value));
    else if (x.operator === '*' || x.operator === '/') {
      collect(x.left, upper);
      collect(x.right, x.operator === '*' ? upper : !upper);
    } else (upper ? over : under).push(`(${normaliseExpression(x)})`);
  };
  collect(e, true);
  return joinSorted(over, under, '*', '/');
}

// Shorter first, then by character: whole numbers come out in numeric order.
function joinSorted(kept: string[], inverse: string[], join: string, invert: string): string {
  const order = (a: string, b: string) => a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
  return [kept.sort(order).join(join), ...inverse.sort(order)].join(invert);
}
