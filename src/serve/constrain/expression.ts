// Grammars as plain data: what a JSON schema is turned into, and the EBNF text that the grammar engine reads.

/** A range of code points, both ends included. */
export type CodeRange = readonly [from: number, to: number];

export type Expression =
  | { readonly kind: 'text'; readonly text: string }
  /** One code point out of ranges, or `least` to `most` of them where all are ASCII. */
  | {
      readonly kind: 'class';
      readonly ranges: readonly CodeRange[];
      readonly least: number;
      readonly most: number;
    }
  | { readonly kind: 'sequence'; readonly parts: readonly Expression[] }
  /** No choice at all is what nothing fits. */
  | { readonly kind: 'choice'; readonly choices: readonly Expression[] }
  | { readonly kind: 'star'; readonly of: Expression }
  /** `cost` of this place, beside what is in the rule. */
  | { readonly kind: 'rule'; readonly name: string; readonly cost: number };

/** Rules by name; expressions refer to them, also to themselves. */
export type Rules = Map<string, Expression>;

export interface Grammar {
  readonly root: Expression;
  readonly rules: Rules;
}

export const NOTHING: Expression = { kind: 'choice', choices: [] };

export function text(value: string): Expression {
  return { kind: 'text', text: value };
}

export function oneOf(ranges: readonly CodeRange[]): Expression {
  return { kind: 'class', ranges, least: 1, most: 1 };
}

/** Between `least` and `most` characters out of ranges within ASCII. */
export function someOf(ranges: readonly CodeRange[], least: number, most: number): Expression {
  return { kind: 'class', ranges, least, most };
}

export function sequence(...parts: readonly Expression[]): Expression {
  return parts.length === 1 ? parts[0] : { kind: 'sequence', parts };
}

export function choice(...choices: readonly Expression[]): Expression {
  return choices.length === 1 ? choices[0] : { kind: 'choice', choices };
}

export function star(of: Expression): Expression {
  return { kind: 'star', of };
}

export function optional(of: Expression): Expression {
  return choice(text(''), of);
}

export function rule(name: string, cost = 0): Expression {
  return { kind: 'rule', name, cost };
}

/** Ranges of the characters of a text. */
export function characters(value: string): CodeRange[] {
  return [...value].map((c) => [c.codePointAt(0) as number, c.codePointAt(0) as number]);
}

export const DIGITS: readonly CodeRange[] = [[0x30, 0x39]];

/** The expressions that an expression is made of. */
export function partsOf(e: Expression): readonly Expression[] {
  switch (e.kind) {
    case 'sequence':
      return e.parts;
    case 'choice':
      return e.choices;
    case 'star':
      return [e.of];
    default:
      return [];
  }
}

/** Whether an expression is no more than so many levels deep. */
export function isWithin(e: Expression, levels: number): boolean {
  return levels > 0 && partsOf(e).every((part) => isWithin(part, levels - 1));
}

/** Characters of a class that few tokens fit. */
const NARROW = 10;

/**
 * What an expression adds to the time that a grammar takes to compile: the grammar engine tries the vocabulary on each
 * text and class, as often as it is written out. Few tokens fit a text or the digits: 16 of those count as one. A
 * class beyond ASCII is several of bytes.
 */
export function costOf(e: Expression): number {
  return partsOf(e).reduce((cost, part) => cost + costOf(part), ownCostOf(e));
}

function ownCostOf(e: Expression): number {
  switch (e.kind) {
    case 'text':
      return 1 / 16;
    case 'class':
      return e.most * weightOf(e.ranges);
    case 'rule':
      return e.cost;
    default:
      return 0;
  }
}

/** What costs most of an expression's classes and places of rules. */
export function widestOf(e: Expression): number {
  const own = e.kind === 'class' ? weightOf(e.ranges) : e.kind === 'rule' ? e.cost : 0;
  return partsOf(e).reduce((cost, part) => Math.max(cost, widestOf(part)), own);
}

function weightOf(ranges: readonly CodeRange[]): number {
  if (ranges.reduce((n, [from, to]) => n + to - from + 1, 0) <= NARROW) return 1 / 16;
  return ranges.some(([, to]) => to > 0x7f) ? 16 : 1;
}

/**
 * The grammar without what never ends: a rule that cannot come to an end is nothing, and choices of it are left out.
 * @returns null where the root itself has no end
 */
export function prune({ root, rules }: Grammar): Grammar | null {
  const ending = new Set<string>();
  const ends = (e: Expression): boolean => {
    switch (e.kind) {
      case 'text':
      case 'class':
      case 'star':
        return true;
      case 'sequence':
        return e.parts.every(ends);
      case 'choice':
        return e.choices.some(ends);
      case 'rule':
        return ending.has(e.name);
    }
  };
  for (let before = -1; before !== ending.size; ) {
    before = ending.size;
    for (const [name, body] of rules) if (!ending.has(name) && ends(body)) ending.add(name);
  }
  if (!ends(root)) return null;
  const cut = (e: Expression): Expression => {
    switch (e.kind) {
      case 'sequence':
        return sequence(...e.parts.map(cut));
      case 'choice':
        return choice(...e.choices.filter(ends).map(cut));
      case 'star':
        return ends(e.of) ? star(cut(e.of)) : text('');
      default:
        return e;
    }
  };
  const kept: Rules = new Map();
  const keep = (e: Expression): void => {
    for (const name of names(e)) {
      if (kept.has(name)) continue;
      const body = cut(rules.get(name) as Expression);
      kept.set(name, body);
      keep(body);
    }
  };
  const cutRoot = cut(root);
  keep(cutRoot);
  return { root: cutRoot, rules: kept };
}

function* names(e: Expression): Generator<string> {
  if (e.kind === 'rule') yield e.name;
  for (const part of partsOf(e)) yield* names(part);
}

/** The grammar as EBNF: the root's rule is `root`. */
export function toEbnf({ root, rules }: Grammar): string {
  const lines: string[] = [];
  let parts = 0;

  /** @param depth of parentheses: what is deeper than the engine's stack bears becomes a rule of its own */
  function write(e: Expression, depth: number): string {
    switch (e.kind) {
      case 'text':
        return writeText(encodeBytes(new TextEncoder().encode(e.text)));
      case 'class':
        return writeRanges(e.ranges, e.least, e.most);
      case 'sequence':
        return e.parts.length === 0 ? '""' : e.parts.map((p) => inside(p, depth)).join(' ');
      case 'choice':
        return e.choices.map((c) => inside(c, depth)).join(' | ');
      case 'star':
        return `(${write(e.of, depth + 1)})*`;
      case 'rule':
        return e.name;
    }
  }

  function inside(e: Expression, depth: number): string {
    if (e.kind !== 'choice') return write(e, depth);
    if (depth < MAX_PARENTHESES) return `(${write(e, depth + 1)})`;
    const name = `part_${parts++}`;
    define(name, e);
    return name;
  }

  function define(name: string, body: Expression): void {
    lines.push(`${name} ::= ${write(body, 0)}`);
  }

  define('root', root);
  for (const [name, body] of rules) define(name, body);
  return `${lines.join('\n')}\n`;
}

const MAX_PARENTHESES = 16;

function writeRanges(ranges: readonly CodeRange[], least: number, most: number): string {
  const times = least === 1 && most === 1 ? '' : `{${least},${most}}`;
  const all = ranges.flatMap(([from, to]) => utf8Ranges(from, to));
  // ASCII goes into one class; what has several bytes is an alternative each.
  const ascii = all.filter((bytes) => bytes.length === 1).map(([byte]) => byte);
  const longer = all.filter((bytes) => bytes.length > 1);
  const choices = [...(ascii.length > 0 ? [writeClass(ascii)] : []), ...longer.map(writeBytes)];
  return choices.length === 1 ? choices[0] + times : `(${choices.join(' | ')})${times}`;
}

// The engine's classes are sure for ASCII alone: beyond it, builds differ in what a range or a single character means.
// So grammar and vocabulary are written in ASCII: a byte from 0x80 on is a mark and a character of its own.
const MARK = '\u0001';
/** Stands for bytes that no grammar here has: the mark itself, and 0xff. */
const NEVER = '\u0002';
/** 0x80 becomes the character 1: the end of a C string would be in the way. */
const SHIFT = 0x7f;

/** Bytes as the engine is given them. */
export function encodeBytes(bytes: Iterable<number>): string {
  let encoded = '';
  for (const byte of bytes) {
    if (byte === 1 || byte === 0 || byte === 0xff) encoded += NEVER;
    else encoded += byte < 0x80 ? String.fromCharCode(byte) : MARK + String.fromCharCode(byte - SHIFT);
  }
  return encoded;
}

function writeText(encoded: string): string {
  return `"${[...encoded].map((c) => (/^[\w :,.{}()+*/=<>-]$/.test(c) ? c : writeCode(c.charCodeAt(0)))).join('')}"`;
}

function writeCode(code: number): string {
  return `\\u${code.toString(16).padStart(4, '0')}`;
}

type ByteRange = readonly [from: number, to: number];

function writeClass(ranges: readonly ByteRange[]): string {
  const inside = ranges.map(([from, to]) =>
    from === to ? writeCode(from) : `${writeCode(from)}-${writeCode(to)}`,
  );
  return `[${inside.join('')}]`;
}

/** A sequence of bytes from 0x80 on. */
function writeBytes(bytes: readonly ByteRange[]): string {
  const mark = writeText(MARK);
  return bytes.map(([from, to]) => `${mark} ${writeClass([[from - SHIFT, to - SHIFT]])}`).join(' ');
}

/** The UTF-8 encodings of a range of code points: sequences of byte ranges. No range holds surrogates. */
export function utf8Ranges(from: number, to: number): ByteRange[][] {
  for (const last of [0x7f, 0x7ff, 0xffff])
    if (from <= last && last < to) return [...utf8Ranges(from, last), ...utf8Ranges(last + 1, to)];
  const length = to <= 0x7f ? 1 : to <= 0x7ff ? 2 : to <= 0xffff ? 3 : 4;
  // Cut where the bytes before the last ones differ, so that those run from their least to their greatest.
  for (let i = 1; i < length; i++) {
    const low = 2 ** (6 * i) - 1;
    const [fromHigh, toHigh] = [Math.floor(from / (low + 1)), Math.floor(to / (low + 1))];
    if (fromHigh === toHigh) continue;
    if ((from & low) !== 0) {
      const cut = fromHigh * (low + 1) + low;
      return [...utf8Ranges(from, cut), ...utf8Ranges(cut + 1, to)];
    }
    if ((to & low) !== low) {
      const cut = toHigh * (low + 1);
      return [...utf8Ranges(from, cut - 1), ...utf8Ranges(cut, to)];
    }
  }
  const [low, high] = [from, to].map((code) => new TextEncoder().encode(String.fromCodePoint(code)));
  return [Array.from(low, (byte, i): ByteRange => [byte, high[i]])];
}
