// Plots as SVG texts: every point and word is there, hostile words are inert, and single points do not divide by zero.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Plot, plotSvg } from './plot-svg.js';

const point = (x: number, y: number, label?: string) => ({ x, y, low: y - 2, high: y + 2, label });
const plot = (more: Partial<Plot> = {}): Plot => ({
  title: 'countdown',
  xName: 'tokens',
  yName: 'right, %',
  series: [
    { name: 'one sample', points: [point(8, 10, 'first'), point(16, 20), point(128, 50)] },
    { name: 'pass@4', dashed: true, points: [point(32, 40), point(64, 60)] },
  ],
  ...more,
});

test('points, intervals, labels and both series; the same text again', () => {
  const svg = plotSvg(plot());
  assert.equal(svg.match(/<circle/g)?.length, 5);
  for (const words of ['countdown', 'tokens', 'right, %', 'one sample', 'pass@4', 'first'])
    assert.ok(svg.includes(`>${words}</text>`), words);
  assert.equal(svg.match(/stroke-dasharray/g)?.length, 2);
  assert.equal(plotSvg(plot()), svg);
  // 8 to 128 is a wide range: doubling the tokens is the same way everywhere.
  const [a, b, c] = [...svg.matchAll(/<circle cx="([\d.]+)"/g)].map(([, x]) => Number(x));
  assert.ok(Math.abs((c - b) / (b - a) - 3) < 0.02, `${a} ${b} ${c}`);
});

test('a single point, equal points and an unlimited range give finite places', () => {
  for (const series of [
    [{ name: 'one', points: [point(5, 0)] }],
    [
      {
        name: 'same',
        points: [
          { x: 0, y: 3, low: 3, high: 3 },
          { x: 0, y: 3, low: 3, high: 3 },
        ],
      },
    ],
    [{ name: 'wide', points: [point(1, 1), point(1e9, 99)] }],
  ])
    assert.doesNotMatch(plotSvg(plot({ series })), /NaN|Infinity|undefined/);
});

test('any words stay words', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (words) => {
      const svg = plotSvg(plot({ title: words, series: [{ name: words, points: [point(1, 2, words)] }] }));
      const inside = svg.replace(/<style>.*?<\/style>/s, '').replace(/<[^<>]*>/g, '');
      assert.doesNotMatch(inside, /[<>]|&(?!#\d+;)/);
      // No other elements than the plot's own.
      const names = new Set([...svg.matchAll(/<([a-z]+)/g)].map(([, name]) => name));
      assert.deepEqual([...names].sort(), ['circle', 'g', 'line', 'path', 'style', 'svg', 'text', 'title']);
    }),
  );
  const svg = plotSvg(plot({ title: '</title><script>alert(1)</script>\u0000' }));
  assert.ok(!svg.includes('<script') && !svg.includes('\u0000'));
});
