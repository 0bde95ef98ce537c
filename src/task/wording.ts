// How generated tasks put their problems and write their worked traces: options that most of them share.
import { z } from 'zod';
import { thinkAnswer } from '../reward/answer.js';
import type { Random } from './random.js';
import type { TemplateName } from './task.js';

export const wordingOption = z
  .enum(['terse', 'words'])
  .default('terse')
  .describe('how a problem is put: terse for tiny models, words for those that read');

export const noiseOption = (perWhat: string) =>
  z.number().min(0).max(1).default(0.15).describe(`chance of a slip for each ${perWhat} of a worked trace`);

/** How worked traces are written down. A base for R1-Zero learns raw ones. */
export const traceOptions = {
  trace: z
    .enum(['tagged', 'raw'])
    .default('tagged')
    .describe('traces in think and answer tags, or raw working'),
  tagged: z
    .number()
    .min(0)
    .max(1)
    .default(0.03)
    .describe('share of raw traces that stand in tags all the same'),
};

/** The template that goes with a wording and the way traces are written. */
export function templateFor(o: {
  readonly wording: 'terse' | 'words';
  readonly trace: 'tagged' | 'raw';
}): TemplateName {
  if (o.trace === 'raw') return 'raw';
  return o.wording === 'words' ? 'r1' : 'terse';
}

/** The characters that terse problems and traces of a task hold: its own, and what raw working needs. */
export function alphabetFor(
  o: { readonly wording: 'terse' | 'words'; readonly trace: 'tagged' | 'raw' },
  own: string,
): string | undefined {
  if (o.wording === 'words') return undefined;
  return o.trace === 'raw' && !own.includes(' ') ? `${own} ` : own;
}

/** A worked trace: in tags, or raw: the working, a space, the answer. A base that never saw a tag cannot stumble on one. */
export function writeTrace(
  working: string,
  answer: string,
  o: { readonly trace: 'tagged' | 'raw'; readonly tagged: number },
  random: Random,
): string {
  if (o.trace === 'raw' && !random.chance(o.tagged)) return `${working} ${answer}`;
  return thinkAnswer(working, answer);
}
