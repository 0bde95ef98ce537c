// The Hugging Face hub as this process may use it: address, token and cache of the environment, and errors in words.
import { homedir } from 'node:os';
import { join } from 'node:path';
import { HubApiError } from '@huggingface/hub';
import { RetortError, refuse } from '../errors.js';

export interface Hub {
  /** HF_ENDPOINT, without a slash at the end. */
  readonly url: string;
  /** HF_TOKEN. */
  readonly token: string | undefined;
  /** Folder of downloaded repositories, laid out as Hugging Face's own programs do it. */
  readonly cache: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_CACHE.
 * @throws RetortError bad-input for an address or a token that cannot be one
 */
export function hubOf(environment: Environment): Hub {
  const given = (name: string) => environment[name]?.trim() || undefined;
  const url = given('HF_ENDPOINT')?.replace(/\/+$/, '') ?? 'https://huggingface.co';
  if (!/^https?:\/\/[^/\s]+/.test(url))
    throw refuse('bad-input', 'HF_ENDPOINT', url, 'give an address, https://huggingface.co for instance');
  const token = given('HF_TOKEN');
  // The token itself is never shown.
  if (token !== undefined && !token.startsWith('hf_'))
    throw new RetortError(
      'bad-input',
      'HF_TOKEN does not begin with hf_: set it to an access token of Hugging Face',
    );
  const home = given('HF_HOME') ?? join(given('XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'huggingface');
  return { url, token, cache: given('HF_HUB_CACHE') ?? join(home, 'hub') };
}

/** What went wrong between here and the hub, as an error for the user; errors of Retort's own pass unchanged. */
export function hubError(error: unknown, what: string, hub: Hub): RetortError {
  if (error instanceof RetortError) return error;
  const options = { cause: error };
  if (!(error instanceof HubApiError)) {
    const { cause, message } = error as Error;
    const why = (cause as Error | undefined)?.message || message || String(error);
    return new RetortError(
      'network',
      `${what}: ${hub.url} cannot be reached (${why}); try again: it goes on from here`,
      options,
    );
  }
  const { statusCode } = error;
  if (statusCode === 401 || statusCode === 403) {
    const remedy = hub.token
      ? 'the token of HF_TOKEN may not read it: ask for access on its page, or use another token'
      : 'it is private, gated or not there: set HF_TOKEN to a token that may read it';
    return new RetortError(
      'bad-input',
      `${what}: ${hub.url} refuses it (status ${statusCode}); ${remedy}`,
      options,
    );
  }
  if (statusCode === 404)
    return new RetortError(
      'bad-input',
      `${what}: ${hub.url} has none of this name; correct the name or the revision`,
      options,
    );
  return new RetortError(
    'network',
    `${what}: ${hub.url} answers with status ${statusCode}; try again later`,
    options,
  );
}
