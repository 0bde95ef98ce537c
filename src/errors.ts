// The one error family of Retort: a code, and a message that says what was wrong, the value, and the remedy.

/** What kind of thing was refused. `bad-input` covers options, files and data given by the user. */
export type ErrorCode =
  | 'bad-input'
  | 'bad-model'
  | 'bad-data'
  | 'bad-checkpoint'
  | 'bad-kernel'
  | 'numerics'
  | 'storage'
  | 'network'
  | 'budget'
  | 'interrupted'
  | 'out-of-memory';

/** An error whose message can be shown to the user as it stands; the command line exits with status 2 on it. */
export class RetortError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'RetortError';
    this.code = code;
  }
}

/** Builds the message in one form: `WHAT: got VALUE; REMEDY`. */
export function refuse(code: ErrorCode, what: string, value: unknown, remedy: string): RetortError {
  return new RetortError(code, `${what}: got ${show(value)}; ${remedy}`);
}

function show(value: unknown): string {
  if (typeof value === 'number' || value === undefined) return String(value);
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}
