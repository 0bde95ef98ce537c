// Random JSON schemas over the supported keywords, and random texts of a grammar, from a seed.
import type { Expression, Grammar, Rules } from '../../src/serve/constrain/expression.js';

/** Uniform in [0, 1). */
export type Random = () => number;

/** mulberry32. */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const pick = <T>(random: Random, list: readonly T[]): T => list[Math.floor(random() * list.length)];
const integer = (random: Random, from: number, to: number) => from + Math.floor(random() * (to - from + 1));

const NAMES = ['a', 'name', 'x y', 'é', '"quoted"', 'back\\slash', 'items', 'constructor', '0'];
const PATTERNS = [
  ...[
    '^[a-z]+$',
    '^\\d{2,4}-[A-F]{1,3}$',
    '^(?:ab|c[^d]?)*$',
    'x.y',
    '^\\s?\\S{3}$',
    '^[\\w.-]{1,8}@\\w+$',
    'end$',
    '^"?\\\\?$',
  ],
  ...['^[^"\\\\]{0,5}$', '^\\u{1F600}?[à-ü]{2}$', '^(a|b)(?<n>c{2}){1,2}$', '[\\]\\-x]{2}'],
];
const FORMATS = ['date', 'time', 'date-time', 'uuid', 'ipv4', 'email', 'uri'];

/** A schema that the server takes. */
export function randomSchema(random: Random, depth = 3): unknown {
  const leaf = depth === 0;
  switch (integer(random, 0, leaf ? 6 : 11)) {
    case 0:
      return { type: pick(random, ['boolean', 'null']) };
    case 1:
      return randomNumber(random, 'integer');
    case 2:
      return randomNumber(random, 'number');
    case 3:
      return randomString(random);
    case 4:
      return { enum: Array.from({ length: integer(random, 1, 4) }, () => randomValue(random)) };
    case 5:
      return { const: randomValue(random) };
    case 6:
      return { type: ['string', 'null'], maxLength: integer(random, 0, 6), title: 'a note' };
    case 7:
    case 8:
      return randomObject(random, depth);
    case 9:
      return randomArray(random, depth);
    case 10:
      return { anyOf: Array.from({ length: integer(random, 1, 3) }, () => randomSchema(random, depth - 1)) };
    default:
      return {
        oneOf: [
          randomObject(random, depth - 1, 'one'),
          randomObject(random, depth - 1, 'two'),
          { type: 'null' },
        ],
      };
  }
}

function randomNumber(random: Random, type: 'integer' | 'number'): unknown {
  const whole = () => integer(random, -2000, 2000) / (type === 'number' && random() < 0.5 ? 16 : 1);
  const [low, high] = [whole(), whole()].sort((a, b) => a - b);
  const bounds: Record<string, number> = {};
  if (random() < 0.5) bounds[random() < 0.5 ? 'minimum' : 'exclusiveMinimum'] = low - 1;
  if (random() < 0.5) bounds[random() < 0.5 ? 'maximum' : 'exclusiveMaximum'] = high + 1;
  return { type, ...bounds };
}

function randomString(random: Random): unknown {
  const kind = random();
  if (kind < 0.3) return { type: 'string', pattern: pick(random, PATTERNS) };
  if (kind < 0.6) return { type: 'string', format: pick(random, FORMATS) };
  const least = integer(random, 0, 4);
  return { type: 'string', minLength: least, maxLength: least + integer(random, 0, 8) };
}

function randomValue(random: Random): unknown {
  return pick(random, [null, true, 0, -1.5, 1e30, 'text', 'é"\\\n', [], [1, 'two'], {}, { k: [null] }]);
}

function randomObject(random: Random, depth: number, kind?: string): unknown {
  const properties: Record<string, unknown> = {};
  if (kind !== undefined) properties.kind = { const: kind };
  for (let i = integer(random, kind === undefined ? 0 : 1, 4); i > 0; i--) {
    const name = pick(random, NAMES);
    properties[name] = randomSchema(random, Math.max(0, depth - 1));
  }
  const names = Object.keys(properties);
  const required = names.filter((name) => name === 'kind' || random() < 0.6);
  if (names.length === 0) {
    const more = pick<unknown>(random, [true, false, { type: 'integer' }, { type: 'boolean' }]);
    return { type: 'object', additionalProperties: more };
  }
  const more = pick<unknown>(random, [undefined, false, { type: 'boolean' }]);
  return {
    type: 'object',
    properties,
    required,
    ...(more === undefined ? {} : { additionalProperties: more }),
  };
}

function randomArray(random: Random, depth: number): unknown {
  const least = integer(random, 0, 2);
  const prefix = Array.from({ length: integer(random, 0, 2) }, () => randomSchema(random, depth - 1));
  const closed = prefix.length > 0 && random() < 0.3;
  return {
    type: 'array',
    ...(prefix.length > 0 ? { prefixItems: prefix } : {}),
    items: closed ? false : randomSchema(random, depth - 1),
    minItems: closed ? Math.min(least, prefix.length) : least,
    ...(random() < 0.7 ? { maxItems: least + integer(random, 0, 3) } : {}),
  };
}

/** A text of the grammar; choices are random, and short ones once the text grows long. */
export function randomText(random: Random, { root, rules }: Grammar): string {
  let budget = 400;
  const sizes = shortest(rules);
  const derive = (e: Expression): string => {
    budget--;
    switch (e.kind) {
      case 'text':
        return e.text;
      case 'class': {
        const count = budget > 0 ? integer(random, e.least, Math.min(e.most, e.least + 3)) : e.least;
        return Array.from({ length: count }, () => {
          const [from, to] = pick(random, e.ranges);
          // Ranges are wide; their ends are where mistakes are.
          const code = pick(random, [
            from,
            to,
            integer(random, from, to),
            integer(random, from, Math.max(from, Math.min(to, 0x7e))),
          ]);
          return String.fromCodePoint(code);
        }).join('');
      }
      case 'sequence':
        return e.parts.map(derive).join('');
      case 'choice':
        if (budget > 0) return derive(pick(random, e.choices));
        return derive(e.choices.reduce((best, c) => (sizeIn(c, sizes) < sizeIn(best, sizes) ? c : best)));
      case 'star': {
        let all = '';
        while (budget > 0 && random() < 0.6) all += derive(e.of);
        return all;
      }
      case 'rule':
        return derive(rules.get(e.name) as Expression);
    }
  };
  return derive(root);
}

/** How deep the shortest derivation of each rule is. */
function shortest(rules: Rules): Map<string, number> {
  const sizes = new Map<string, number>();
  for (let changed = true; changed; ) {
    changed = false;
    for (const [name, body] of rules) {
      const size = sizeIn(body, sizes) + 1;
      if (size < (sizes.get(name) ?? Number.POSITIVE_INFINITY)) {
        sizes.set(name, size);
        changed = true;
      }
    }
  }
  return sizes;
}

function sizeIn(e: Expression, sizes: ReadonlyMap<string, number>): number {
  switch (e.kind) {
    case 'sequence':
      return Math.max(0, ...e.parts.map((p) => sizeIn(p, sizes)));
    case 'choice':
      return Math.min(Number.POSITIVE_INFINITY, ...e.choices.map((c) => sizeIn(c, sizes)));
    case 'rule':
      return sizes.get(e.name) ?? Number.POSITIVE_INFINITY;
    default:
      return 0;
  }
}
