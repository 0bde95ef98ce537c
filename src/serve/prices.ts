// What tokens cost, and what a request comes to.
import type { Usage } from './job.js';

/** Prices of a million tokens, in one currency. */
export interface Prices {
  readonly input: number;
  /** Of input that a cache held. */
  readonly cachedInput: number;
  readonly output: number;
}

export const FREE: Prices = { input: 0, cachedInput: 0, output: 0 };

export function costOf(
  prices: Prices,
  u: Pick<Usage, 'promptTokens' | 'cachedTokens' | 'completionTokens'>,
): number {
  const fresh = u.promptTokens - u.cachedTokens;
  return (
    (fresh * prices.input + u.cachedTokens * prices.cachedInput + u.completionTokens * prices.output) / 1e6
  );
}
