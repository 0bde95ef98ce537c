// Who may ask, how much, and what it comes to: limits before a request, the log after it.
import { ApiError } from './errors.js';
import type { Usage } from './job.js';
import type { Key, KeyRing } from './keys.js';
import { costOf, type Prices } from './prices.js';
import { type Outcome, readUsage, type UsageLog } from './usage-log.js';

/** Whoever asked; without keys everybody is `local`. */
export interface Caller {
  readonly id: string;
  readonly name: string;
  readonly key: Key | null;
}

/** A request that was let in. Close it once, when it ends. */
export interface Admission {
  close(id: string, usage: Usage, outcome: Outcome): void;
}

/** What a request may take. */
export interface Demand {
  readonly promptTokens: number;
  /** Most that its answers may have. */
  readonly mostTokens: number;
  /** Of those, what counts against the minute from the start; what is not used is given back. */
  readonly reservedTokens: number;
}

export interface Accounts {
  /** @throws ApiError 401 */
  identify(authorization: string | undefined): Caller;
  /** @throws ApiError 403 where the key may not use the model */
  checkModel(caller: Caller, model: string): void;
  /**
   * Lets a request in.
   * @throws ApiError 429 with the seconds to wait, or none where waiting does not help; 402 where the budget would not
   * last
   */
  admit(caller: Caller, model: string, demand: Demand): Admission;
}

/** What a caller may still use of something that refills by the minute. */
interface Bucket {
  level: number;
  at: number;
}

interface State {
  readonly requests: Bucket;
  readonly tokens: Bucket;
  spent: number;
  /** Most that its open requests may still cost. */
  reserved: number;
}

const LOCAL: Caller = { id: 'local', name: 'local', key: null };

/**
 * @param options.folder whose usage log says what keys have spent so far
 * @param options.now milliseconds
 */
export function openAccounts(options: {
  readonly keys: KeyRing;
  readonly log: UsageLog;
  readonly prices: Prices;
  readonly folder: string;
  readonly now?: () => number;
}): Accounts {
  const { keys, log, prices, now = () => performance.now() } = options;
  const states = new Map<string, State>();
  for (const { key, cost } of readUsage(options.folder)) stateOf(key).spent += cost;

  function stateOf(id: string): State {
    const known = states.get(id);
    if (known) return known;
    const full = () => ({ level: Number.POSITIVE_INFINITY, at: now() });
    const made = { requests: full(), tokens: full(), spent: 0, reserved: 0 };
    states.set(id, made);
    return made;
  }

  /** Brings a bucket up to date; a minute's worth is the most it holds, or one where that is less. */
  function refill(bucket: Bucket, perMinute: number): void {
    const at = now();
    bucket.level = Math.min(Math.max(1, perMinute), bucket.level + ((at - bucket.at) / 60_000) * perMinute);
    bucket.at = at;
  }

  function limit(bucket: Bucket, perMinute: number | undefined, wanted: number, what: string): void {
    if (perMinute === undefined) return;
    refill(bucket, perMinute);
    if (bucket.level >= wanted) return;
    const retryAfter = Math.max(1, Math.ceil(((wanted - bucket.level) / perMinute) * 60));
    throw new ApiError(429, `this key may use ${perMinute} ${what} a minute; try again in ${retryAfter} s`, {
      code: 'rate_limit_exceeded',
      retryAfter,
    });
  }

  return {
    identify(authorization) {
      if (!keys.guarded) return LOCAL;
      const secret = /^Bearer\s+(\S+)\s*$/i.exec(authorization ?? '')?.[1];
      if (!secret)
        throw new ApiError(401, 'this server asks for a key: send the header "Authorization: Bearer KEY"', {
          code: 'missing_api_key',
        });
      const key = keys.find(secret);
      if (!key) throw new ApiError(401, 'the key is not known here', { code: 'invalid_api_key' });
      return { id: key.id, name: key.name, key };
    },
    checkModel({ key }, model) {
      if (key?.models && !key.models.includes(model))
        throw new ApiError(
          403,
          `this key may not use the model ${model}; it may use: ${key.models.join(', ')}`,
          {
            param: 'model',
            code: 'model_not_allowed',
          },
        );
    },
    admit({ id, key }, model, { promptTokens, mostTokens, reservedTokens }) {
      const state = stateOf(id);
      const { requestsPerMinute, tokensPerMinute, budget } = key ?? {};
      const taken = promptTokens + reservedTokens;
      if (tokensPerMinute !== undefined && taken > tokensPerMinute)
        throw new ApiError(
          429,
          `the prompt has ${promptTokens} tokens, its answer up to ${reservedTokens}; this key may use ${tokensPerMinute} a minute: ask for fewer`,
          { code: 'rate_limit_exceeded' },
        );
      // How much of the prompt is cached is known later: it is taken for what costs more.
      const cachedTokens = prices.cachedInput > prices.input ? promptTokens : 0;
      const most = costOf(prices, { promptTokens, cachedTokens, completionTokens: mostTokens });
      if (budget !== undefined && state.spent + state.reserved + most > budget)
        throw new ApiError(
          402,
          `this request may cost up to ${most.toPrecision(3)}; of the key's budget of ${budget}, ${Math.max(0, budget - state.spent - state.reserved).toPrecision(3)} is left`,
          { code: 'insufficient_balance' },
        );
      limit(state.requests, requestsPerMinute, 1, 'requests');
      // Where more comes than was taken here, the level may fall below nothing, and others wait.
      limit(state.tokens, tokensPerMinute, taken, 'tokens');
      state.requests.level -= 1;
      state.tokens.level -= taken;
      state.reserved += most;
      let open = true;
      return {
        close(request, usage, outcome) {
          if (!open) return;
          open = false;
          state.reserved -= most;
          state.tokens.level += reservedTokens - usage.completionTokens;
          const cost = costOf(prices, usage);
          state.spent += cost;
          log.append({
            time: new Date().toISOString(),
            id: request,
            key: id,
            model,
            outcome,
            ...usage,
            cost,
          });
        },
      };
    },
  };
}
