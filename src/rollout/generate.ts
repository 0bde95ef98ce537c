// Runs a list of requests through an engine to the end, leaving the event loop room between steps.
import { setImmediate } from 'node:timers/promises';
import { RetortError } from '../errors.js';
import type { Engine, TokenEvent } from './engine.js';
import type { Completion, GenerateRequest } from './request.js';

/**
 * Sequences that whole lists of requests run at once unless told: more outgrow the caches with their keys and values, and
 * fewer read the weights of large models too often.
 */
export const SEQUENCES_AT_ONCE = 128;

export interface GenerateProgress {
  readonly finished: number;
  readonly total: number;
  /** Tokens of this call. */
  readonly tokens: number;
}

export interface GenerateAllOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: GenerateProgress) => void;
  readonly onTokens?: (tokens: readonly TokenEvent[]) => void;
}

/**
 * All completions, request by request and sample by sample, whatever the order they finished in. `request` counts
 * from 0 within the list.
 * @throws RetortError interrupted where the signal is aborted; numerics where logits are NaN
 */
export async function generateAll(
  engine: Engine,
  requests: readonly GenerateRequest[],
  { signal, onProgress, onTokens }: GenerateAllOptions = {},
): Promise<Completion[][]> {
  const numbers = requests.map((r) => engine.submit(r));
  const place = new Map(numbers.map((number, i) => [number, i]));
  const results: Completion[][] = requests.map(() => []);
  const total = requests.reduce((sum, r) => sum + (r.n ?? 1), 0);
  const before = engine.generatedTokens;
  let finished = 0;
  try {
    while (finished < total) {
      if (signal?.aborted) throw new RetortError('interrupted', 'generation was interrupted');
      const step = engine.step();
      for (const c of step.finished) {
        const request = place.get(c.request);
        if (request === undefined) continue;
        results[request][c.sample] = { ...c, request };
        finished++;
      }
      onTokens?.(step.tokens);
      onProgress?.({ finished, total, tokens: engine.generatedTokens - before });
      await setImmediate();
    }
  } finally {
    if (finished < total) for (const number of numbers) engine.cancel(number);
  }
  return results;
}
