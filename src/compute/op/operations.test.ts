// Every operation: references against central differences, then all devices against the references.
import { after, test } from 'node:test';
import { checkDevices, checkReference, type OpCase, testDevices } from '../../../test/support/op.js';
import {
  attentionCase,
  biasCase,
  divergenceCase,
  embeddingCase,
  feedForwardCase,
  gatherCase,
  headNormCase,
  linearCase,
  logprobCase,
  rmsnormCase,
  ropeCase,
  swigluCase,
  twoLinearCase,
} from '../../../test/support/op-cases.js';

const devices = testDevices();
after(() => Promise.all(devices.map(({ device }) => device.close())));

const range = (n: number, f: (i: number) => number) => Array.from({ length: n }, (_, i) => f(i));

const small: OpCase[] = [
  ...[
    [1, 1, 1],
    [1, 5, 3],
    [2, 7, 9],
    [3, 16, 8],
    [5, 3, 17],
    [6, 8, 16],
    [7, 33, 15],
    [9, 15, 7],
    [13, 17, 33],
    [16, 7, 5],
    [17, 9, 1],
    [0, 4, 4],
  ].map(([r, k, n]) => linearCase(r, k, n)),
  ...[
    [1, 1],
    [1, 7],
    [3, 8],
    [5, 17],
    [4, 15],
    [9, 16],
    [2, 33],
    [0, 8],
  ].map(([r, n]) => rmsnormCase(r, n)),
  ...[
    [1, 1, 1, 1],
    [3, 5, 2, 7],
    [2, 8, 3, 16],
    [5, 3, 1, 33],
    [0, 4, 2, 8],
  ].map(([r, before, heads, n]) => headNormCase(r, before, heads, n)),
  ...[
    [1, 1],
    [3, 7],
    [9, 33],
    [0, 8],
  ].map(([r, n]) => biasCase(r, n)),
  ...[
    [1, 1],
    [3, 7],
    [2, 33],
    [0, 8],
  ].map(([r, n]) => swigluCase(r, n)),
  ...[
    [1, 1],
    [3, 7],
    [0, 8],
  ].map(([r, n]) => twoLinearCase(r, n, r + 2)),
  feedForwardCase(1, 3, 5),
  feedForwardCase(5, 7, 9),
  feedForwardCase(0, 4, 4),
  embeddingCase([], 3, 5),
  embeddingCase([0], 1, 1),
  embeddingCase([3, 0, 3, 6, 3], 7, 5),
  embeddingCase(
    range(19, (i) => (i * 5) % 11),
    11,
    17,
  ),
  gatherCase(5, [], 7),
  gatherCase(1, [0], 1),
  gatherCase(5, [4, 0, 2], 7),
  gatherCase(
    33,
    range(15, (i) => 2 * i),
    16,
  ),
  ropeCase([], 2, 6),
  ropeCase([0], 1, 2),
  ropeCase([0, 1, 2, 0, 5], 3, 6),
  ropeCase([3, 60, 9], 2, 6, [1, 2.5, 8]),
  ropeCase(
    range(9, (i) => 7 * i),
    2,
    10,
  ),
  ropeCase(
    range(5, (i) => i),
    2,
    16,
  ),
  attentionCase(2, 1, 6, []),
  attentionCase(1, 1, 2, [1]),
  attentionCase(2, 1, 6, [3, 1, 5]),
  attentionCase(4, 2, 10, [15, 16, 17]),
  attentionCase(2, 2, 8, [4, 33, 2]),
  attentionCase(3, 1, 10, [20]),
  attentionCase(4, 1, 6, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
  attentionCase(2, 2, 34, [31, 32]),
  attentionCase(2, 1, 10, [57, 40]),
  attentionCase(2, 2, 34, [36]),
  logprobCase([], 3, 5, 1),
  logprobCase([0], 1, 1, 1),
  logprobCase([15, 0], 2, 16, 0.5),
  logprobCase([14, 8, 7], 4, 15, 3, 1),
  logprobCase([2, 0, 4], 3, 5, 1, 2),
  logprobCase(
    range(9, (i) => i % 7),
    5,
    7,
    0.7,
    4,
  ),
  logprobCase(
    range(17, (i) => (i * 3) % 33),
    6,
    33,
    1.5,
    5,
  ),
  divergenceCase(0, 3, 5, { beta: 0, temperature: 1, top: null }),
  ...[0, 0.1, 0.5, 1].flatMap((beta) => [
    divergenceCase(1, 1, 2, { beta, temperature: 1, top: null }),
    divergenceCase(5, 4, 15, { beta, temperature: 0.7, top: null }, 2),
    divergenceCase(3, 2, 16, { beta, temperature: 2, top: 1 }, 1),
    divergenceCase(7, 3, 33, { beta, temperature: 0.9, top: 8 }),
    divergenceCase(4, 3, 9, { beta, temperature: 1, top: 9 }, 3),
  ]),
];

/** Past the blocks: more k than kBlock, more rows than an item, more elements than a chunk. Devices only. */
const large: OpCase[] = [
  { ...linearCase(5, 1030, 9), tolerance: 1e-5 },
  linearCase(101, 9, 20),
  // A critic's head.
  linearCase(301, 128, 1),
  rmsnormCase(70, 40),
  swigluCase(40, 70),
  twoLinearCase(40, 70, 33),
  // Several stretches of the keys that the backward pass takes at once.
  attentionCase(2, 1, 192, [150]),
];

test('references agree with central differences', () => {
  for (const op of small) checkReference(op);
});

for (const op of [...small, ...large]) test(op.name, () => checkDevices(op, devices));
