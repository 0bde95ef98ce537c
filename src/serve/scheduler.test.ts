// The scheduler: every lane gets its share, nobody waits for ever, nothing is lost or started twice.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createScheduler, type Waiting } from './scheduler.js';

interface Item extends Waiting {
  readonly id: number;
}

test('slots are shared between lanes, whatever each sends', () => {
  const scheduler = createScheduler<Item>();
  for (let id = 0; id < 100; id++) scheduler.add({ id, lane: 'many', n: 1 });
  for (let id = 100; id < 103; id++) scheduler.add({ id, lane: 'few', n: 1 });
  const started = Array.from({ length: 8 }, () => scheduler.next(1) as Item);
  assert.equal(started.filter((i) => i.lane === 'few').length, 3);
  assert.deepEqual(
    started.filter((i) => i.lane === 'many').map((i) => i.id),
    [0, 1, 2, 3, 4],
  );
});

test('a request of many samples waits for its slots and is not passed over', () => {
  const scheduler = createScheduler<Item>();
  scheduler.add({ id: 0, lane: 'a', n: 8 });
  scheduler.add({ id: 1, lane: 'b', n: 1 });
  assert.equal(scheduler.next(7), undefined);
  assert.equal(scheduler.next(8)?.id, 0);
  assert.equal(scheduler.next(8)?.id, 1);
  assert.equal(scheduler.next(8), undefined);
});

test('lanes of equal use take turns', () => {
  const scheduler = createScheduler<Item>();
  for (let id = 0; id < 6; id++) scheduler.add({ id, lane: id < 3 ? 'a' : 'b', n: 1 });
  const order: string[] = [];
  for (let item = scheduler.next(1); item; item = scheduler.next(1)) {
    order.push(item.lane);
    scheduler.ended(item.lane);
  }
  assert.deepEqual(order, ['a', 'b', 'a', 'b', 'a', 'b']);
});

test('whatever is added, removed, started and ended: each item starts once or is removed, in order within its lane', () => {
  const action = fc.oneof(
    fc.record({ add: fc.constantFrom('a', 'b', 'c'), n: fc.integer({ min: 1, max: 4 }) }),
    fc.record({ remove: fc.nat(30) }),
    fc.record({ start: fc.integer({ min: 0, max: 4 }) }),
    fc.record({ end: fc.nat(30) }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const scheduler = createScheduler<Item>();
      const items: Item[] = [];
      const gone = new Set<number>();
      const running: Item[] = [];
      const started: Item[] = [];
      for (const a of actions) {
        if ('add' in a) {
          items.push({ id: items.length, lane: a.add, n: a.n });
          scheduler.add(items[items.length - 1]);
        } else if ('remove' in a) {
          const item = items[a.remove];
          const waits = item && !gone.has(item.id);
          if (item) assert.equal(scheduler.remove(item), waits);
          if (waits) gone.add(item.id);
        } else if ('start' in a) {
          const item = scheduler.next(a.start);
          if (!item) continue;
          assert.ok(item.n <= a.start && !gone.has(item.id));
          gone.add(item.id);
          started.push(item);
          running.push(item);
        } else {
          const [item] = running.splice(a.end, 1);
          if (item) scheduler.ended(item.lane, item.n);
        }
        assert.equal(scheduler.waiting, items.length - gone.size);
      }
      for (const item of running) scheduler.ended(item.lane, item.n);
      for (let item = scheduler.next(4); item; item = scheduler.next(4)) {
        gone.add(item.id);
        started.push(item);
      }
      assert.equal(gone.size, items.length);
      for (const lane of ['a', 'b', 'c']) {
        const ids = started.filter((i) => i.lane === lane).map((i) => i.id);
        assert.deepEqual(
          ids,
          [...ids].sort((x, y) => x - y),
        );
      }
    }),
  );
});
