// Errors as the OpenAI protocol words them: a status, and a body with message, type, param and code.
import { RetortError } from '../errors.js';

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

/** Statuses that the API answers with, and the `type` that clients find in the body. */
const TYPES: Readonly<Record<number, string>> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  402: 'insufficient_balance',
  403: 'permission_error',
  404: 'not_found_error',
  405: 'invalid_request_error',
  408: 'timeout_error',
  413: 'invalid_request_error',
  415: 'invalid_request_error',
  429: 'rate_limit_error',
  500: 'server_error',
  503: 'server_error',
  504: 'timeout_error',
};

/** A refusal that a client sees. */
export class ApiError extends Error {
  readonly status: number;
  readonly param: string | null;
  readonly code: string | null;
  /** Seconds after which asking again may help; becomes Retry-After. */
  readonly retryAfter: number | null;

  constructor(
    status: number,
    message: string,
    more: { param?: string; code?: string; retryAfter?: number; cause?: unknown } = {},
  ) {
    super(message, { cause: more.cause });
    this.name = 'ApiError';
    this.status = status;
    this.param = more.param ?? null;
    this.code = more.code ?? null;
    this.retryAfter = more.retryAfter ?? null;
  }
}

export function errorBody({ status, message, param, code }: ApiError): ErrorBody {
  return { error: { message, type: TYPES[status] ?? 'server_error', param, code } };
}

/**
 * Any error as a client may see it. What a user's input caused keeps its words; what went wrong inside does not leave
 * the server, since a message may hold paths or parts of a prompt.
 */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof RetortError && (error.code === 'bad-input' || error.code === 'bad-data'))
    return new ApiError(400, error.message, { cause: error });
  return new ApiError(500, 'the server failed on this request; its log says why', {
    code: 'internal_error',
    cause: error,
  });
}
