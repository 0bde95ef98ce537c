// Grammars as data: UTF-8 ranges hold exactly the encodings of their code points.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { utf8Ranges } from './expression.js';

const encoder = new TextEncoder();

test('UTF-8 ranges: every code point inside is in one sequence, none outside', () => {
  const code = fc.oneof(
    fc.integer({ min: 0, max: 0xd7ff }),
    fc.integer({ min: 0xe000, max: 0x10ffff }),
    fc.constantFrom(0, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff),
  );
  fc.assert(
    fc.property(code, code, fc.array(code, { minLength: 20, maxLength: 20 }), (a, b, probes) => {
      const [from, to] = [Math.min(a, b), Math.max(a, b)];
      fc.pre(to < 0xd800 || from > 0xdfff);
      const sequences = utf8Ranges(from, to);
      for (const probe of [...probes, from, to, Math.max(0, from - 1), Math.min(0x10ffff, to + 1)]) {
        if (probe >= 0xd800 && probe <= 0xdfff) continue;
        const bytes = encoder.encode(String.fromCodePoint(probe));
        const holding = sequences.filter(
          (s) =>
            s.length === bytes.length && s.every(([low, high], i) => low <= bytes[i] && bytes[i] <= high),
        );
        assert.equal(holding.length, probe >= from && probe <= to ? 1 : 0, `${probe} in ${from}..${to}`);
      }
    }),
  );
});
