// What people read: durations, tables, rows that fit, text that a terminal does not obey.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { duration, percentWithInterval, printable, rowsOf, table, widthOf } from './terminal.js';

test('durations', () => {
  assert.deepEqual([0, 59.4, 59.6, 200, 3599, 3600, 7500].map(duration), [
    '0 s',
    '59 s',
    '1 min 00 s',
    '3 min 20 s',
    '59 min 59 s',
    '1 h 00 min',
    '2 h 05 min',
  ]);
});

test('tables', () => {
  const text = table([
    ['', 'greedy'],
    ['before', '1%'],
    ['x', '22.5%'],
  ]);
  assert.deepEqual(text.split('\n'), [
    '        greedy',
    '──────  ──────',
    'before      1%',
    'x        22.5%',
  ]);
  assert.equal(percentWithInterval(0.214, [0.18, 0.2524]), '21.4% (18.0–25.2)');
});

test('fields are joined into rows of at most the width, none is left out', () => {
  assert.deepEqual(rowsOf(['aaa', 'bbb', 'ccc'], 8), ['aaa  bbb', 'ccc']);
  assert.deepEqual(rowsOf(['aaa', 'too long for it', 'c'], 8), ['aaa', 'too long for it', 'c']);
  assert.deepEqual(rowsOf([], 8), []);
});

test('the width of a terminal, and of one that does not know it', () => {
  assert.deepEqual([{ columns: 100 }, { columns: 0 }, {}].map(widthOf), [99, 79, 79]);
});

test('control characters of a model do not reach the terminal', () => {
  assert.equal(printable('a\u001b[2Jb\u0007\n\tc\u009b'), 'a\uFFFD[2Jb\uFFFD\n\tc\uFFFD');
  assert.equal(printable('é 中 😀 −'), 'é 中 😀 −');
});
