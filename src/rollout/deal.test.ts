// Dealing out: every sequence once, none cut by a thread's share, and the threads' shares of the cache alike.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { partStart } from '../compute/device/protocol.js';
import { deal, type Hand } from './deal.js';

const sharesOf = (rows: number, threads: number) => {
  const parts = Math.max(1, Math.min(threads, rows));
  return Array.from({ length: parts }, (_, p) => partStart(rows, parts, p + 1) - partStart(rows, parts, p));
};
/** Where each of some stretches ends that follow one another. */
const endsOf = (lengths: readonly number[]) =>
  lengths.map((_, i) => lengths.slice(0, i + 1).reduce((sum, length) => sum + length, 0));
const total = (hands: readonly Hand[]) => hands.reduce((sum, { rows }) => sum + rows, 0);

test('rows for which no thread has room are refused', () => {
  const hand = { rows: 3, position: 0 };
  assert.throws(
    () => deal([hand], [2, 1], (h) => h),
    /rows of a sequence: got 3; no thread has room for them/,
  );
});

test('no sequence is cut by a share of rows, and none is lost', () => {
  const position = fc.nat(2000);
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 64 }),
      fc.array(position, { maxLength: 200 }),
      fc.array(fc.record({ rows: fc.integer({ min: 2, max: 33 }), position }), { maxLength: 12 }),
      (threads, singles, wanted) => {
        let hands: Hand[] = singles.map((at) => ({ rows: 1, position: at }));
        // As the engine lets them join: what has several rows fits into the smallest share.
        for (const more of wanted) {
          const next = [...hands, more];
          const several = total(next.filter(({ rows }) => rows > 1));
          if (several <= sharesOf(total(next), threads)[0]) hands = next;
        }
        const shares = sharesOf(total(hands), threads);
        const order = deal(hands, shares, (hand) => hand);
        assert.deepEqual(new Set(order), new Set(hands));
        assert.equal(order.length, hands.length);
        const ends = new Set(endsOf(order.map(({ rows }) => rows)));
        for (const cut of endsOf(shares)) assert.ok(cut === 0 || ends.has(cut), `a share ends at ${cut}`);
      },
    ),
    { numRuns: 1000 },
  );
});

test('old and young sequences are mixed: no thread has more than its share of the cache', () => {
  const hands = Array.from({ length: 64 }, (_, i) => ({ rows: 1, position: 10 * i }));
  for (const threads of [2, 3, 4]) {
    const shares = sharesOf(64, threads);
    const order = deal(hands, shares, (hand) => hand);
    const means = endsOf(shares).map((end, i) => {
      const mine = order.slice(end - shares[i], end);
      return mine.reduce((sum, { position }) => sum + position, 0) / shares[i];
    });
    assert.ok(Math.max(...means) < 1.08 * Math.min(...means), means.join());
  }
});
