// How far a student's next-token distribution is from its teacher's: the generalised Jensen-Shannon divergence of GKD
// (Agarwal et al., arXiv 2306.13649, equation 1), fused with both softmaxes.
//
//   beta 0: forward KL, KL(T || S); beta 1: reverse KL, KL(S || T), as TRL names the ends;
//   between: beta KL(T || M) + (1 - beta) KL(S || M) with M = beta T + (1 - beta) S.
//
// The student's logits give way to their gradient; the operation that makes both logits chunk by chunk is in
// head-divergence.ts.
import type { Device } from '../../device/device.js';
import { type Builder, buildKernel, type F32, type Vec } from '../../kernel/builder.js';
import type { Kernel, TargetInfo } from '../../kernel/ir.js';
import { exp, log } from '../../kernel/math.js';
import { matrixShape, type Tensor } from '../../tensor.js';
import { rowPeak, rowSums } from '../token-logprob/token-logprob.js';

type Kind = 'forward-kl' | 'reverse-kl' | 'jensen-shannon';

function kindOf(beta: number): Kind {
  if (beta === 0) return 'forward-kl';
  return beta === 1 ? 'reverse-kl' : 'jensen-shannon';
}

/** log(e^a + e^b). */
function logSumExp(b: Builder, x: Vec, y: Vec): Vec {
  const top = b.max(x, y);
  return b.add(top, log(b, b.add(exp(b, b.sub(x, top)), exp(b, b.sub(y, top)))));
}

/** p (a - c), 0 where p is 0: 0 times infinity must not make a NaN of it. */
function weighted(b: Builder, p: Vec, a: Vec, c: Vec): Vec {
  return b.select(b.eq(p, 0), 0, b.mul(p, b.sub(a, c)));
}

const PARAMETERS = {
  student: 'f32*',
  teacher: 'f32*',
  divergence: 'f32*',
  inner: 'f32*',
  studentPeak: 'f32*',
  studentLogSum: 'f32*',
  teacherPeak: 'f32*',
  teacherLogSum: 'f32*',
  n: 'i32',
  studentSharpness: 'f32',
  teacherSharpness: 'f32',
  beta: 'f32',
  logBeta: 'f32',
  logRest: 'f32',
} as const;

function forwardKernel(kind: Kind) {
  return (target: TargetInfo): Kernel =>
    buildKernel(`divergence-${kind}`, target, PARAMETERS, (b, p) => {
      b.items((row) => {
        const at = b.mul(row, p.n);
        const stats = (logits: typeof p.student, sharpness: F32) => {
          const peak = rowPeak(b, logits, at, p.n);
          return { peak, logSum: log(b, rowSums(b, logits, at, p.n, peak, sharpness).sum) };
        };
        const student = stats(p.student, p.studentSharpness);
        const teacher = stats(p.teacher, p.teacherSharpness);
        const s = { ...widened(b, student), sharp: b.splat(p.studentSharpness) };
        const t = { ...widened(b, teacher), sharp: b.splat(p.teacherSharpness) };
        const ofTeacher = b.variable(b.zero());
        const ofStudent = b.variable(b.zero());
        b.vectors(p.n, (i, count) => {
          const ls = logProbability(b, b.loadVec(p.student, b.add(at, i), count), s);
          const lt = logProbability(b, b.loadVec(p.teacher, b.add(at, i), count), t);
          const sum = (into: typeof ofTeacher, x: Vec) => {
            into.set(b.add(into.get(), count ? b.select(b.firstLanes(count), x, 0) : x));
          };
          if (kind === 'forward-kl') sum(ofTeacher, weighted(b, exp(b, lt), lt, ls));
          else if (kind === 'reverse-kl') sum(ofStudent, weighted(b, exp(b, ls), ls, lt));
          else {
            const lm = logSumExp(b, b.add(lt, b.splat(p.logBeta)), b.add(ls, b.splat(p.logRest)));
            sum(ofTeacher, weighted(b, exp(b, lt), lt, lm));
            sum(ofStudent, weighted(b, exp(b, ls), ls, lm));
          }
        });
        const [kt, ks] = [b.hsum(ofTeacher.get()), b.hsum(ofStudent.get())];
        const whole = {
          'forward-kl': () => kt,
          'reverse-kl': () => ks,
          'jensen-shannon': () => b.add(b.mul(p.beta, kt), b.mul(b.sub(1, p.beta), ks)),
        }[kind]();
        b.store(p.divergence, row, whole);
        b.store(p.inner, row, ks);
        b.store(p.studentPeak, row, student.peak);
        b.store(p.studentLogSum, row, student.logSum);
        b.store(p.teacherPeak, row, teacher.peak);
        b.store(p.teacherLogSum, row, teacher.logSum);
      });
    });
}

/** student becomes its gradient; `divergence` holds the gradient that arrived at each row. */
function backwardKernel(kind: Kind) {
  return (target: TargetInfo): Kernel =>
    buildKernel(`divergence-${kind}-backward`, target, PARAMETERS, (b, p) => {
      b.items((row) => {
        const at = b.mul(row, p.n);
        const known = (peak: typeof p.inner, logSum: typeof p.inner, sharpness: F32) => ({
          ...widened(b, { peak: b.load(peak, row), logSum: b.load(logSum, row) }),
          sharp: b.splat(sharpness),
        });
        const s = known(p.studentPeak, p.studentLogSum, p.studentSharpness);
        const t = known(p.teacherPeak, p.teacherLogSum, p.teacherSharpness);
        const inner = b.splat(b.load(p.inner, row));
        const seed = b.mul(b.load(p.divergence, row), p.studentSharpness);
        const scale = b.splat(kind === 'jensen-shannon' ? b.mul(seed, b.sub(1, p.beta)) : seed);
        b.vectors(p.n, (i, count) => {
          const ls = logProbability(b, b.loadVec(p.student, b.add(at, i), count), s);
          const lt = logProbability(b, b.loadVec(p.teacher, b.add(at, i), count), t);
          const ps = exp(b, ls);
          let d: Vec;
          if (kind === 'forward-kl') d = b.sub(ps, exp(b, lt));
          else {
            const other =
              kind === 'reverse-kl'
                ? lt
                : logSumExp(b, b.add(lt, b.splat(p.logBeta)), b.add(ls, b.splat(p.logRest)));
            d = weighted(b, ps, b.sub(ls, other), inner);
          }
          b.store(p.student, b.add(at, i), b.mul(d, scale), count);
        });
      });
    });
}

interface RowStatistics {
  readonly peak: F32;
  readonly logSum: F32;
}

function widened(b: Builder, { peak, logSum }: RowStatistics): { peak: Vec; logSum: Vec } {
  return { peak: b.splat(peak), logSum: b.splat(logSum) };
}

function logProbability(b: Builder, x: Vec, row: { peak: Vec; logSum: Vec; sharp: Vec }): Vec {
  return b.sub(b.mul(b.sub(x, row.peak), row.sharp), row.logSum);
}

/**
 * teacher[rows, n] becomes log-probabilities from k likeliest tokens and the rest's mass, the rest spread as the student
 * spreads it: then no divergence sees inside the rest, and each is that of k + 1 outcomes. At least one token is in the rest,
 * or its mass does not matter.
 */
function spreadKernel(target: TargetInfo): Kernel {
  return buildKernel(
    'spread-top',
    target,
    {
      student: 'f32*',
      ids: 'i32*',
      logprobs: 'f32*',
      rest: 'f32*',
      teacher: 'f32*',
      n: 'i32',
      k: 'i32',
      sharpness: 'f32',
    },
    (b, p) => {
      b.items((row) => {
        const at = b.mul(row, p.n);
        const peak = rowPeak(b, p.student, at, p.n);
        const logSum = log(b, rowSums(b, p.student, at, p.n, peak, p.sharpness).sum);
        const s = { ...widened(b, { peak, logSum }), sharp: b.splat(p.sharpness) };
        // No logarithm of a probability is above 0: what stays at 1 is of the rest.
        b.vectors(p.n, (i, count) => b.store(p.teacher, b.add(at, i), b.splat(1), count));
        b.loop(0, p.k, 1, (j) => {
          const from = b.add(b.mul(row, p.k), j);
          b.store(p.teacher, b.add(at, b.loadInt(p.ids, from)), b.load(p.logprobs, from));
        });
        const mass = b.variable(b.zero());
        b.vectors(p.n, (i, count) => {
          const ls = logProbability(b, b.loadVec(p.student, b.add(at, i), count), s);
          // Lanes past the end hold 0 and so are none of the rest.
          const inRest = b.lt(0, b.loadVec(p.teacher, b.add(at, i), count));
          mass.set(b.add(mass.get(), b.select(inRest, exp(b, ls), 0)));
        });
        const shift = b.splat(b.sub(b.load(p.rest, row), log(b, b.max(b.hsum(mass.get()), 2 ** -126))));
        b.vectors(p.n, (i, count) => {
          const ls = logProbability(b, b.loadVec(p.student, b.add(at, i), count), s);
          const lt = b.loadVec(p.teacher, b.add(at, i), count);
          b.store(p.teacher, b.add(at, i), b.select(b.lt(0, lt), b.add(ls, shift), lt), count);
        });
      });
    },
  );
}

const ROW_GRAIN = 8;

/** What is known of each row, each f32[rows]. */
export interface DivergenceRows {
  readonly divergence: Tensor;
  /** KL from the student to what it is compared with. */
  readonly inner: Tensor;
  readonly studentPeak: Tensor;
  readonly studentLogSum: Tensor;
  readonly teacherPeak: Tensor;
  readonly teacherLogSum: Tensor;
}

export interface DivergenceOptions {
  /** 0: forward KL, 1: reverse KL, between: Jensen-Shannon. */
  readonly beta: number;
  /** What both logits are divided by. */
  readonly temperature: number;
  /** What the teacher's are, where that is another: 1 for log-probabilities. */
  readonly teacherTemperature?: number;
}

function launch(
  device: Device,
  kernel: Kernel['name'],
  build: (target: TargetInfo) => Kernel,
  [student, teacher]: readonly [Tensor, Tensor],
  rows: DivergenceRows,
  { beta, temperature, teacherTemperature = temperature }: DivergenceOptions,
): void {
  const [count, n] = matrixShape(student);
  device.launch(
    device.kernel(kernel, build),
    count,
    [
      student,
      teacher,
      rows.divergence,
      rows.inner,
      rows.studentPeak,
      rows.studentLogSum,
      rows.teacherPeak,
      rows.teacherLogSum,
    ],
    [
      n,
      1 / temperature,
      1 / teacherTemperature,
      beta,
      // Not used at the ends, where they would be infinite.
      beta === 0 ? 0 : Math.log(beta),
      beta === 1 ? 0 : Math.log1p(-beta),
    ],
    ROW_GRAIN,
  );
}

/** The divergence of each row of student[rows, n] from teacher[rows, n], both logits, into `rows`. */
export function divergence(
  device: Device,
  student: Tensor,
  teacher: Tensor,
  rows: DivergenceRows,
  o: DivergenceOptions,
): void {
  const kind = kindOf(o.beta);
  launch(device, `divergence-${kind}`, forwardKernel(kind), [student, teacher], rows, o);
}

/** Overwrites the student's logits with their gradient from `seed`, f32[rows], that of the divergences. */
export function divergenceGradient(
  device: Device,
  student: Tensor,
  teacher: Tensor,
  rows: DivergenceRows,
  seed: Tensor,
  o: DivergenceOptions,
): void {
  const kind = kindOf(o.beta);
  const known = { ...rows, divergence: seed };
  launch(device, `divergence-${kind}-backward`, backwardKernel(kind), [student, teacher], known, o);
}

/** The k likeliest tokens of each row, ids and log-probabilities [rows, k], and the log of the others' mass, f32[rows]. */
export interface TopTeacher {
  readonly ids: Tensor;
  readonly logprobs: Tensor;
  readonly rest: Tensor;
}

/** Fills teacher[rows, n] with log-probabilities; the rest's mass is spread as the student spreads it. */
export function spreadTop(
  device: Device,
  student: Tensor,
  { ids, logprobs, rest }: TopTeacher,
  teacher: Tensor,
  temperature: number,
): void {
  const [rows, n] = matrixShape(student);
  const buffers = [student, ids, logprobs, rest, teacher];
  const k = rows === 0 ? 0 : ids.size / rows;
  device.launch(device.kernel('spread-top', spreadKernel), rows, buffers, [n, k, 1 / temperature], ROW_GRAIN);
}
