// A model in files: what a Hugging Face folder and a GGUF file have in common once they are open.
import { z } from 'zod';
import type { Dtype } from '../compute/kernel/bfloat16.js';
import { refuse } from '../errors.js';
import type { LlamaConfig, ParameterShape } from '../model/config.js';
import { parseJson } from './files.js';

/** An opened model: every expected tensor is known to be there in the right shape; weights are not read yet. */
export interface StoredModel {
  /** The folder or the file. */
  readonly path: string;
  readonly config: LlamaConfig;
  /** What `read` gives, in the model's order: name and shape (`[rows, columns]` or `[n]`). */
  readonly parameters: readonly ParameterShape[];
  readonly sampling: SamplingDefaults;
  /** bfloat16 where the file has all matrices so: kept like that they lose nothing. Else float32. */
  readonly dtype: Dtype;
  /**
   * Reads a parameter as float32 into memory of its size, a block at a time.
   * @throws RetortError `bad-model` where a value is NaN or infinite, naming the tensor and the place.
   */
  read(name: string, into: Float32Array): void;
  close(): void;
}

/** How the model's makers would sample from it; what they left open is absent. */
export interface SamplingDefaults {
  /** 0 takes the likeliest token. */
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  /** On tokens of the prompt and the answer so far; 1 is none. */
  readonly repetitionPenalty?: number;
}

/** What each default may be. */
export const samplingValues = {
  temperature: z.number().min(0).max(100),
  topK: z.number().int().min(0),
  topP: z.number().gt(0).max(1),
  minP: z.number().min(0).max(1),
  repetitionPenalty: z.number().min(0.01).max(100),
} as const;

const generationSchema = z.looseObject({
  do_sample: z.boolean().nullish(),
  temperature: samplingValues.temperature.nullish(),
  top_k: samplingValues.topK.nullish(),
  top_p: samplingValues.topP.nullish(),
  min_p: samplingValues.minP.nullish(),
  repetition_penalty: samplingValues.repetitionPenalty.nullish(),
});

/** Reads the text of a generation_config.json. @throws RetortError `bad-model` naming `path` and the field */
export function parseSampling(text: string, path: string): SamplingDefaults {
  const json = parseJson(text, path, generationSchema, 'bad-model');
  const given = {
    temperature: json.do_sample === false ? 0 : json.temperature,
    topK: json.top_k,
    topP: json.top_p,
    minP: json.min_p,
    repetitionPenalty: json.repetition_penalty,
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value != null));
}

/** The fields of a generation_config.json that `parseSampling` reads back. */
export function samplingJson(sampling: SamplingDefaults): Record<string, unknown> {
  const { temperature, topK, topP, minP, repetitionPenalty } = sampling;
  const sampled = temperature === 0 ? { do_sample: false } : temperature && { do_sample: true, temperature };
  const given = { top_k: topK, top_p: topP, min_p: minP, repetition_penalty: repetitionPenalty };
  return {
    ...sampled,
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
  };
}

/** A stored model's dtype, from the type that its file has a parameter in. */
export function storedDtype(parameters: readonly ParameterShape[], typeOf: (name: string) => string): Dtype {
  const matrices = parameters.filter(({ shape }) => shape.length === 2);
  return matrices.every(({ name }) => typeOf(name) === 'BF16') ? 'bfloat16' : 'float32';
}

/** @throws RetortError `bad-model` for the first value that is NaN or infinite */
export function checkFinite(values: Float32Array, name: string, path: string): void {
  for (let i = 0; i < values.length; i++)
    if (!Number.isFinite(values[i]))
      throw refuse(
        'bad-model',
        `${path}: value ${i} of tensor ${name}`,
        values[i],
        'the weights are damaged: use others',
      );
}
