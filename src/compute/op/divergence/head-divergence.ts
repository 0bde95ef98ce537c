// From a student's hidden states to its divergence from a teacher, through heads whose logits never lie in memory all at once.
//
// As in head-logprob.ts: the logits of both are made for a chunk of rows at a time, forward goes from the last chunk to the
// first and backward from the first to the last, so no bit of a result depends on the chunks.
import { refuse } from '../../../errors.js';
import type { Context, Parameter } from '../../autograd.js';
import { matrixShape, type Tensor, viewOf } from '../../tensor.js';
import { linearGradients, linearInto } from '../linear/linear.js';
import { LOGITS_BYTES } from '../token-logprob/head-logprob.js';
import {
  type DivergenceRows,
  divergence,
  divergenceGradient,
  spreadTop,
  type TopTeacher,
} from './divergence.js';

/** What the teacher says of each row: hidden states [rows, d] and a head, or its likeliest tokens at the temperature. */
export type TeacherRows = { readonly hidden: Tensor; readonly head: Parameter } | TopTeacher;

export interface HeadDivergenceOptions {
  /** 0: forward KL, 1: reverse KL, between: Jensen-Shannon. */
  readonly beta: number;
  /** What logits are divided by. Default 1. */
  readonly temperature?: number;
  /** Bytes of logits in memory at once, of both. Default: `LOGITS_BYTES`; a row of each at least. */
  readonly logitsBytes?: number;
}

/**
 * The divergence, f32[rows] in nats, between softmax(hidden[rows, d] head[vocab, d]^T / temperature) and the teacher's.
 * @throws RetortError bad-kernel when the shapes do not fit; bad-input for a beta that is not from 0 to 1
 */
export function headDivergence(
  { device, tape }: Context,
  hidden: Tensor,
  head: Parameter,
  teacher: TeacherRows,
  { beta, temperature = 1, logitsBytes = LOGITS_BYTES }: HeadDivergenceOptions,
): Tensor {
  const [rows, d] = matrixShape(hidden);
  const [vocabulary] = matrixShape(head.value);
  if (!(beta >= 0 && beta <= 1))
    throw refuse('bad-input', 'beta', beta, 'give 0 (forward KL) to 1 (reverse KL)');
  checkTeacher(teacher, rows, vocabulary);
  const column = () => device.temporary([rows]);
  const all: DivergenceRows = {
    divergence: column(),
    inner: column(),
    studentPeak: column(),
    studentLogSum: column(),
    teacherPeak: column(),
    teacherLogSum: column(),
  };
  const most = Math.max(1, Math.floor(logitsBytes / (8 * vocabulary)));
  const chunks = Math.ceil(rows / most);
  const mark = device.mark();
  const shape = [Math.ceil(rows / Math.max(1, chunks)), vocabulary];
  const [studentBuffer, teacherBuffer] = [device.temporary(shape), device.temporary(shape)];
  const options = { beta, temperature, ...('ids' in teacher ? { teacherTemperature: 1 } : {}) };

  const chunk = (i: number) => {
    const start = Math.floor((rows * i) / chunks);
    const count = Math.floor((rows * (i + 1)) / chunks) - start;
    const of = (t: Tensor) => viewOf(t, [count], start);
    const wide = (t: Tensor, width: number) => viewOf(t, [count, width], start * width);
    const [student, other] = [studentBuffer, teacherBuffer].map((t) => viewOf(t, [count, vocabulary]));
    return {
      of,
      ofHidden: (t: Tensor) => wide(t, d),
      student,
      teacher: other,
      known: {
        divergence: of(all.divergence),
        inner: of(all.inner),
        studentPeak: of(all.studentPeak),
        studentLogSum: of(all.studentLogSum),
        teacherPeak: of(all.teacherPeak),
        teacherLogSum: of(all.teacherLogSum),
      },
      /** Makes both logits. */
      fill() {
        linearInto(device, wide(hidden, d), head, student);
        if ('ids' in teacher) {
          const k = teacher.ids.size / rows;
          const top = {
            ids: wide(teacher.ids, k),
            logprobs: wide(teacher.logprobs, k),
            rest: of(teacher.rest),
          };
          spreadTop(device, student, top, other, temperature);
        } else {
          const [, width] = matrixShape(teacher.hidden);
          linearInto(device, wide(teacher.hidden, width), teacher.head, other);
        }
      },
    };
  };
  for (let i = chunks - 1; i >= 0; i--) {
    const c = chunk(i);
    c.fill();
    divergence(device, c.student, c.teacher, c.known, options);
  }
  if (!tape) device.rewind(mark);
  tape?.record([all.divergence], () => {
    const seed = tape.arrived(all.divergence);
    if (!seed || rows === 0) return;
    const dhidden = tape.contribute(hidden);
    for (let i = 0; i < chunks; i++) {
      const c = chunk(i);
      if (i > 0) c.fill();
      divergenceGradient(device, c.student, c.teacher, c.known, c.of(seed), options);
      linearGradients(device, c.ofHidden(hidden), head, c.student, {
        ...dhidden,
        tensor: c.ofHidden(dhidden.tensor),
      });
    }
  });
  return all.divergence;
}

function checkTeacher(teacher: TeacherRows, rows: number, vocabulary: number): void {
  const wrong = (value: unknown) =>
    refuse('bad-kernel', `teacher of ${rows} rows of ${vocabulary} logits`, value, 'shapes must fit');
  if ('ids' in teacher) {
    const { ids, logprobs, rest } = teacher;
    if (rest.size !== rows || ids.size !== logprobs.size || (rows > 0 && ids.size % rows !== 0))
      throw wrong([ids.shape, logprobs.shape, rest.shape]);
    return;
  }
  const [count, width] = matrixShape(teacher.hidden);
  const [outputs, inputs] = matrixShape(teacher.head.value);
  if (count !== rows || outputs !== vocabulary || inputs !== width)
    throw wrong([teacher.hidden.shape, teacher.head.value.shape]);
}
