// A model in files: what a Hugging Face folder and a GGUF file have in common once they are open.
import { z } from 'zod';
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
}

const generationSchema = z.looseObject({
  do_sample: z.boolean().nullish(),
  temperature: z.number().min(0).max(100).nullish(),
  top_k: z.number().int().min(0).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
});

/** Reads the text of a generation_config.json; penalties are not among the defaults. @throws RetortError `bad-model` naming `path` and the field */
export function parseSampling(text: string, path: string): SamplingDefaults {
  const json = parseJson(text, path, generationSchema, 'bad-model');
  const given = {
    temperature: json.do_sample === false ? 0 : json.temperature,
    topK: json.top_k,
    topP: json.top_p,
    minP: json.min_p,
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value != null));
}

/** The fields of a generation_config.json that `parseSampling` reads back. */
export function samplingJson({ temperature, topK, topP, minP }: SamplingDefaults): Record<string, unknown> {
  const sampled = temperature === 0 ? { do_sample: false } : temperature && { do_sample: true, temperature };
  const given = { top_k: topK, top_p: topP, min_p: minP };
  return {
    ...sampled,
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
  };
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
