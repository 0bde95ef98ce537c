// Distillation against a golden file from PyTorch: each divergence's loss and every gradient of the student.
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import type { Device } from '../src/compute/device/device.js';
import { freeLlama, type Llama, packedLogits, packSequences } from '../src/model/llama.js';
import type { Example } from '../src/text/dataset.js';
import { meanDivergence, runningTeacher, type TeacherOf } from '../src/train/divergence-loss.js';
import { likeliest } from '../src/train/top-logits.js';
import { assertGradients, goldenLlama, targets } from './golden-engine.js';
import { assertClose, readIndex, readTensors } from './golden-files.js';

const { distill: golden, a } = readIndex();
const studentFile = readTensors('a.safetensors');
const file = readTensors('distill.safetensors');
const examples: Example[] = golden.sequences.map(({ prompt, completion }) => ({
  promptIds: prompt,
  completionIds: completion,
}));

/** The teacher's likeliest tokens, not rounded. */
function topTeacher(teacher: Llama, k: number, temperature: number): TeacherOf {
  return ({ device }, pass) => {
    const rows = pass.flatMap(({ promptIds, completionIds }) => {
      const mark = device.mark();
      const batch = packSequences(teacher, [[...promptIds, ...completionIds.slice(0, -1)]]);
      const values = device.floats(packedLogits({ device, tape: null }, teacher, batch)).slice();
      device.rewind(mark);
      const n = teacher.config.vocabSize;
      return completionIds.map((_, i) => {
        const at = (promptIds.length - 1 + i) * n;
        return likeliest(values.subarray(at, at + n), k, temperature);
      });
    });
    return {
      ids: device.upload(
        rows.flatMap((r) => r.ids),
        'i32',
        [rows.length, k],
      ),
      logprobs: device.upload(
        rows.flatMap((r) => r.logprobs),
        'f32',
        [rows.length, k],
      ),
      rest: device.upload(
        rows.map((r) => r.rest),
        'f32',
      ),
    };
  };
}

for (const { name: target, open } of targets)
  describe(target, () => {
    let device: Device | undefined;
    const opened = () => {
      device ??= open();
      return device;
    };
    after(() => device?.close());
    for (const k of golden.cases)
      test(k.name, async () => {
        const student = goldenLlama(opened(), a.config, studentFile);
        const teacher = goldenLlama(opened(), golden.teacherConfig, file, 'teacher:');
        for (const { gradient } of student.groups) opened().fill(gradient!, 0);
        const said = k.top === null ? runningTeacher(teacher) : topTeacher(teacher, k.top, k.temperature);
        const o = { beta: k.beta, temperature: k.temperature, gradientCheckpointing: false };
        // Passes of one sequence and of all: the mean is over all tokens.
        for (const batchTokens of [1, 1000]) {
          for (const { gradient } of student.groups) opened().fill(gradient!, 0);
          const loss = await meanDivergence(student, said, examples, { ...o, batchTokens }, true);
          assertClose([loss], [k.loss], 'loss');
          assertGradients(student, file, `${k.name}:gradient:`);
        }
        const measured = await meanDivergence(student, said, examples, { ...o, batchTokens: 1000 }, false);
        assert.ok(Math.abs(measured - k.loss) < 1e-4 * Math.max(1, k.loss));
        for (const llama of [student, teacher]) freeLlama(llama);
      });
  });
