// What the norms of rows and of heads have in common: the root of one stretch of elements, and the pull of its gradient.
import type { Buffer, Builder, F32, I32, Vec } from '../../kernel/builder.js';

/** 1 / sqrt(mean(x^2) + eps) of the n elements from `start` on. */
export function reciprocalRoot(b: Builder, x: Buffer<'f32'>, start: I32, n: I32, eps: F32): F32 {
  const sum = b.variable(b.zero());
  b.vectors(n, (i, count) => {
    const part = b.loadVec(x, b.add(start, i), count);
    sum.set(b.mulAdd(part, part, sum.get()));
  });
  const mean = b.div(b.hsum(sum.get()), b.toFloat(n));
  return b.div(1, b.sqrt(b.add(mean, eps)));
}

/** n elements: x, its gradient dy, and the weights, which are from 0 on. */
export interface Stretch {
  readonly x: Buffer<'f32'>;
  readonly xStart: I32;
  readonly dy: Buffer<'f32'>;
  readonly dyStart: I32;
  readonly w: Buffer<'f32'>;
  readonly n: I32;
}

/** Gives body each vector of dx = scale (w dy - x scale^2 mean(x w dy)), and where it belongs from the start on. */
export function inputGradient(
  b: Builder,
  { x, xStart, dy, dyStart, w, n }: Stretch,
  scale: F32,
  body: (dx: Vec, i: I32, count: I32 | undefined) => void,
): void {
  const weighted = (i: I32, count: I32 | undefined) =>
    b.mul(b.loadVec(w, i, count), b.loadVec(dy, b.add(dyStart, i), count));
  const dot = b.variable(b.zero());
  b.vectors(n, (i, count) => {
    dot.set(b.mulAdd(weighted(i, count), b.loadVec(x, b.add(xStart, i), count), dot.get()));
  });
  const mean = b.div(b.hsum(dot.get()), b.toFloat(n));
  const pull = b.splat(b.mul(b.mul(scale, scale), mean));
  const wide = b.splat(scale);
  b.vectors(n, (i, count) => {
    const held = b.loadVec(x, b.add(xStart, i), count);
    body(b.mul(wide, b.sub(weighted(i, count), b.mul(held, pull))), i, count);
  });
}
