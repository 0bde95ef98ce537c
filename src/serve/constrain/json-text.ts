// The pieces of JSON text as grammars: strings, numbers, and any value.
//
// A subset that every reader takes the same way: one space at most after a comma or a colon, no escapes of surrogates
// (a length is counted in code points), digits that float64 holds.
import {
  type CodeRange,
  characters,
  choice,
  DIGITS,
  type Expression,
  oneOf,
  optional,
  type Rules,
  rule,
  sequence,
  someOf,
  star,
  text,
} from './expression.js';

const HEX: readonly CodeRange[] = [...DIGITS, [0x41, 0x46], [0x61, 0x66]];

/** What a string holds without escaping. */
export const PLAIN: readonly CodeRange[] = [
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0xd7ff],
  [0xe000, 0x10ffff],
];

/** Digits before and after the point: together exact, and far from infinity with any exponent of two digits. */
export const MAX_DIGITS = 15;

const escapeSequence = sequence(
  text('\\'),
  choice(
    oneOf(characters('"\\/bfnrt')),
    sequence(
      text('u'),
      choice(
        sequence(
          oneOf([...DIGITS, [0x41, 0x43], [0x45, 0x46], [0x61, 0x63], [0x65, 0x66]]),
          someOf(HEX, 3, 3),
        ),
        sequence(oneOf(characters('dD')), oneOf([[0x30, 0x37]]), someOf(HEX, 2, 2)),
      ),
    ),
  ),
);

export const space = optional(text(' '));
export const comma = sequence(text(','), space);
export const colon = sequence(text(':'), space);

/** Names of the rules that `addJsonRules` defines. */
export const ANY = rule('json_value');
export const STRING = rule('json_string');
/** One code point of a string, as JSON writes it. */
export const CHARACTER = rule('json_character');
export const INTEGER = rule('json_integer');
export const NUMBER = rule('json_number');
export const OBJECT = rule('json_object');
const ARRAY = rule('json_array');

export function addJsonRules(rules: Rules): void {
  const whole = choice(text('0'), sequence(oneOf([[0x31, 0x39]]), someOf(DIGITS, 0, MAX_DIGITS - 1)));
  const member = sequence(STRING, colon, ANY);
  const list = (item: Expression) => optional(sequence(item, star(sequence(comma, item))));
  rules.set('json_character', choice(oneOf(PLAIN), escapeSequence));
  rules.set('json_string', sequence(text('"'), star(CHARACTER), text('"')));
  rules.set('json_integer', sequence(optional(text('-')), whole));
  rules.set(
    'json_number',
    sequence(
      INTEGER,
      optional(sequence(text('.'), someOf(DIGITS, 1, MAX_DIGITS))),
      optional(sequence(oneOf(characters('eE')), optional(oneOf(characters('+-'))), someOf(DIGITS, 1, 2))),
    ),
  );
  rules.set('json_object', sequence(text('{'), list(member), text('}')));
  rules.set('json_array', sequence(text('['), list(ANY), text(']')));
  rules.set('json_value', choice(OBJECT, ARRAY, STRING, NUMBER, text('true'), text('false'), text('null')));
}

/** The text of a value, written one way. */
export function literal(value: unknown): Expression {
  return text(JSON.stringify(value));
}

/**
 * Items one after another with commas between, `least` to `most` of them.
 * @param at the item of a place; from `fixed` on all places have the same
 */
export function items(
  at: (place: number) => Expression,
  fixed: number,
  least: number,
  most: number,
): Expression {
  const last = Number.isFinite(most) ? most : Math.max(least, fixed, 1);
  let rest: Expression = Number.isFinite(most) ? text('') : star(sequence(comma, at(last)));
  for (let place = last - 1; place >= 0; place--) {
    const more = sequence(...(place === 0 ? [] : [comma]), at(place), rest);
    rest = place >= least ? optional(more) : more;
  }
  return rest;
}
