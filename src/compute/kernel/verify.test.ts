// Malformed kernels are refused, each with what is wrong with it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildKernel } from './builder.js';
import type { Instruction, Kernel, Statement, TargetInfo, ValueType } from './ir.js';
import { verifyKernel } from './verify.js';

const target: TargetInfo = { name: 'interpreter', lanes: 4, vectorRegisters: 16, fusedMulAdd: false };

/** A kernel of these statements over f32 buffer 0 and i32 buffer 1; the table of types follows the statements. */
function kernelOf(body: readonly Statement[], change: Partial<Kernel> = {}): Kernel {
  const types: ValueType[] = [];
  const note = (block: readonly Statement[]) => {
    for (const s of block) {
      if (s.kind === 'value' || s.kind === 'var') types[s.id] = s.type;
      if (s.kind === 'loop') {
        types[s.counter] = 'i32';
        note(s.body);
      }
      if (s.kind === 'if') note([...s.yes, ...s.no]);
    }
  };
  note(body);
  return {
    name: 'bad',
    buffers: [
      { name: 'x', element: 'f32' },
      { name: 'p', element: 'i32' },
    ],
    scalars: ['begin', 'end', 'part'].map((name) => ({ name, type: 'i32' as const })),
    lanes: 4,
    keepsVectors: false,
    body,
    types,
    ...change,
  };
}

function value(
  id: number,
  op: Instruction['op'],
  type: ValueType,
  args: readonly number[] = [],
  extra: Pick<Instruction, 'imm' | 'buffer'> = {},
): Instruction {
  return { kind: 'value', id, op, type, args, ...extra };
}
const zero = value(0, 'const', 'i32', [], { imm: 0 });
const one = value(1, 'const', 'f32', [], { imm: 1 });
const start = [zero, one];
const store = { kind: 'store', buffer: 0, index: 0, imm: 0, value: 1 } as const;
const loop = { kind: 'loop', counter: 5, start: 0, end: 0, step: 1, body: [] } as const;

test('sound kernels pass', () => {
  verifyKernel(kernelOf([...start, store, { ...loop, body: [value(6, 'add', 'i32', [5, 0])] }]));
  verifyKernel(
    buildKernel('good', target, { x: 'f32*', n: 'i32' }, (b, { x, n }) =>
      b.items((i) => b.vectors(n, (k, count) => b.store(x, b.add(i, k), b.loadVec(x, k, count), count))),
    ),
  );
});

const refused: [string, readonly Statement[], RegExp, Partial<Kernel>?][] = [
  ['use before definition', [value(2, 'neg', 'f32', [1]), one], /neg %2: no value %1 here/],
  [
    'use out of a loop',
    [...start, { ...loop, body: [value(6, 'neg', 'f32', [1])] }, value(7, 'neg', 'f32', [6])],
    /no value %6/,
  ],
  ['use of a counter after its loop', [...start, loop, value(7, 'add', 'i32', [5, 0])], /no value %5/],
  [
    'use in the other branch',
    [
      ...start,
      { kind: 'if', condition: 0, yes: [value(6, 'neg', 'f32', [1])], no: [value(7, 'neg', 'f32', [6])] },
    ],
    /no value %6/,
  ],
  ['two definitions', [zero, zero], /%0 is defined twice/],
  ['wrong argument count', [...start, value(2, 'add', 'f32', [1])], /add %2: takes 2 values, not 1/],
  ['mixed types', [...start, value(2, 'add', 'f32', [1, 0])], /%0 must be f32, not i32/],
  ['a result the operation has not', [...start, value(2, 'sqrt', 'i32', [0])], /cannot give i32/],
  [
    'ivec division',
    [...start, value(2, 'splat', 'ivec', [0]), value(3, 'div', 'ivec', [2, 2])],
    /div %3: cannot give ivec/,
  ],
  [
    'comparison to the wrong type',
    [...start, value(2, 'lt', 'mask', [1, 1])],
    /cannot compare f32 to give mask/,
  ],
  [
    'a select by the wrong condition',
    [...start, value(2, 'splat', 'vec', [1]), value(3, 'select', 'vec', [0, 2, 2])],
    /%0 must be mask/,
  ],
  ['no constant', [value(0, 'const', 'i32')], /undefined is no i32/],
  ['a constant that is no f32', [value(0, 'const', 'f32', [], { imm: 0.1 })], /0.1 is no f32/],
  ['a constant that is no i32', [value(0, 'const', 'i32', [], { imm: 2 ** 31 })], /is no i32/],
  ['no such scalar', [value(0, 'param', 'i32', [], { imm: 3 })], /no i32 scalar 3/],
  ['a scalar of the other type', [value(0, 'param', 'f32', [], { imm: 0 })], /no f32 scalar 0/],
  ['a long shift', [zero, value(2, 'shl', 'i32', [0], { imm: 32 })], /0 to 31, not 32/],
  ['no such buffer', [zero, value(2, 'load', 'f32', [0], { imm: 0, buffer: 2 })], /no buffer 2/],
  [
    'the wrong element',
    [zero, value(2, 'load', 'f32', [0], { imm: 0, buffer: 1 })],
    /cannot load f32 from a buffer of i32/,
  ],
  ['a masked scalar load', [zero, value(2, 'load', 'f32', [0, 0], { imm: 0, buffer: 0 })], /cannot load f32/],
  ['a float index', [...start, value(2, 'load', 'f32', [1], { imm: 0, buffer: 0 })], /%1 must be i32/],
  ['a huge offset', [zero, value(2, 'load', 'f32', [0], { imm: 2 ** 28, buffer: 0 })], /offset/],
  [
    'a store of the wrong element',
    [...start, { ...store, buffer: 1 }],
    /cannot store f32 to a buffer of i32/,
  ],
  ['a masked scalar store', [...start, { ...store, count: 0 }], /cannot store f32/],
  ['step 0', [...start, { ...loop, step: 0 }], /step must be a positive integer, not 0/],
  ['half a step', [...start, { ...loop, step: 0.5 }], /step must be/],
  ['a float condition', [...start, { kind: 'if', condition: 1, yes: [], no: [] }], /if: %1 must be i32/],
  ['a set of a value', [...start, { kind: 'set', variable: 1, value: 1 }], /no variable %1/],
  [
    'a set of another type',
    [...start, { kind: 'var', id: 2, type: 'f32', init: 1 }, { kind: 'set', variable: 2, value: 0 }],
    /%0 must be f32/,
  ],
  [
    'a variable used as a value',
    [...start, { kind: 'var', id: 2, type: 'f32', init: 1 }, value(3, 'neg', 'f32', [2])],
    /no value %2/,
  ],
  ['a get of a value', [...start, value(3, 'get', 'f32', [1])], /no variable %1/],
  [
    'an operation nobody knows',
    [...start, value(2, 'frob' as 'add', 'f32', [1, 1])],
    /unknown operation frob/,
  ],
  ['a table of types that differs', [zero], /%0 is not i32 in the table/, { types: ['f32'] }],
  ['other first scalars', [], /must be i32 begin, end, part/, { scalars: [] }],
  ['three lanes', [], /power of two, not 3/, { lanes: 3 }],
];

for (const [what, body, message, change] of refused)
  test(`refused: ${what}`, () => {
    assert.throws(() => verifyKernel(kernelOf(body, change)), {
      name: 'RetortError',
      code: 'bad-kernel',
      message,
    });
  });
