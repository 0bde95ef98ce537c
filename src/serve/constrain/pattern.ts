// JavaScript's regular expressions as grammars of the JSON strings that match them.
//
// What is regular is taken: characters, classes, groups, alternatives, repetitions, anchors at the ends. Lookarounds,
// back references and word boundaries are not.
import {
  type CodeRange,
  characters,
  choice,
  costOf,
  type Expression,
  oneOf,
  optional,
  partsOf,
  sequence,
  star,
  text,
} from './expression.js';
import { CHARACTER, PLAIN } from './json-text.js';

export type Share = (of: Expression) => Expression;

/** A pattern that is not taken, and why. */
export class PatternProblem extends Error {}

/** Most repetitions that are counted. */
const MAX_COUNT = 256;
/** What is repeated and costs so much to compile gets a rule. */
const SHARED = 4;
/** Most characters of a pattern, and of it once repetitions are written out. */
const MAX_SIZE = 4096;

const ALL: readonly CodeRange[] = [[0, 0x10ffff]];
const DIGIT: readonly CodeRange[] = [[0x30, 0x39]];
const WORD: readonly CodeRange[] = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
const SPACE: readonly CodeRange[] = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
const LINE_ENDS: readonly CodeRange[] = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];

/**
 * The text between the quotes of a JSON string that the pattern matches.
 * @param share gives the rule of an expression that stands at several places: what is in a rule is compiled once
 * @throws PatternProblem
 */
export function patternExpression(pattern: string, share: Share): Expression {
  try {
    new RegExp(pattern, 'u');
  } catch (error) {
    throw new PatternProblem(`it is no regular expression (${(error as Error).message})`);
  }
  if (pattern.length > MAX_SIZE) throw new PatternProblem(`it has more than ${MAX_SIZE} characters`);
  return new PatternReader(pattern, share).read();
}

class PatternReader {
  readonly #text: readonly string[];
  readonly #share: Share;
  #at = 0;
  #size = 0;

  constructor(pattern: string, share: Share) {
    this.#text = [...pattern];
    this.#share = share;
  }

  read(): Expression {
    const branches = [this.#branch()];
    while (this.#take('|')) branches.push(this.#branch());
    if (this.#at < this.#text.length) throw new PatternProblem(`"${this.#text[this.#at]}" stands alone`);
    return choice(...branches);
  }

  /** One alternative of the whole: only here anchors stand. Where one is missing, anything may. */
  #branch(): Expression {
    const anything = star(CHARACTER);
    const open = !this.#take('^');
    const body = this.#terms();
    const end = !this.#take('$');
    return sequence(...(open ? [anything] : []), body, ...(end ? [anything] : []));
  }

  #alternatives(): Expression {
    const branches = [this.#terms()];
    while (this.#take('|')) branches.push(this.#terms());
    return choice(...branches);
  }

  #terms(): Expression {
    const terms: Expression[] = [];
    for (let c = this.#peek(); c !== undefined && c !== '|' && c !== ')' && c !== '$'; c = this.#peek())
      terms.push(this.#repeated(this.#atom()));
    return sequence(...terms);
  }

  #repeated(of: Expression): Expression {
    const counts = this.#counts();
    if (!counts) return of;
    // Which match is found first makes no difference to whether there is one.
    this.#take('?');
    const [least, most] = counts;
    if (least > MAX_COUNT || (Number.isFinite(most) && most > MAX_COUNT))
      throw new PatternProblem(`it repeats more than ${MAX_COUNT} times`);
    const copies = Number.isFinite(most) ? most : least;
    const one = copies > 1 && of.kind === 'sequence' && costOf(of) >= SHARED ? this.#share(of) : of;
    this.#grow(copies * sizeOf(one));
    const needed = Array.from({ length: least }, () => one);
    if (!Number.isFinite(most)) return sequence(...needed, star(one));
    let rest: Expression = text('');
    for (let i = least; i < most; i++) rest = optional(sequence(one, rest));
    return sequence(...needed, rest);
  }

  #counts(): [number, number] | null {
    if (this.#take('*')) return [0, Number.POSITIVE_INFINITY];
    if (this.#take('+')) return [1, Number.POSITIVE_INFINITY];
    if (this.#take('?')) return [0, 1];
    const found = /^\{(\d+)(?:(,)(\d*))?\}/.exec(this.#text.slice(this.#at, this.#at + 24).join(''));
    if (!found) return null;
    this.#at += found[0].length;
    const least = Number(found[1]);
    if (!found[2]) return [least, least];
    return [least, found[3] === '' ? Number.POSITIVE_INFINITY : Number(found[3])];
  }

  #atom(): Expression {
    this.#grow(1);
    const c = this.#next();
    if (c === '(') return this.#group();
    if (c === '[') return escaped(this.#class());
    if (c === '.') return escaped(without(ALL, LINE_ENDS));
    if (c === '\\') return escaped(this.#escape(false));
    if (c === '^') throw new PatternProblem('"^" is taken at the beginning alone');
    return escaped(characters(c));
  }

  #group(): Expression {
    if (this.#take('?')) {
      if (this.#take('<')) {
        if (this.#peek() === '=' || this.#peek() === '!')
          throw new PatternProblem('lookbehind is not regular');
        while (this.#next() !== '>');
      } else if (!this.#take(':')) throw new PatternProblem('lookahead and flags are not taken');
    }
    const inside = this.#alternatives();
    if (this.#peek() === '$') throw new PatternProblem('"$" is taken at the end alone');
    this.#next();
    return inside;
  }

  #class(): CodeRange[] {
    const negated = this.#take('^');
    const ranges: CodeRange[] = [];
    while (!this.#take(']')) {
      const from = this.#classItem();
      const next = this.#text[this.#at + 1];
      if (this.#peek() === '-' && next !== undefined && next !== ']') {
        this.#at++;
        const to = this.#classItem();
        ranges.push([from[0][0], to[0][1]]);
      } else ranges.push(...from);
    }
    return negated ? without(ALL, ranges) : ranges;
  }

  #classItem(): readonly CodeRange[] {
    const c = this.#next();
    return c === '\\' ? this.#escape(true) : characters(c);
  }

  #escape(inClass: boolean): readonly CodeRange[] {
    const c = this.#next();
    switch (c) {
      case 'd':
        return DIGIT;
      case 'D':
        return without(ALL, DIGIT);
      case 'w':
        return WORD;
      case 'W':
        return without(ALL, WORD);
      case 's':
        return SPACE;
      case 'S':
        return without(ALL, SPACE);
      case 'n':
        return characters('\n');
      case 'r':
        return characters('\r');
      case 't':
        return characters('\t');
      case 'f':
        return characters('\f');
      case 'v':
        return characters('\v');
      case '0':
        return characters('\0');
      case 'x':
        return this.#code(/^[0-9a-fA-F]{2}/);
      case 'u':
        return this.#take('{') ? this.#code(/^[0-9a-fA-F]{1,6}/, '}') : this.#code(/^[0-9a-fA-F]{4}/);
      case 'b':
        if (inClass) return characters('\b');
        break;
    }
    if (/[\^$\\.*+?()[\]{}|/-]/.test(c)) return characters(c);
    throw new PatternProblem(`"\\${c}" is not taken`);
  }

  #code(digits: RegExp, close?: string): CodeRange[] {
    const found = digits.exec(this.#text.slice(this.#at, this.#at + 6).join(''));
    if (!found) throw new PatternProblem('an escape lacks its digits');
    this.#at += found[0].length;
    if (close) this.#next();
    const code = Number.parseInt(found[0], 16);
    if (code >= 0xd800 && code <= 0xdfff) throw new PatternProblem('halves of surrogate pairs are not taken');
    return [[code, code]];
  }

  #grow(by: number): void {
    this.#size += by;
    if (this.#size > MAX_SIZE)
      throw new PatternProblem('it is too large once its repetitions are written out');
  }

  #peek(): string | undefined {
    return this.#text[this.#at];
  }

  #next(): string {
    const c = this.#text[this.#at++];
    if (c === undefined) throw new PatternProblem('it ends too early');
    return c;
  }

  #take(c: string): boolean {
    if (this.#text[this.#at] !== c) return false;
    this.#at++;
    return true;
  }
}

function sizeOf(e: Expression): number {
  return partsOf(e).reduce((sum, part) => sum + sizeOf(part), 1);
}

/** One character out of ranges as a JSON string holds it: as it is, or escaped where it must be. */
function escaped(ranges: readonly CodeRange[]): Expression {
  const sorted = union(ranges);
  const parts: Expression[] = [];
  const plain = intersect(sorted, PLAIN);
  if (plain.length > 0) parts.push(oneOf(plain));
  const holds = (code: number) => sorted.some(([from, to]) => from <= code && code <= to);
  for (const code of [0x22, 0x5c, ...Array.from({ length: 0x20 }, (_, i) => i)])
    if (holds(code)) parts.push(text(JSON.stringify(String.fromCharCode(code)).slice(1, -1)));
  return choice(...parts);
}

function union(ranges: readonly CodeRange[]): CodeRange[] {
  const merged: [number, number][] = [];
  for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = merged.at(-1);
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else merged.push([from, to]);
  }
  return merged;
}

function intersect(a: readonly CodeRange[], b: readonly CodeRange[]): CodeRange[] {
  return a.flatMap(([from, to]) =>
    b.flatMap(([low, high]): CodeRange[] =>
      Math.max(from, low) <= Math.min(to, high) ? [[Math.max(from, low), Math.min(to, high)]] : [],
    ),
  );
}

function without(a: readonly CodeRange[], b: readonly CodeRange[]): CodeRange[] {
  let next = 0;
  const rest: CodeRange[] = [];
  for (const [from, to] of union(b)) {
    if (next < from) rest.push([next, from - 1]);
    next = to + 1;
  }
  if (next <= 0x10ffff) rest.push([next, 0x10ffff]);
  return intersect(a, rest);
}
