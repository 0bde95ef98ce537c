// The next rows of several sequences: launches recorded once for so many rows, and run again each step.
//
// Threads do not wait for each other within a recording. A row reads what rows before it of its own sequence store in the
// same step, so whoever orders the rows keeps those of a sequence together, within one thread's share (Device.shares).

import type { Recording } from '../compute/device/device.js';
import { type AttentionPlan, fillRows, planRows } from '../compute/op/attention/attention.js';
import { linear } from '../compute/op/linear/linear.js';
import {
  fillSampling,
  readSampled,
  type Sampled,
  type SampledTensors,
  type Sampling,
  sample,
  samplingTensor,
} from '../compute/op/sample/sample.js';
import type { Tensor } from '../compute/tensor.js';
import { forward, type Llama, packWeights } from '../model/llama.js';
import { attendCached, type KvCache } from './kv-cache.js';

/** A row: the next of its sequence, or one of several that follow one another. */
export interface DecodeRow {
  /** The token that goes in. */
  readonly next: number;
  readonly position: number;
  /** The sequence's blocks; they hold `position`. */
  readonly table: readonly number[];
}

export interface Decoder {
  /** Runs rows, at least one, and draws a token from each. */
  step(rows: readonly DecodeRow[], sampling: readonly Sampling[]): Decoded;
}

/** What a step gave. The logits [rows, vocab] are void once anything else is computed. */
export interface Decoded {
  readonly sampled: Sampled;
  readonly logits: Tensor;
}

/** What a step reads and writes. */
interface Step {
  readonly ids: Tensor;
  readonly positions: Tensor;
  readonly plan: AttentionPlan;
  readonly sampling: Tensor;
  readonly logits: Tensor;
  readonly sampled: SampledTensors;
}

/** A recording serves sequences up to a multiple of so many positions. */
const POSITIONS = 128;
/** Recordings kept; each takes some 10 KiB for each layer. */
const MOST_RECORDINGS = 64;
/** Weights that every core reads fast enough again and again: a part of the caches. */
const WEIGHTS_NEAR = 16 << 20;
/** Rows of a thread that make reading all the weights worth it. */
const ROWS_EACH = 16;

export function createDecoder(llama: Llama, cache: KvCache): Decoder {
  const { device } = llama;
  const context = { device, tape: null };
  const weightBytes = 4 * llama.groups.reduce((sum, { value }) => sum + value.size, 0);
  const recordings = new Map<string, Recording<Step>>();

  function fill(
    { ids, positions, plan, sampling }: Omit<Step, 'logits' | 'sampled'>,
    rows: readonly DecodeRow[],
    how: readonly Sampling[],
  ): void {
    const [idOf, positionOf] = [device.ints(ids), device.ints(positions)];
    for (let row = 0; row < rows.length; row++) {
      idOf[row] = rows[row].next;
      positionOf[row] = rows[row].position;
    }
    fillRows(device, plan, rows);
    fillSampling(device, sampling, how);
  }

  /** Makes room for a step's numbers, fills it, and launches the step. */
  function launch(rows: readonly DecodeRow[], how: readonly Sampling[], longest: number): Step {
    const inputs = {
      ids: device.temporary([rows.length], 'i32'),
      positions: device.temporary([rows.length], 'i32'),
      plan: planRows(device, rows.length, longest),
      sampling: samplingTensor(device, rows.length),
    };
    fill(inputs, rows, how);
    const hidden = forward(context, llama, inputs, attendCached(llama, cache, inputs.plan));
    const logits = linear(context, hidden, llama.head);
    return { ...inputs, logits, sampled: sample(device, logits, inputs.sampling) };
  }

  function read({ sampled, logits }: Step): Decoded {
    return { sampled: readSampled(device, sampled), logits };
  }

  return {
    step(rows, how) {
      let last = 0;
      for (const { position } of rows) last = Math.max(last, position);
      const longest = POSITIONS * Math.ceil((last + 1) / POSITIONS);
      const mark = device.mark();
      try {
        // Rows of different threads do not depend on each other, so threads need not wait between the operations; but where
        // the weights are large and the rows few, threads do better to share the weights.
        if (weightBytes > WEIGHTS_NEAR && rows.length < ROWS_EACH * device.threads)
          return read(launch(rows, how, longest));
        packWeights(llama);
        const key = `${rows.length} ${longest} ${mark.chunk} ${mark.used}`;
        let recording = device.stepwise ? undefined : recordings.get(key);
        if (recording) {
          fill(recording.result, rows, how);
        } else {
          recording = device.record(rows.length, () => launch(rows, how, longest));
          if (recordings.size >= MOST_RECORDINGS) recordings.clear();
          // What ran launch by launch left nothing to run again.
          if (!device.stepwise) recordings.set(key, recording);
        }
        device.replay(recording);
        return read(recording.result);
      } finally {
        device.rewind(mark);
      }
    },
  };
}
