// Tool calls as models write them: in Qwen's and Hermes' form between tags, in Llama 3's as bare JSON.

/** `tags`: `<tool_call>{"name", "arguments"}</tool_call>`, text around it allowed; `json`: the whole answer is a call. */
export type CallForm = 'tags' | 'json';

export interface ToolCall {
  readonly name: string;
  /** JSON text. */
  readonly arguments: string;
}

export const OPEN_CALL = '<tool_call>';
export const CLOSE_CALL = '</tool_call>';
export const PYTHON_TAG = '<|python_tag|>';

/** The form in which a model answers whose chat template this is. */
export function callFormOf(template: string): CallForm {
  return template.includes(OPEN_CALL) ? 'tags' : 'json';
}

/** The call between two tags, or null where it is none. */
export function readTaggedCall(text: string): ToolCall | null {
  return callFrom(parse(text), 'arguments');
}

/**
 * The calls of an answer that is nothing but calls, several parted by semicolons or in a list; null where it is
 * something else, an answer in JSON for instance.
 * @param names of the tools that were offered
 */
export function readBareCalls(text: string, names: ReadonlySet<string>): ToolCall[] | null {
  const body = text.trim().replace(PYTHON_TAG, '').trim();
  const whole = parse(body);
  const values =
    whole === undefined ? splitObjects(body)?.map(parse) : Array.isArray(whole) ? whole : [whole];
  if (!values || values.length === 0) return null;
  const calls = values.map((value) => callFrom(value, 'parameters') ?? callFrom(value, 'arguments'));
  return calls.every((call) => call !== null && names.has(call.name)) ? (calls as ToolCall[]) : null;
}

function callFrom(value: unknown, field: 'arguments' | 'parameters'): ToolCall | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null;
  const { name, [field]: given } = value as Record<string, unknown>;
  if (typeof name !== 'string' || name === '') return null;
  if (typeof given === 'string') return typeof parse(given) === 'object' ? { name, arguments: given } : null;
  if (typeof given !== 'object' || given === null || Array.isArray(given)) return null;
  return { name, arguments: JSON.stringify(given) };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** `{...}; {...}` cut at the semicolons between objects; null where there is other text. */
function splitObjects(text: string): string[] | null {
  const parts: string[] = [];
  let depth = 0;
  let quoted = false;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      if (c === '\\') i++;
      else if (c === '"') quoted = false;
    } else if (c === '"') quoted = true;
    else if (c === '{') depth++;
    else if (c === '}') depth--;
    else if (c === ';' && depth === 0) {
      parts.push(text.slice(start, i));
      start = i + 1;
    }
  }
  parts.push(text.slice(start));
  const objects = parts.map((p) => p.trim()).filter((p) => p !== '');
  return objects.every((p) => p.startsWith('{')) ? objects : null;
}
