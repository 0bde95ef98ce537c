// JSON schemas as grammars: every text of the grammar is a JSON value that the schema takes.
//
// The grammar may be narrower than the schema, never wider: objects get the properties that the schema names, keys in
// its order. A keyword that it does not know is refused by name, so that nothing is left unchecked.
import { ApiError } from '../errors.js';
import {
  choice,
  costOf,
  type Expression,
  type Grammar,
  isWithin,
  NOTHING,
  optional,
  prune,
  type Rules,
  rule,
  sequence,
  star,
  text,
  toEbnf,
  widestOf,
} from './expression.js';
import {
  ANY,
  addJsonRules,
  CHARACTER,
  colon,
  comma,
  INTEGER,
  items,
  literal,
  NUMBER,
  OBJECT,
  STRING,
} from './json-text.js';
import { PatternProblem, patternExpression } from './pattern.js';
import { type Bounds, integerWithin, numberWithin } from './range.js';

/** Say something about a value, and ask nothing of it. */
const ANNOTATIONS = new Set([
  ...['$schema', '$id', '$comment', '$defs', 'definitions', 'title', 'description', 'default', 'examples'],
  ...['deprecated', 'readOnly', 'writeOnly'],
]);

/** Keywords by the type that they are about. */
const BY_TYPE = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems'],
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
} as const;

const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'] as const;
type Type = (typeof TYPES)[number];

/** Every keyword that has an effect. */
export const KEYWORDS: readonly string[] = [
  ...['type', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', '$ref'],
  ...Object.values(BY_TYPE).flat(),
];

const YEAR = '[0-9]{4}';
const DAY =
  '(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))';
const CLOCK =
  '(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9])';
const BYTE = '(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])';
const LABEL = '[a-z0-9]{1,20}(?:-[a-z0-9]{1,20})?';

/** Formats, as patterns of texts that have them. */
export const FORMATS: Readonly<Record<string, string>> = {
  date: `^${YEAR}-${DAY}$`,
  time: `^${CLOCK}$`,
  'date-time': `^${YEAR}-${DAY}T${CLOCK}$`,
  uuid: '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$',
  ipv4: `^${BYTE}\\.${BYTE}\\.${BYTE}\\.${BYTE}$`,
  email: `^[a-z0-9]{1,20}(?:[._-][a-z0-9]{1,20}){0,2}@(?:${LABEL}\\.){1,2}[a-z]{2,10}$`,
  uri: `^https?://(?:${LABEL}\\.){1,2}[a-z]{2,10}(?:/[a-zA-Z0-9_-]{1,20}){0,4}$`,
};

/** Strings and lists are counted up to here; a schema that allows more gets no more. */
const MAX_COUNT = 512;
const MAX_DEPTH = 64;
const MAX_SCHEMA = 64 << 10;
const MAX_GRAMMAR = 512 << 10;
/**
 * Most that a grammar may cost to compile. The engine's thread does it, and generates nothing meanwhile: for 50,000 tokens
 * of vocabulary it takes a core up to a second.
 */
const MAX_COST = 512;
/** Levels of an expression: a grammar is copied between threads, whose stacks end at some 1200. */
const MAX_NESTING = 1100;

type Schema = Readonly<Record<string, unknown>>;

/** The grammar of any JSON object, for `response_format: json_object`. */
export function objectGrammar(): Grammar {
  const rules: Rules = new Map();
  addJsonRules(rules);
  return { root: OBJECT, rules };
}

/**
 * The grammar of a schema's values.
 * @param param names the schema in errors
 * @throws ApiError 400 naming the keyword that is not supported and where it is; or where no value fits
 */
export function schemaGrammar(schema: unknown, param: string): Grammar {
  if (JSON.stringify(schema).length > MAX_SCHEMA)
    throw refusal(param, `it has more than ${MAX_SCHEMA} characters`);
  const grammar = new SchemaReader(schema, param).read();
  if (![grammar.root, ...grammar.rules.values()].every((e) => isWithin(e, MAX_NESTING)))
    throw refusal(param, 'it is nested too deeply once it is written out');
  const pruned = prune(grammar);
  if (!pruned) throw refusal(param, 'no value fits it, or none that ends');
  checkCost(pruned, param);
  if (toEbnf(pruned).length > MAX_GRAMMAR) throw refusal(param, 'it is too large once it is written out');
  return pruned;
}

/** @throws ApiError 400 where a grammar would take long to compile */
export function checkCost({ root, rules }: Grammar, param: string): void {
  const cost = [root, ...rules.values()].reduce((sum, e) => sum + costOf(e), 0);
  if (cost > MAX_COST) throw refusal(param, tooCostly(cost));
}

function tooCostly(cost: number): string {
  return `its repetitions written out, its character classes count ${Math.ceil(cost)} (one beyond ASCII, as "." is, counts 16, and 16 of at most 10 characters, or texts, count 1); at most ${MAX_COST} are supported: shorten its patterns, or give lengths by maxLength`;
}

function refusal(param: string, message: string): ApiError {
  return new ApiError(400, `${param}: ${message}`, { param, code: 'invalid_schema' });
}

class SchemaReader {
  readonly #root: unknown;
  readonly #param: string;
  readonly #rules: Rules = new Map();
  /** Rules of `$ref`s, by pointer. */
  readonly #references = new Map<string, string>();
  /** Rules of strings, by the pattern that they match; and what all of them cost. */
  readonly #patterns = new Map<string, Expression>();
  /** Rules of patterns and of what they repeat, by what they say. */
  readonly #parts = new Map<string, Expression>();
  #patternCost = 0;
  /** References that are being read, and nothing of whose text has come yet. */
  #unit = new Set<string>();

  constructor(root: unknown, param: string) {
    this.#root = root;
    this.#param = param;
    addJsonRules(this.#rules);
  }

  read(): Grammar {
    return { root: this.#schema(this.#root, '#', 0), rules: this.#rules };
  }

  #refuse(path: string, message: string): ApiError {
    return refusal(this.#param, `at ${path}: ${message}`);
  }

  #schema(schema: unknown, path: string, depth: number): Expression {
    if (depth > MAX_DEPTH) throw this.#refuse(path, `it is more than ${MAX_DEPTH} levels deep`);
    if (schema === true) return ANY;
    if (schema === false) return NOTHING;
    if (typeof schema !== 'object' || schema === null || Array.isArray(schema))
      throw this.#refuse(path, 'a schema is an object, true or false');
    const s = schema as Schema;
    const keywords = Object.keys(s).filter((k) => !ANNOTATIONS.has(k));
    for (const keyword of keywords)
      if (!KEYWORDS.includes(keyword))
        throw this.#refuse(
          path,
          `the keyword ${keyword} is not supported; supported are ${KEYWORDS.join(', ')}`,
        );
    for (const keyword of ['$ref', 'anyOf', 'oneOf', 'allOf'] as const) {
      if (!keywords.includes(keyword)) continue;
      const others = keywords.filter((k) => k !== keyword);
      if (others.length > 0)
        throw this.#refuse(
          path,
          `${keyword} beside ${others.join(', ')} is not supported; write it into each branch`,
        );
      return this.#combined(keyword, s[keyword], path, depth);
    }
    return this.#typed(s, keywords, path, depth);
  }

  #combined(
    keyword: '$ref' | 'anyOf' | 'oneOf' | 'allOf',
    value: unknown,
    path: string,
    depth: number,
  ): Expression {
    if (keyword === '$ref') return this.#reference(value, path, depth);
    if (!Array.isArray(value) || value.length === 0)
      throw this.#refuse(path, `${keyword} is a list of schemas`);
    if (keyword === 'allOf' && value.length > 1)
      throw this.#refuse(path, 'allOf of several schemas is not supported; write them as one');
    if (keyword === 'oneOf') this.#checkApart(value, path);
    return choice(...value.map((one, i) => this.#schema(one, `${path}/${keyword}/${i}`, depth + 1)));
  }

  #reference(pointer: unknown, path: string, depth: number): Expression {
    if (typeof pointer !== 'string' || !/^#(\/|$)/.test(pointer))
      throw this.#refuse(
        path,
        `$ref: got ${JSON.stringify(pointer)}; only pointers into this schema are supported`,
      );
    // One that leads back to itself by nothing but references adds no text.
    if (this.#unit.has(pointer)) return NOTHING;
    const known = this.#references.get(pointer);
    if (known) return rule(known);
    const name = `ref_${this.#references.size}`;
    this.#references.set(pointer, name);
    this.#unit.add(pointer);
    this.#rules.set(name, this.#schema(this.#lookUp(pointer, path), pointer, depth + 1));
    this.#unit.delete(pointer);
    return rule(name);
  }

  #lookUp(pointer: string, path: string): unknown {
    let value: unknown = this.#root;
    for (const part of pointer.split('/').slice(1)) {
      const name = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~');
      const there = typeof value === 'object' && value !== null && Object.hasOwn(value, name);
      if (!there) throw this.#refuse(path, `$ref: there is nothing at ${pointer}`);
      value = (value as Record<string, unknown>)[name];
    }
    return value;
  }

  /** What comes after the first character of a value: references in there do not lead back at once. */
  #inside<T>(read: () => T): T {
    const outer = this.#unit;
    this.#unit = new Set();
    try {
      return read();
    } finally {
      this.#unit = outer;
    }
  }

  #typed(s: Schema, keywords: readonly string[], path: string, depth: number): Expression {
    const types = this.#types(s, path);
    if ('const' in s || 'enum' in s) return this.#values(s, keywords, types, path);
    if (types === null && keywords.length === 0) return ANY;
    const body = choice(
      ...(types ?? TYPES).map((type) => this.#ofType(type, s, path, depth, types === null)),
    );
    if (body.kind === 'rule' || body.kind === 'text') return body;
    // Written once, however often a list repeats it.
    const name = `value_${this.#rules.size}`;
    this.#rules.set(name, body);
    return rule(name);
  }

  /** The types that a schema names, or null where it leaves them open. */
  #types({ type }: Schema, path: string): readonly Type[] | null {
    if (type === undefined) return null;
    const given = Array.isArray(type) ? type : [type];
    for (const one of given)
      if (!TYPES.includes(one as Type))
        throw this.#refuse(path, `type: got ${JSON.stringify(one)}; it is one of ${TYPES.join(', ')}`);
    return given as Type[];
  }

  #values(s: Schema, keywords: readonly string[], types: readonly Type[] | null, path: string): Expression {
    const others = keywords.filter((k) => k !== 'type' && k !== 'enum' && k !== 'const');
    if (others.length > 0)
      throw this.#refuse(
        path,
        `enum or const beside ${others.join(', ')} is not supported; list the values that fit`,
      );
    if ('const' in s && 'enum' in s) throw this.#refuse(path, 'const beside enum is not supported; keep one');
    const listed = 'const' in s ? [s.const] : s.enum;
    if (!Array.isArray(listed)) throw this.#refuse(path, 'enum is a list of values');
    const fitting = types === null ? listed : listed.filter((value) => types.some((t) => hasType(value, t)));
    return choice(...fitting.map(literal));
  }

  #ofType(type: Type, s: Schema, path: string, depth: number, open: boolean): Expression {
    switch (type) {
      case 'null':
        return text('null');
      case 'boolean':
        return choice(text('true'), text('false'));
      case 'integer':
        // Where the type is open, numbers cover whole ones.
        return open ? NOTHING : this.#numeric(s, path, INTEGER, integerWithin);
      case 'number':
        return this.#numeric(s, path, NUMBER, numberWithin);
      case 'string':
        return this.#string(s, path);
      case 'array':
        return this.#inside(() => this.#array(s, path, depth));
      case 'object':
        return this.#inside(() => this.#object(s, path, depth));
    }
  }

  #numeric(s: Schema, path: string, free: Expression, within: (bounds: Bounds) => Expression): Expression {
    const bounds: Record<string, number> = {};
    for (const name of BY_TYPE.number) {
      const value = s[name];
      if (value === undefined) continue;
      if (typeof value !== 'number')
        throw this.#refuse(path, `${name}: got ${JSON.stringify(value)}; give a number`);
      bounds[name] = value;
    }
    return Object.keys(bounds).length === 0 ? free : within(bounds);
  }

  #count(s: Schema, name: string, path: string): number | undefined {
    const value = s[name];
    if (value === undefined) return undefined;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0)
      throw this.#refuse(path, `${name}: got ${JSON.stringify(value)}; give a whole number`);
    return value;
  }

  /** Least and most of something that is counted. */
  #counts(s: Schema, names: readonly [string, string], path: string): [number, number] | null {
    const least = this.#count(s, names[0], path) ?? 0;
    const most = this.#count(s, names[1], path);
    if (least > MAX_COUNT)
      throw this.#refuse(path, `${names[0]}: got ${least}; at most ${MAX_COUNT} is supported`);
    return [least, most === undefined ? Number.POSITIVE_INFINITY : Math.min(most, MAX_COUNT)];
  }

  #string(s: Schema, path: string): Expression {
    const [least, most] = this.#counts(s, ['minLength', 'maxLength'], path) as [number, number];
    const counted = least > 0 || Number.isFinite(most);
    const { pattern, format } = s;
    if (pattern === undefined && format === undefined) {
      if (!counted) return STRING;
      if (least > most) return NOTHING;
      return sequence(text('"'), repeated(CHARACTER, least, most), text('"'));
    }
    if ((pattern !== undefined && format !== undefined) || counted)
      throw this.#refuse(
        path,
        'pattern, format and a length beside each other are not supported; write one pattern',
      );
    let source = pattern;
    if (pattern === undefined) {
      if (typeof format !== 'string' || !Object.hasOwn(FORMATS, format))
        throw this.#refuse(
          path,
          `format: got ${JSON.stringify(format)}; supported are ${Object.keys(FORMATS).join(', ')}`,
        );
      source = FORMATS[format];
    }
    if (typeof source !== 'string') throw this.#refuse(path, 'pattern is a text');
    return this.#matching(source, path);
  }

  /** Strings that match a pattern: a rule, written once however many values have it. */
  #matching(pattern: string, path: string): Expression {
    const known = this.#patterns.get(pattern);
    if (known) return known;
    let body: Expression;
    try {
      body = sequence(
        text('"'),
        patternExpression(pattern, (of) => this.#shared(of, widestOf(of))),
        text('"'),
      );
    } catch (error) {
      if (error instanceof PatternProblem) throw this.#refuse(path, `pattern: ${error.message}`);
      throw error;
    }
    const made = this.#shared(body, 0);
    // Told before all the others are read: reading them takes time too.
    if (this.#patternCost > MAX_COST) throw this.#refuse(path, `pattern: ${tooCostly(this.#patternCost)}`);
    this.#patterns.set(pattern, made);
    return made;
  }

  /** The rule of an expression of patterns, the same for the same; what each place costs that refers to it. */
  #shared(of: Expression, placeCost: number): Expression {
    const key = JSON.stringify(of);
    const known = this.#parts.get(key);
    if (known) return known;
    const name = `pattern_${this.#parts.size}`;
    const made = rule(name, placeCost);
    this.#patternCost += costOf(of);
    this.#parts.set(key, made);
    this.#rules.set(name, of);
    return made;
  }

  #array(s: Schema, path: string, depth: number): Expression {
    const [least, most] = this.#counts(s, ['minItems', 'maxItems'], path) as [number, number];
    const { prefixItems = [], items: rest = true } = s;
    if (!Array.isArray(prefixItems)) throw this.#refuse(path, 'prefixItems is a list of schemas');
    if (prefixItems.length > MAX_COUNT)
      throw this.#refuse(path, `prefixItems: got ${prefixItems.length}; at most ${MAX_COUNT} are supported`);
    if (Array.isArray(rest))
      throw this.#refuse(path, 'items as a list is not supported; name it prefixItems');
    const first = prefixItems.map((one, i) => this.#schema(one, `${path}/prefixItems/${i}`, depth + 1));
    const other = this.#schema(rest, `${path}/items`, depth + 1);
    const limit = rest === false ? Math.min(most, first.length) : most;
    if (least > limit) return NOTHING;
    const body = items((place) => first[place] ?? other, first.length, least, limit);
    return sequence(text('['), body, text(']'));
  }

  #object(s: Schema, path: string, depth: number): Expression {
    const { properties = {}, required = [], additionalProperties: more = true } = s;
    if (typeof properties !== 'object' || properties === null || Array.isArray(properties))
      throw this.#refuse(path, 'properties is an object of schemas');
    if (!Array.isArray(required) || !required.every((name) => typeof name === 'string'))
      throw this.#refuse(path, 'required is a list of names');
    const names = new Set([...Object.keys(properties), ...required]);
    // Programs that read the answer treat this one as none of the object's own, or worse.
    if (names.has('__proto__')) throw this.#refuse(path, 'a property named __proto__ is not supported');
    if (names.size === 0) {
      const value = this.#schema(more, `${path}/additionalProperties`, depth + 1);
      const member = sequence(STRING, colon, value);
      const members = more === false ? text('') : optional(sequence(member, star(sequence(comma, member))));
      return sequence(text('{'), members, text('}'));
    }
    const members = [...names].map((name) => {
      const own = Object.hasOwn(properties, name);
      const value = own ? (properties as Schema)[name] : more;
      const at = own ? `${path}/properties/${name}` : `${path}/additionalProperties`;
      return {
        text: sequence(literal(name), colon, this.#schema(value, at, depth + 1)),
        needed: required.includes(name),
      };
    });
    return sequence(text('{'), this.#members(members), text('}'));
  }

  /** Members in their order, those that are not needed left out or not. */
  #members(members: readonly { text: Expression; needed: boolean }[]): Expression {
    const base = `object_${this.#rules.size}`;
    // What may follow from a place on, once a member has come and before one has.
    let after: Expression = text('');
    let before: Expression = text('');
    for (let i = members.length - 1; i >= 0; i--) {
      const { text: member, needed } = members[i];
      const name = (kind: string, body: Expression): Expression => {
        this.#rules.set(`${base}_${kind}_${i}`, body);
        return rule(`${base}_${kind}_${i}`);
      };
      const next = name('next', sequence(member, after));
      const following = sequence(comma, next);
      before = needed ? next : name('first', choice(next, before));
      after = name('after', needed ? following : choice(following, after));
    }
    return before;
  }

  /** Branches of oneOf must exclude each other, or a value of two would be none of the schema's. */
  #checkApart(branches: readonly unknown[], path: string): void {
    branches.forEach((a, i) => {
      branches.slice(0, i).forEach((b, j) => {
        if (!this.#apart(a, b))
          throw this.#refuse(
            path,
            `oneOf/${j} and oneOf/${i} may both fit a value, which is not supported; tell them apart by type or by a required constant property, or use anyOf`,
          );
      });
    });
  }

  #apart(a: unknown, b: unknown): boolean {
    const [x, y] = [a, b].map((s) => this.#resolve(s));
    const [values, others] = [constants(x), constants(y)];
    if (values && others) return disjoint(values, others);
    const [types, otherTypes] = [typesOf(x), typesOf(y)];
    if (types && otherTypes && !types.some((t) => otherTypes.some((u) => overlap(t, u)))) return true;
    const needed = (s: Schema, name: string) =>
      typesOf(s)?.every((t) => t === 'object') === true &&
      Array.isArray(s.required) &&
      s.required.includes(name);
    const shared = Object.keys((x.properties as object | undefined) ?? {}).filter(
      (n) => needed(x, n) && needed(y, n),
    );
    return shared.some((name) => {
      const [p, q] = [x, y].map((s) =>
        constants(this.#resolve((s.properties as Schema | undefined)?.[name])),
      );
      return p && q && disjoint(p, q);
    });
  }

  /** A schema that is a reference stands for what it refers to. */
  #resolve(schema: unknown): Schema {
    let value = schema;
    for (let steps = 0; steps < MAX_DEPTH; steps++) {
      if (typeof value !== 'object' || value === null) return {};
      const { $ref } = value as Schema;
      if (typeof $ref !== 'string' || !/^#(\/|$)/.test($ref)) return value as Schema;
      value = this.#lookUp($ref, '#');
    }
    return {};
  }
}

function repeated(of: Expression, least: number, most: number): Expression {
  const needed = Array.from({ length: least }, () => of);
  if (!Number.isFinite(most)) return sequence(...needed, star(of));
  let rest: Expression = text('');
  for (let i = least; i < most; i++) rest = optional(sequence(of, rest));
  return sequence(...needed, rest);
}

function constants(s: Schema): readonly unknown[] | null {
  if ('const' in s) return [s.const];
  return Array.isArray(s.enum) ? s.enum : null;
}

function disjoint(a: readonly unknown[], b: readonly unknown[]): boolean {
  const texts = new Set(a.map((value) => JSON.stringify(value)));
  return !b.some((value) => texts.has(JSON.stringify(value)));
}

function typesOf(s: Schema): readonly string[] | null {
  if (s.type === undefined) return constants(s)?.map(typeName) ?? null;
  return [s.type].flat() as string[];
}

function typeName(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'array' : typeof value;
}

function overlap(a: string, b: string): boolean {
  const number = (t: string) => (t === 'integer' ? 'number' : t);
  return number(a) === number(b);
}

function hasType(value: unknown, type: Type): boolean {
  if (type === 'integer') return Number.isInteger(value);
  return typeName(value) === type;
}
