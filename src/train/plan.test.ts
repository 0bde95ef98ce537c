// Plans against what the engine reports of real runs: bytes by kind within 10%, for models and options of many kinds.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { COUNTDOWN_BASE } from '../../test/support/cli.js';
import { finish } from '../../test/support/finish.js';
import { writeModelFolder } from '../checkpoint/folder.js';
import { createDevice } from '../compute/device/device.js';
import type { MemoryReport } from '../compute/device/memory.js';
import type { LlamaConfig } from '../model/config.js';
import { buildCharTokenizer } from '../text/char-tokenizer.js';
import { createTokenizer, type Tokenizer } from '../text/tokenizer.js';
import { type GrpoInput, grpo } from './grpo.js';
import { type NewModelFields, newModelConfig } from './new-model.js';
import type { PlannedBytes } from './plan/memory.js';
import { type Plan, planGrpo, planPpo, planSupervised } from './plan.js';
import { newPolicy, policyFiles } from './policy.js';
import { type PpoInput, ppo } from './ppo.js';
import { pretrain, type SupervisedInput, sft } from './supervised.js';

const folder = mkdtempSync(join(tmpdir(), 'retort-plan-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** A character tokenizer without an end of sequence, so that completions get as long as they may. */
function endlessTokenizer(): Tokenizer {
  const { files } = buildCharTokenizer({ characters: '0123456789+-*/=?<>(), ;' });
  const config = JSON.parse(files['tokenizer_config.json']) as Record<string, unknown>;
  const { eos_token, bos_token, ...rest } = config;
  return createTokenizer({ ...files, 'tokenizer_config.json': JSON.stringify(rest) }, { source: 'test' });
}

type Sizes = Pick<NewModelFields, 'dModel' | 'layers' | 'heads' | 'context'> &
  Partial<NewModelFields> &
  Pick<LlamaConfig, 'qkvBias' | 'qkNorm'>;

async function modelFolder(name: string, { qkvBias, qkNorm, ...sizes }: Sizes): Promise<string> {
  const device = createDevice({ threads: 1 });
  const tokenizer = endlessTokenizer();
  const made = newModelConfig({ tieEmbeddings: false, ropeTheta: 10000, ...sizes }, tokenizer);
  const config: LlamaConfig = { ...made, ...(qkvBias && { qkvBias }), ...(qkNorm && { qkNorm }) };
  const dir = join(folder, name);
  writeModelFolder(dir, policyFiles(newPolicy(config, tokenizer, device, 1)));
  await device.close();
  return dir;
}

async function memoryOf(loop: AsyncGenerator<unknown, { memory: MemoryReport }>): Promise<MemoryReport> {
  return (await finish(loop)).result.memory;
}

/** Kinds that make a hundredth of the whole or more, and the whole. */
function assertNear(planned: PlannedBytes, real: MemoryReport, what: string): void {
  const kinds = Object.keys(real) as (keyof MemoryReport)[];
  for (const kind of kinds.filter((k) => real[k].peak > real.total.peak / 100)) {
    const off = planned[kind] / real[kind].peak - 1;
    assert.ok(Math.abs(off) <= 0.1, `${what}: ${kind} ${planned[kind]}, really ${real[kind].peak}`);
  }
  for (const kind of ['parameters', 'reference', 'gradients', 'optimizer'] as const)
    assert.equal(planned[kind], real[kind].peak, `${what}: ${kind}`);
}

const odd: Sizes = { dModel: 20, layers: 3, heads: 4, kvHeads: 2, headDim: 6, hidden: 28, context: 80 };
const tied: Sizes = {
  dModel: 51,
  layers: 2,
  heads: 3,
  kvHeads: 1,
  headDim: 18,
  context: 70,
  tieEmbeddings: true,
};
const wide: Sizes = { dModel: 96, layers: 1, heads: 6, context: 90 };
const without = { evalEnds: false } as const;

const grpoCases: readonly (readonly [string, Sizes, Partial<GrpoInput>])[] = [
  ['odd, evaluated', odd, { batchSize: 32, evalProblems: 40 }],
  ['odd, reference', odd, { ...without, batchSize: 32, beta: 0.1, refModelSyncSteps: 1 }],
  ['odd, small passes', odd, { ...without, batchSize: 48, numGenerations: 6, microBatchTokens: 300 }],
  ['tied', tied, { ...without, batchSize: 64, minibatches: 2, numIterations: 2, maxCompletionLength: 40 }],
  ['tied, reference, few at once', tied, { batchSize: 24, beta: 0.04, maxSequences: 10, evalProblems: 30 }],
  ['odd, checkpointing', odd, { ...without, batchSize: 32, gradientCheckpointing: true }],
  ['biases', { ...odd, qkvBias: true }, { ...without, batchSize: 16 }],
  ['normalised heads', { ...odd, qkNorm: true }, { ...without, batchSize: 16 }],
  [
    'odd, GSPO, entropy bonus',
    odd,
    { ...without, batchSize: 32, lossType: 'grpo', importanceSamplingLevel: 'sequence', entropyCoef: 0.01 },
  ],
  ['wide, long passes', wide, { ...without, batchSize: 128, maxCompletionLength: 50 }],
];

for (const [name, sizes, options] of grpoCases)
  test(`grpo, ${name}: bytes by kind as the engine reports them`, async () => {
    const model = await modelFolder(name, sizes);
    const input = { model, task: 'countdown', steps: 2, threads: 2, ...options } as const;
    // Such models are never right: groups of equal rewards must not be left out.
    const real = await memoryOf(grpo({ ...input, dynamicSampling: 'none' }));
    const plan = await planGrpo(input, { measure: false });
    assertNear(plan.bytes, real, name);
    assert.ok(plan.memory.needed >= plan.bytes.total && plan.memory.fits);
    assert.deepEqual([plan.seconds, plan.mean], [null, null]);
  });

const ppoCases: readonly (readonly [string, Sizes, Partial<PpoInput>])[] = [
  ['odd, reference, evaluated', odd, { batchSize: 32, evalProblems: 40, klCoef: 0.1, numMiniBatches: 2 }],
  ['odd, none but policy and critic', odd, { ...without, batchSize: 48, numGenerations: 6 }],
  [
    'tied, shared trunk',
    tied,
    { ...without, batchSize: 32, sharedTrunk: true, microBatchTokens: 700, klCoef: 0.1 },
  ],
  ['tied, checkpointing', tied, { ...without, batchSize: 32, gradientCheckpointing: true }],
  ['odd, a small critic', odd, { ...without, batchSize: 32, criticModel: 'critic' }],
  ['wide, warm-up', wide, { ...without, batchSize: 64, maxCompletionLength: 50, criticWarmupSteps: 1 }],
];

for (const [name, sizes, options] of ppoCases)
  test(`ppo, ${name}: bytes by kind as the engine reports them`, async () => {
    const model = await modelFolder(`ppo-${name}`, sizes);
    const critic = { dModel: 16, layers: 1, heads: 2, context: 100 };
    const own = options.criticModel ? { criticModel: await modelFolder('ppo-critic', critic) } : {};
    const once = { steps: 2, threads: 2, numPpoEpochs: 1 };
    const input = { model, task: 'countdown', ...once, ...options, ...own } as const;
    const real = await memoryOf(ppo(input));
    const plan = await planPpo(input, { measure: false });
    assertNear(plan.bytes, real, name);
    assert.ok(plan.memory.needed >= plan.bytes.total && plan.memory.fits);
    assert.deepEqual([plan.command, plan.seconds, plan.mean], ['ppo', null, null]);
  });

test('ppo: seconds of a step and of a run', async () => {
  const input = {
    model: COUNTDOWN_BASE,
    task: 'countdown',
    steps: 3,
    batchSize: 16,
    evalEnds: false,
  } as const;
  const { seconds } = await planPpo({ ...input, maxCompletionLength: 20 });
  assert.ok(seconds && (seconds.phases.rollout ?? 0) > 0 && (seconds.phases.update ?? 0) > 0);
  assert.ok(Math.abs(seconds.run - 3 * seconds.step) < 1e-9);
});

test('grpo, completions that end: bytes for their mean length as the engine reports them', async () => {
  const input = {
    ...{ model: COUNTDOWN_BASE, task: 'countdown', steps: 1, batchSize: 128, evalEnds: false },
    dynamicSampling: 'none',
  } as const;
  const loop = grpo(input);
  const first = await loop.next();
  assert.ok(!first.done);
  const meanLength = Math.round(first.value.metrics['completions/mean_length']);
  const real = await memoryOf(loop);
  const { mean, bytes, completionLength } = await planGrpo(input, { measure: false, meanLength });
  assert.ok(
    mean && completionLength && mean.completionLength === meanLength && meanLength < completionLength,
  );
  assertNear(mean.bytes, real, 'countdown');
  assert.ok(bytes.activations > 1.2 * mean.bytes.activations, 'the longest take more');
});

const learned = { task: 'number-sort', steps: 3, threads: 2 } as const;
const supervisedCases: readonly (readonly ['sft' | 'pretrain', SupervisedInput])[] = [
  [
    'sft',
    { ...learned, dModel: 20, layers: 3, heads: 2, kvHeads: 1, headDim: 10, hidden: 28, batchTokens: 700 },
  ],
  ['sft', { ...learned, dModel: 64, layers: 1, heads: 4, tieEmbeddings: true, gradientAccumulationSteps: 2 }],
  ['sft', { ...learned, dModel: 64, layers: 4, heads: 4, gradientCheckpointing: true }],
  ['pretrain', { ...learned, dModel: 33, layers: 2, heads: 3, headDim: 12, batchTokens: 2000, evalEvery: 2 }],
];

for (const [i, [command, input]] of supervisedCases.entries())
  test(`${command} ${i}: bytes by kind as the engine reports them`, async () => {
    const real = await memoryOf((command === 'sft' ? sft : pretrain)(input));
    const plan = await planSupervised(command, input, { measure: false });
    assertNear(plan.bytes, real, command);
    assert.equal(plan.completionLength, null);
  });

const small: GrpoInput = { model: COUNTDOWN_BASE, task: 'countdown', steps: 7, batchSize: 16, evalEvery: 3 };

test('seconds: a step is the sum of its phases, the run that of steps and evaluations', async () => {
  const { seconds } = await planGrpo({ ...small, maxCompletionLength: 20, evalProblems: 20 });
  assert.ok(seconds);
  const { rollout = 0, update = 0, evaluation = 0 } = seconds.phases;
  assert.ok(rollout > 0 && update > 0 && evaluation > 0);
  assert.ok(Math.abs(seconds.step - rollout - update) < 1e-9);
  assert.ok(Math.abs(seconds.run - 7 * seconds.step - 6 * evaluation) < 1e-9);
});

test('a run that does not fit: the options that are named make it fit; where none do, it says so', async () => {
  const o = { ...small, batchSize: 32, maxCompletionLength: 60, evalEnds: false, evalEvery: 0 };
  const whole = await planGrpo(o, { measure: false });
  const limit = whole.memory.needed - 0.5 * whole.bytes.activations;
  const tight = await planGrpo(o, { measure: false, limit });
  const { fits, instead } = tight.memory;
  assert.ok(!fits && instead && instead.needed <= limit);
  const eased = await planGrpo({ ...o, ...instead.options }, { measure: false, limit });
  assert.deepEqual([eased.memory.needed, eased.memory.fits], [instead.needed, true]);
  const hopeless: Plan = await planGrpo(o, { measure: false, limit: 1e6 });
  assert.deepEqual([hopeless.memory.fits, hopeless.memory.instead], [false, null]);
});

test('passes of one long sequence each: checkpointing is what makes them fit', async () => {
  const model = await modelFolder('deep', { dModel: 64, layers: 16, heads: 4, context: 240 });
  const o: GrpoInput = { model, task: 'countdown', batchSize: 4, numGenerations: 2, evalEnds: false };
  const long = { ...o, microBatchTokens: 100, maxSequences: 1 };
  const kept = await planGrpo(long, { measure: false });
  const limit = kept.memory.needed - 1;
  const { instead } = (await planGrpo(long, { measure: false, limit })).memory;
  assert.deepEqual(instead?.options, { gradientCheckpointing: true });
  const again = await planGrpo({ ...long, gradientCheckpointing: true }, { measure: false });
  assert.equal(again.memory.needed, instead.needed);
  assert.ok(again.bytes.activations < 0.3 * kept.bytes.activations);
});

test('bad input is refused as by the run itself', async () => {
  const says = async (input: Partial<GrpoInput>, meanLength: number | undefined, message: RegExp) =>
    assert.rejects(planGrpo({ ...small, ...input }, { measure: false, meanLength }), message);
  await says({ batchSize: 20, numGenerations: 8 }, undefined, /batchSize with numGenerations 8: got 20/);
  await says({ maxCompletionLength: 5000 }, undefined, /maxCompletionLength: got 5000/);
  await says({}, 0, /mean length of completions: got 0/);
  await says({ maxCompletionLength: 20 }, 21, /give 1 to 20 tokens/);
  await says({ model: 'nowhere' }, undefined, /nowhere.config\.json/);
  await assert.rejects(planSupervised('sft', {}, { measure: false }), /give either a task or data/);
});
