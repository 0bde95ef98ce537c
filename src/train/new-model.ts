// Models from nothing: their sizes as options, and a character-level tokenizer where none is given.
import { z } from 'zod';
import type { Device } from '../compute/device/device.js';
import { refuse } from '../errors.js';
import type { LlamaConfig } from '../model/config.js';
import { buildCharTokenizer } from '../text/char-tokenizer.js';
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.js';
import { newPolicy, type Policy, type PolicyPlan } from './policy.js';

const size = z.number().int().min(1);

/** Sizes of a new model; used where no model folder is given. */
export const newModelFields = {
  model: z.string().optional().describe('folder of the model to go on from; default: a new model'),
  tokenizer: z
    .string()
    .optional()
    .describe("folder with a new model's tokenizer; default: the task's characters"),
  dModel: size.default(128).describe('width of a new model'),
  layers: size.default(4).describe('its layers'),
  heads: size.default(4).describe('its attention heads'),
  kvHeads: size.optional().describe('its key and value heads; default: as many as heads'),
  headDim: size.optional().describe('elements of a head; default: dModel / heads'),
  hidden: size
    .optional()
    .describe('width of its feed-forward layers; default: 8/3 dModel, up to a multiple of 32'),
  context: size.default(192).describe('its longest context in tokens'),
  tieEmbeddings: z.boolean().default(false).describe('use the embedding as output head'),
  ropeTheta: z.number().positive().default(10000).describe('base of its rotary embedding'),
};
export type NewModelFields = z.output<z.ZodObject<typeof newModelFields>>;

/** A model that is there has its sizes and its tokenizer. @throws RetortError bad-input where others are given too */
export function checkNewModelFields(
  command: string,
  given: z.input<z.ZodObject<typeof newModelFields>>,
): void {
  if (given.model === undefined) return;
  const { model, ...fields } = newModelFields;
  for (const name of Object.keys(fields) as (keyof typeof fields)[]) {
    if (given[name] === undefined) continue;
    const remedy = `it is for a new model, and ${given.model} is to be gone on from: give one of the two`;
    throw refuse('bad-input', `option ${name} of ${command} with a model`, given[name], remedy);
  }
}

/** The configuration of a new model. @throws RetortError bad-input */
export function newModelConfig(o: NewModelFields, tokenizer: Tokenizer): LlamaConfig {
  if (o.headDim === undefined && o.dModel % o.heads !== 0) {
    throw refuse(
      'bad-input',
      `heads of a model of width ${o.dModel}`,
      o.heads,
      'it must divide dModel, or give headDim',
    );
  }
  return {
    vocabSize: tokenizer.vocabSize,
    hiddenSize: o.dModel,
    intermediateSize: o.hidden ?? Math.ceil((8 * o.dModel) / 3 / 32) * 32,
    numHiddenLayers: o.layers,
    numAttentionHeads: o.heads,
    numKeyValueHeads: o.kvHeads ?? o.heads,
    headDim: o.headDim ?? o.dModel / o.heads,
    maxPositionEmbeddings: o.context,
    rmsNormEps: 1e-5,
    ropeTheta: o.ropeTheta,
    tieWordEmbeddings: o.tieEmbeddings,
    bosTokenId: tokenizer.bosTokenId,
    eosTokenIds: tokenizer.eosTokenIds,
  };
}

/**
 * What a new model is to be; `alphabet` is what its tokenizer must spell where the user gives none.
 * @throws RetortError bad-input
 */
export function planNewModel(o: NewModelFields, alphabet: string | null): PolicyPlan {
  if (!o.tokenizer && alphabet === null) {
    throw refuse(
      'bad-input',
      'tokenizer of the new model',
      o.tokenizer,
      'give --tokenizer DIR, --model DIR, or a task to take the characters from',
    );
  }
  const tokenizer = o.tokenizer
    ? loadTokenizer(o.tokenizer)
    : buildCharTokenizer({ characters: alphabet as string });
  return { config: newModelConfig(o, tokenizer), tokenizer };
}

/** A new model with random weights. */
export function makeNewPolicy(
  o: NewModelFields,
  alphabet: string | null,
  device: Device,
  seed: number,
): Policy {
  const { config, tokenizer } = planNewModel(o, alphabet);
  return newPolicy(config, tokenizer, device, seed);
}
