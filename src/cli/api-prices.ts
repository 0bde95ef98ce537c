// What others ask for a million tokens, in US dollars, to see what a cost means: from copies of their pages, and readings of
// them, that were looked up on one day. A copy may be older than that day.

/** The day on which the copies were read. */
export const READ_ON = '2026-11-24';

export interface ApiPrice {
  readonly model: string;
  readonly input: number;
  readonly cachedInput: number;
  readonly output: number;
  readonly source: string;
}

const DEEPSEEK = 'https://api-docs.deepseek.com/quick_start/pricing';
const ANTHROPIC = 'https://platform.claude.com/docs/en/about-claude/pricing';
/** A reading of OpenAI's page of June 2026; the page itself could not be read. */
const OPENAI = 'https://www.morphllm.com/openai-api-pricing';

export const API_PRICES: readonly ApiPrice[] = [
  { model: 'DeepSeek-V4.1-Flash, off-peak', input: 0.15, cachedInput: 0.003, output: 0.6, source: DEEPSEEK },
  { model: 'DeepSeek-V4-Pro, off-peak', input: 0.66, cachedInput: 0.022, output: 1.98, source: DEEPSEEK },
  { model: 'GPT-5.4-nano', input: 0.2, cachedInput: 0.02, output: 1.25, source: OPENAI },
  { model: 'GPT-5.4-mini', input: 0.75, cachedInput: 0.075, output: 4.5, source: OPENAI },
  { model: 'Claude Opus 5', input: 5, cachedInput: 0.5, output: 25, source: ANTHROPIC },
];
