// The divergence of GKD in float64: the definition that kernels are tested against.

function softmax(logits: ArrayLike<number>, temperature: number): number[] {
  const z = Array.from(logits, (x) => x / temperature);
  const peak = z.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const e = z.map((x) => Math.exp(x - peak));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}

const kl = (p: readonly number[], q: readonly number[]) =>
  p.reduce((sum, x, i) => sum + (x > 0 ? x * Math.log(x / q[i]) : 0), 0);

/** The divergence of two distributions. */
export function divergenceOf(teacher: readonly number[], student: readonly number[], beta: number): number {
  if (beta === 0) return kl(teacher, student);
  if (beta === 1) return kl(student, teacher);
  const m = teacher.map((t, i) => beta * t + (1 - beta) * student[i]);
  return beta * kl(teacher, m) + (1 - beta) * kl(student, m);
}

/** Tokens as outcomes: each by itself, or the k likeliest of the teacher and all others as one. */
function outcomes(p: readonly number[], kept: readonly number[] | null): number[] {
  if (!kept) return [...p];
  // Nothing is left for the rest.
  if (kept.length === p.length) return kept.map((i) => p[i]);
  const rest = p.reduce((sum, x, i) => (kept.includes(i) ? sum : sum + x), 0);
  return [...kept.map((i) => p[i]), rest];
}

/** The ids of the k likeliest tokens, likeliest first. */
export function topOf(logits: ArrayLike<number>, k: number): number[] {
  return Array.from(logits, (x, i) => ({ x, i }))
    .sort((a, b) => b.x - a.x || a.i - b.i)
    .slice(0, k)
    .map(({ i }) => i);
}

/** The divergence of each row of logits [rows, n]; `top` as of the teacher's likeliest tokens and the rest as one. */
export function divergenceReference(
  student: Float64Array,
  teacher: Float64Array,
  n: number,
  { beta, temperature, top }: { beta: number; temperature: number; top: number | null },
): Float64Array {
  return Float64Array.from({ length: student.length / n }, (_, row) => {
    const of = (x: Float64Array) => x.subarray(row * n, (row + 1) * n);
    const kept = top === null ? null : topOf(of(teacher), top);
    const [t, s] = [teacher, student].map((x) => outcomes(softmax(of(x), temperature), kept));
    return divergenceOf(t, s, beta);
  });
}

/** The gradient of the student's logits from that of each row's divergence. */
export function divergenceGradientReference(
  student: Float64Array,
  teacher: Float64Array,
  n: number,
  { beta, temperature, top }: { beta: number; temperature: number; top: number | null },
  dout: Float64Array,
): Float64Array {
  const d = new Float64Array(student.length);
  for (let row = 0; row < dout.length; row++) {
    const of = (x: Float64Array) => x.subarray(row * n, (row + 1) * n);
    const kept = top === null ? null : topOf(of(teacher), top);
    const p = softmax(of(student), temperature);
    const [t, s] = [softmax(of(teacher), temperature), p].map((x) => outcomes(x, kept));
    // By the probability of each outcome; what is the same for all of them falls away.
    const slope = s.map((x, i) => {
      if (beta === 0) return -t[i] / x;
      if (beta === 1) return Math.log(x / t[i]);
      return (1 - beta) * Math.log(x / (beta * t[i] + (1 - beta) * x));
    });
    const mean = s.reduce((sum, x, i) => sum + x * slope[i], 0);
    const outcomeOf = (i: number) => {
      if (!kept) return i;
      const at = kept.indexOf(i);
      return at < 0 ? kept.length : at;
    };
    for (let i = 0; i < n; i++)
      d[row * n + i] = (dout[row] * p[i] * (slope[outcomeOf(i)] - mean)) / temperature;
  }
  return d;
}
