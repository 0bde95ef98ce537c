// retort plan: what a run will take, before it is begun.
import type { Command } from 'commander';
import type { z } from 'zod';
import type { GrpoInput } from '../train/grpo.js';
import { grpoOptions } from '../train/grpo-options.js';
import { kebab } from '../train/option-flags.js';
import type { ChangedOptions } from '../train/plan/rehearsal.js';
import { type Plan, type PlanOptions, planGrpo, planPpo, planSupervised } from '../train/plan.js';
import type { PpoInput } from '../train/ppo.js';
import { ppoOptions } from '../train/ppo-options.js';
import type { SupervisedInput } from '../train/supervised.js';
import { supervisedOptions } from '../train/supervised-options.js';
import { addSchemaFlags, readSchemaFlags, whole } from './flags.js';
import { stopSignal } from './stop.js';
import { bytes, type CommonOptions, clearLive, drawLive, duration, printResult, table } from './terminal.js';

interface PlanFlags extends CommonOptions {
  readonly meanLength?: number;
  readonly measure: boolean;
}

export function addPlan(program: Command): void {
  const plan = program
    .command('plan')
    .description(
      'what a run will take before it is begun: memory by kind, time of a step; takes the flags of the run',
    );
  const grpo = plan
    .command('grpo', { isDefault: true })
    .description('plan a run of retort grpo (the default)');
  addVerb(grpo, grpoOptions, ['model', 'task'], (input, how) => planGrpo(input as GrpoInput, how));
  const ppo = plan.command('ppo').description('plan a run of retort ppo');
  addVerb(ppo, ppoOptions, ['model', 'task'], (input, how) => planPpo(input as PpoInput, how));
  for (const command of [grpo, ppo])
    command.option(
      '--mean-length <n>',
      'tokens that a completion has on average; default: plan for the longest',
      whole(1),
    );
  for (const name of ['sft', 'pretrain'] as const) {
    const command = plan.command(name).description(`plan a run of retort ${name}`);
    addVerb(command, supervisedOptions, [], (input, how) =>
      planSupervised(name, input as SupervisedInput, how),
    );
  }
}

function addVerb(
  command: Command,
  schema: z.ZodObject,
  required: readonly string[],
  run: (input: unknown, how: PlanOptions) => Promise<Plan>,
): void {
  addSchemaFlags(command, schema, required);
  command.option('--no-measure', 'memory only: measure nothing, and leave the time out');
  command.action(async () => {
    const { meanLength, measure, ...common } = command.optsWithGlobals() as PlanFlags;
    const onStage = (stage: string) => drawLive([`plan: ${stage}`]);
    const { signal } = stopSignal;
    const result = await run(readSchemaFlags(command, schema), { meanLength, measure, signal, onStage });
    clearLive();
    printResult(common, result, () => planText(result));
  });
}

const KINDS = {
  parameters: 'parameters',
  reference: 'reference model',
  gradients: 'gradients',
  optimizer: 'optimizer',
  activations: 'activations',
  kvCache: 'KV cache',
  packed: 'packed weights',
  other: 'other',
  total: 'all at once',
} as const;

export function planText(plan: Plan): string {
  const { target, threads, completionLength, mean } = plan;
  const length = completionLength === null ? '' : `, completions of up to ${completionLength} tokens`;
  const header = ['peak memory', completionLength === null ? '' : `${completionLength} tokens`];
  const rows = Object.entries(KINDS).map(([kind, name]) => {
    const of = (b: Plan['bytes']) => bytes(b[kind as keyof typeof KINDS]);
    return [name, of(plan.bytes), ...(mean ? [of(mean.bytes)] : [])];
  });
  if (mean) header.push(`${mean.completionLength} tokens`);
  return [
    `${plan.command}: ${plan.parameters} parameters${length}; ${target.name}, ${threads} threads`,
    '',
    table([header, ...rows]),
    '',
    memoryText(plan),
    ...secondsText(plan),
  ].join('\n');
}

function memoryText({ memory: { needed, machine, fits, instead }, bytes: of }: Plan): string {
  const all = `with gaps between blocks and the program itself: ${bytes(needed)} of ${bytes(machine)}`;
  if (fits) return `${all}: it fits`;
  if (instead) {
    const flags = flagsOf(instead.options);
    return `${all}: it does not fit; with ${flags} it takes ${bytes(instead.needed)} and does`;
  }
  const model = bytes(of.parameters + of.gradients + of.optimizer + of.packed);
  return (
    `${all}: it does not fit, and smaller batches do not help; parameters, gradients, optimizer and packed ` +
    `weights take ${model}: use a smaller model or a machine with more memory`
  );
}

function flagsOf(options: ChangedOptions): string {
  return Object.entries(options)
    .map(([name, value]) => (value === true ? `--${kebab(name)}` : `--${kebab(name)} ${value}`))
    .join(' ');
}

function secondsText({ seconds, steps, completionLength, mean }: Plan): string[] {
  if (!seconds) return ['the time of a step was not measured'];
  const { evaluation, ...phases } = seconds.phases;
  const parts = Object.entries(phases).map(([name, s]) => `${name} ${s.toFixed(2)} s`);
  const which =
    completionLength === null
      ? ''
      : ` with completions of ${mean?.completionLength ?? completionLength} tokens`;
  const lines = [`a step${which}: about ${seconds.step.toFixed(2)} s (${parts.join(', ')})`];
  if (evaluation !== undefined) lines.push(`an evaluation: about ${evaluation.toFixed(2)} s`);
  lines.push(`${steps} steps: about ${duration(seconds.run)}, without rewards and files`);
  return lines;
}
