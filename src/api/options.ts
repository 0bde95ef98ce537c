// What a chat API is called with: its address, its prices, its budget. The key comes from the environment alone.
import { z } from 'zod';
import { refuse } from '../errors.js';
import { remedyOf } from '../remedy.js';

const price = z.number().min(0).optional();

/** Options of every client of an API; plain JSON, as they stand in a run's config.json. They never hold a key. */
export const apiFields = {
  endpoint: z
    .string()
    .optional()
    .describe('base URL of an OpenAI-compatible API, https://api.deepseek.com/v1 for instance'),
  apiKeyEnv: z
    .string()
    .regex(/^\w+$/, 'give the name of an environment variable, not the key itself')
    .optional()
    .describe(
      'environment variable that holds the API key; default: DEEPSEEK_API_KEY or OPENAI_API_KEY by the host',
    ),
  concurrency: z.number().int().min(1).max(1000).default(8).describe('calls of the API at a time'),
  apiRetries: z.number().int().min(0).default(8).describe('attempts after a failed one before giving up'),
  idleTimeout: z.number().positive().default(120).describe('seconds without a byte that end an attempt'),
  requestTimeout: z.number().positive().default(1800).describe('seconds that end an attempt in any case'),
  priceInput: price.describe('price of a million input tokens, in any currency'),
  priceCachedInput: price.describe("price of a million input tokens from the API's cache; default: as input"),
  priceOutput: price.describe('price of a million output tokens'),
  maxCost: z
    .number()
    .positive()
    .optional()
    .describe('budget in that currency, never passed; counts everything in the file of answers'),
  maxApiTokens: z
    .number()
    .int()
    .min(1)
    .optional()
    .describe('budget in tokens, input and output together, never passed; counted likewise'),
  maxTokensName: z
    .enum(['max_tokens', 'max_completion_tokens'])
    .default('max_tokens')
    .describe('how the API calls the limit of an answer'),
  allowModelChange: z
    .boolean()
    .default(false)
    .describe('go on when the API answers under another model name than before'),
};
export const apiOptions = z.strictObject(apiFields);
export type ApiOptions = z.output<typeof apiOptions>;

/** Prices of a million tokens. */
export interface Prices {
  readonly input: number;
  readonly cachedInput: number;
  readonly output: number;
}

/** What a client needs, checked. */
export interface ApiSettings extends ApiOptions {
  /** Without a slash at its end. */
  readonly endpoint: string;
  /** Null where tokens cost nothing that is known. */
  readonly prices: Prices | null;
  /** Null where none is sent: only for an API on this machine. */
  readonly key: string | null;
}

/**
 * Checks the options against each other and reads the key.
 * @throws RetortError bad-input naming the option, its value and the remedy; no message holds the key
 */
export function settleApiOptions(
  given: z.input<typeof apiOptions>,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): ApiSettings {
  const parsed = apiOptions.safeParse(given, { error: remedyOf });
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0];
    const name = path.map(String).join('.');
    throw refuse('bad-input', `option ${name} of the API`, given[name as keyof typeof given], message);
  }
  const o = parsed.data;
  const url = checkEndpoint(o.endpoint);
  const local = isLocal(url);
  const prices = pricesOf(o);
  if (o.maxCost !== undefined && !prices)
    throw refuse(
      'bad-input',
      'prices with maxCost',
      null,
      'give priceInput and priceOutput, per million tokens',
    );
  if (!local && o.maxCost === undefined && o.maxApiTokens === undefined) {
    const remedy = `${url.host} may charge for its answers: give maxCost with prices, or maxApiTokens`;
    throw refuse('bad-input', 'budget of the API', null, remedy);
  }
  const variable = o.apiKeyEnv ?? (/deepseek/.test(url.hostname) ? 'DEEPSEEK_API_KEY' : 'OPENAI_API_KEY');
  const key = environment[variable]?.trim() || null;
  // What OPENAI_API_KEY holds is not meant for a server on this machine.
  const sent = local && o.apiKeyEnv === undefined ? null : key;
  if (sent === null && !(local && o.apiKeyEnv === undefined)) {
    throw refuse(
      'bad-input',
      `API key in the environment variable ${variable}`,
      null,
      `set ${variable}, or name another variable (apiKeyEnv)`,
    );
  }
  return { ...o, endpoint: url.href.replace(/\/+$/, ''), prices, key: sent };
}

/** The endpoint goes into files, so it may hold no secret. */
function checkEndpoint(endpoint: string | undefined): URL {
  let url: URL;
  try {
    url = new URL(endpoint ?? '');
  } catch {
    throw refuse(
      'bad-input',
      'endpoint',
      endpoint,
      'give the base URL of the API, https://HOST/v1 for instance',
    );
  }
  // Not shown: it may hold a password.
  const wrong = (remedy: string) => refuse('bad-input', 'endpoint', `${url.protocol}//${url.host}`, remedy);
  if (url.username || url.password || url.search || url.hash)
    throw wrong(
      'it may hold no user, password or query: put the key into an environment variable (apiKeyEnv)',
    );
  if (!['http:', 'https:'].includes(url.protocol)) throw wrong('it begins with https:// or http://');
  return url;
}

function isLocal({ hostname }: URL): boolean {
  return ['localhost', '[::1]'].includes(hostname) || /^127\./.test(hostname);
}

function pricesOf({ priceInput, priceCachedInput, priceOutput }: ApiOptions): Prices | null {
  if (priceInput === undefined && priceOutput === undefined && priceCachedInput === undefined) return null;
  if (priceInput === undefined || priceOutput === undefined)
    throw refuse(
      'bad-input',
      'prices of the API',
      { priceInput, priceOutput },
      'give both, per million tokens',
    );
  return { input: priceInput, cachedInput: priceCachedInput ?? priceInput, output: priceOutput };
}
