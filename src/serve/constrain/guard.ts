// An exact check of what a grammar allows, byte by byte: the last word on tokens that the grammar engine lets through.
//
// Released builds of the engine merge states of a grammar that are not the same (xgrammar pull request 632) and then
// allow too much, never too little. The engine says quickly what may come; this says whether what was drawn really may.
import { type Expression, type Grammar, utf8Ranges } from './expression.js';

/** Follows one text; bytes that the grammar does not allow lead nowhere. */
export interface Guard {
  /** Whether the bytes may come next. */
  permits(bytes: Uint8Array): boolean;
  /** Whether the text may end here. */
  readonly complete: boolean;
  /** Goes on with the bytes, which are permitted. */
  accept(bytes: Uint8Array): void;
}

/** A grammar made ready for guards; shared between them. */
export interface GuardProgram {
  readonly nodes: readonly Node[];
  readonly start: number;
  /** First nodes of the rules. */
  readonly starts: ReadonlyMap<string, number>;
}

type Node =
  | { readonly kind: 'byte'; readonly low: number; readonly high: number; readonly next: number }
  | { readonly kind: 'split'; readonly nexts: readonly number[] }
  /** Goes through a rule, then to `next`. */
  | { readonly kind: 'call'; readonly rule: string; readonly next: number }
  /** The end of a rule, or of the whole. */
  | { readonly kind: 'end' };

const END = 0;

export function guardProgram({ root, rules }: Grammar): GuardProgram {
  const nodes: Node[] = [{ kind: 'end' }];
  const add = (node: Node) => nodes.push(node) - 1;
  const split = (nexts: readonly number[]) => (nexts.length === 1 ? nexts[0] : add({ kind: 'split', nexts }));

  function build(e: Expression, next: number): number {
    switch (e.kind) {
      case 'text':
        return bytes(
          Array.from(new TextEncoder().encode(e.text), (b) => [b, b] as const),
          next,
        );
      case 'class': {
        const sequences = e.ranges.flatMap(([from, to]) => utf8Ranges(from, to));
        const one = (after: number) => split(sequences.map((sequence) => bytes(sequence, after)));
        let at = next;
        for (let i = e.least; i < e.most; i++) at = split([one(at), next]);
        for (let i = 0; i < e.least; i++) at = one(at);
        return at;
      }
      case 'sequence':
        return e.parts.reduceRight((after, part) => build(part, after), next);
      case 'choice':
        return split(e.choices.map((c) => build(c, next)));
      case 'star': {
        const nexts = [next];
        const loop = add({ kind: 'split', nexts });
        nexts.push(build(e.of, loop));
        return loop;
      }
      case 'rule':
        return add({ kind: 'call', rule: e.name, next });
    }
  }

  function bytes(sequence: readonly (readonly [number, number])[], next: number): number {
    return sequence.reduceRight((after, [low, high]) => add({ kind: 'byte', low, high, next: after }), next);
  }

  const starts = new Map([...rules].map(([name, body]) => [name, build(body, END)]));
  return { nodes, start: build(root, END), starts };
}

/** Where to go on when a rule has ended; null at the end of the whole. Equal stacks are one object. */
interface Stack {
  readonly id: number;
  readonly next: number;
  readonly below: Stack | null;
}

interface Place {
  readonly node: number;
  readonly stack: Stack | null;
}

export function createGuard({ nodes, start, starts }: GuardProgram): Guard {
  const stacks = new Map<string, Stack>();

  function push(next: number, below: Stack | null): Stack {
    const key = `${next}/${below?.id ?? ''}`;
    const known = stacks.get(key);
    if (known) return known;
    const made = { id: stacks.size, next, below };
    stacks.set(key, made);
    return made;
  }

  /** The nodes that read a byte, and the end of the whole, that are reached without reading one. */
  function reach(from: readonly Place[]): Place[] {
    const seen = new Set<string>();
    const reached: Place[] = [];
    const open = [...from];
    for (let place = open.pop(); place; place = open.pop()) {
      const { node, stack } = place;
      const key = `${node}/${stack?.id ?? ''}`;
      if (seen.has(key)) continue;
      seen.add(key);
      const n = nodes[node];
      if (n.kind === 'byte' || (n.kind === 'end' && !stack)) reached.push(place);
      else if (n.kind === 'split') for (const next of n.nexts) open.push({ node: next, stack });
      else if (n.kind === 'call')
        open.push({ node: starts.get(n.rule) as number, stack: push(n.next, stack) });
      else if (stack) open.push({ node: stack.next, stack: stack.below });
    }
    return reached;
  }

  function read(places: readonly Place[], bytes: Uint8Array): Place[] {
    let now = [...places];
    for (const byte of bytes) {
      const next: Place[] = [];
      for (const { node, stack } of now) {
        const n = nodes[node];
        if (n.kind === 'byte' && n.low <= byte && byte <= n.high) next.push({ node: n.next, stack });
      }
      if (next.length === 0) return [];
      now = reach(next);
    }
    return now;
  }

  let places = reach([{ node: start, stack: null }]);
  return {
    permits: (bytes) => read(places, bytes).length > 0,
    get complete() {
      return places.some(({ node }) => node === END);
    },
    accept(bytes) {
      places = read(places, bytes);
    },
  };
}
