// What the API accepts: the requests of OpenAI's protocol with DeepSeek's and Qwen's fields for thinking, checked whole.
//
// A field that would change the answer and that this server does not have is refused by name; fields that only label a
// request (user, metadata, ...) are taken and have no effect.
import { z } from 'zod';
import { remedyOf } from '../remedy.js';
import { ApiError } from './errors.js';

const MAX_STOPS = 16;
const MAX_STOP_LENGTH = 256;
const MAX_MESSAGES = 4096;
const MAX_BIASES = 1024;
const MAX_TOOLS = 128;
/** Most samples of one request. */
export const MAX_SAMPLES = 128;
/** Most alternatives a token is reported with. */
export const MAX_TOP_LOGPROBS = 20;

const label = z.unknown().optional();
/** Accepted and without effect: they name the request, its account or its price, not its answer. */
const labels = {
  user: label,
  metadata: label,
  store: label,
  service_tier: label,
  safety_identifier: label,
  prompt_cache_key: label,
  prompt_cache_retention: label,
};

const stopText = z.string().min(1).max(MAX_STOP_LENGTH);

const sampling = {
  model: z.string().min(1).max(256),
  temperature: z.number().min(0).max(2).optional(),
  top_p: z.number().gt(0).max(1).optional(),
  // -1 is how some clients write "all".
  top_k: z.int().min(-1).optional(),
  min_p: z.number().min(0).max(1).optional(),
  frequency_penalty: z.number().min(-2).max(2).optional(),
  presence_penalty: z.number().min(-2).max(2).optional(),
  repetition_penalty: z.number().min(0.01).max(2).optional(),
  n: z.int().min(1).max(MAX_SAMPLES).optional(),
  seed: z.int().optional(),
  stop: z.union([stopText, z.array(stopText).max(MAX_STOPS)]).optional(),
  logit_bias: z
    .record(z.string().regex(/^\d{1,7}$/, 'keys are token ids'), z.number().min(-100).max(100))
    .refine((bias) => Object.keys(bias).length <= MAX_BIASES, `give at most ${MAX_BIASES} tokens`)
    .optional(),
  stream: z.boolean().optional(),
  stream_options: z
    .strictObject({ include_usage: z.boolean().optional(), include_obfuscation: z.literal(false).optional() })
    .optional(),
};

const textPart = z.object({ type: z.literal('text'), text: z.string() });
const content = z.union([z.string(), z.array(textPart)]);

const toolCall = z.object({
  id: z.string().optional(),
  type: z.literal('function').default('function'),
  function: z.object({ name: z.string(), arguments: z.string() }),
});

const message = z.discriminatedUnion('role', [
  z.object({ role: z.enum(['system', 'developer', 'user']), content, name: z.string().nullish() }),
  z.object({
    role: z.literal('assistant'),
    content: content.nullish(),
    reasoning_content: z.string().nullish(),
    tool_calls: z.array(toolCall).max(MAX_TOOLS).nullish(),
    name: z.string().nullish(),
    // What the fields above have taken the place of, and DeepSeek's way to give the answer's beginning.
    function_call: z.null('calls stand in tool_calls').optional(),
    prefix: z.literal(false, 'this server cannot go on with a message: leave it out').nullish(),
  }),
  z.object({ role: z.literal('tool'), content, tool_call_id: z.string(), name: z.string().nullish() }),
]);

const jsonObject = z.record(z.string(), z.unknown());

const tool = z.object({
  type: z.literal('function'),
  function: z.strictObject({
    name: z.string().regex(/^[\w-]{1,64}$/, 'a name has 1 to 64 letters, digits, _ and -'),
    description: z.string().nullish(),
    parameters: jsonObject.nullish(),
    strict: z.boolean().nullish(),
  }),
});

const namedTool = z.object({ type: z.literal('function'), function: z.object({ name: z.string() }) });

const responseFormat = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text') }),
  z.object({ type: z.literal('json_object') }),
  z.object({
    type: z.literal('json_schema'),
    json_schema: z.object({
      name: z.string().optional(),
      description: z.string().nullish(),
      schema: z.union([jsonObject, z.boolean()]),
      strict: z.boolean().nullish(),
    }),
  }),
]);

const chatRequest = z.strictObject({
  ...sampling,
  ...labels,
  messages: z.array(message).min(1).max(MAX_MESSAGES),
  max_tokens: z.int().min(1).optional(),
  max_completion_tokens: z.int().min(1).optional(),
  logprobs: z.boolean().optional(),
  top_logprobs: z.int().min(0).max(MAX_TOP_LOGPROBS).optional(),
  tools: z.array(tool).max(MAX_TOOLS).optional(),
  tool_choice: z.union([z.enum(['none', 'auto', 'required']), namedTool]).optional(),
  parallel_tool_calls: z.boolean().optional(),
  response_format: responseFormat.optional(),
  modalities: z.tuple([z.literal('text')]).optional(),
  // Whether to think, and for how many tokens at most: DeepSeek's form, Qwen's, and that of chat templates.
  thinking: z
    .strictObject({ type: z.enum(['enabled', 'disabled']), budget_tokens: z.int().min(0).optional() })
    .optional(),
  enable_thinking: z.boolean().optional(),
  thinking_budget: z.int().min(0).optional(),
  reasoning_effort: z.enum(['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max']).optional(),
  chat_template_kwargs: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).optional(),
});

const tokenIds = z.array(z.int().min(0)).min(1);

const completionRequest = z.strictObject({
  ...sampling,
  ...labels,
  prompt: z.union([z.string(), tokenIds, z.array(z.string()).min(1), z.array(tokenIds).min(1)]),
  max_tokens: z.int().min(1).optional(),
  logprobs: z.int().min(0).max(MAX_TOP_LOGPROBS).optional(),
  echo: z.boolean().optional(),
});

export type ChatRequest = z.infer<typeof chatRequest>;
export type ChatMessage = z.infer<typeof message>;
export type Tool = z.infer<typeof tool>;
export type CompletionRequest = z.infer<typeof completionRequest>;
export type SamplingFields = Omit<CompletionRequest, 'prompt' | 'logprobs' | 'echo' | 'max_tokens'>;

/** @throws ApiError 400 naming the first field that does not fit, its value and the remedy */
export function parseChatRequest(body: unknown): ChatRequest {
  return parse(chatRequest, body);
}

/** @throws ApiError 400 naming the first field that does not fit, its value and the remedy */
export function parseCompletionRequest(body: unknown): CompletionRequest {
  return parse(completionRequest, body);
}

function parse<T>(schema: z.ZodType<T>, body: unknown): T {
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw new ApiError(400, 'the body must be a JSON object');
  // Clients write null for what they leave out.
  const given = Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
  const result = schema.safeParse(given, { error: remedyOf });
  if (result.success) return result.data;
  throw refusal(result.error.issues[0]!, given);
}

function refusal(first: z.core.$ZodIssue, body: unknown): ApiError {
  const issue = deepest(first);
  if (issue.code === 'unrecognized_keys') {
    const param = [...issue.path.map(String), issue.keys[0]!].join('.');
    return new ApiError(400, `this server has no parameter ${nameOf(param)}; leave it out`, {
      param,
      code: 'unknown_parameter',
    });
  }
  const param = issue.path.map(String).join('.');
  const value = valueAt(body, issue.path);
  const message = value === undefined && issue.code !== 'custom' ? 'it is missing' : issue.message;
  const got = value === undefined ? '' : `: got ${show(value)}`;
  return new ApiError(400, `${nameOf(param) || 'the request'}${got}; ${message}`, {
    param: param || undefined,
  });
}

/** Of a union the branch that came furthest says what is wrong. */
function deepest(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== 'invalid_union') return issue;
  const inner = issue.errors.flatMap((branch) => branch.slice(0, 1)).map(deepest);
  const best = inner.reduce<z.core.$ZodIssue | null>(
    (found, one) => (one.path.length > 0 && one.path.length > (found?.path.length ?? 0) ? one : found),
    null,
  );
  return best ? { ...best, path: [...issue.path, ...best.path] } : { ...issue, message: kindsOf(issue) };
}

function kindsOf(issue: z.core.$ZodIssueInvalidUnion): string {
  const words = issue.errors.flatMap((branch) => branch.slice(0, 1)).map((one) => one.message);
  const unique = [...new Set(words)];
  return unique.length > 0 ? unique.join(', or ') : issue.message;
}

function valueAt(body: unknown, path: readonly PropertyKey[]): unknown {
  let value: unknown = body;
  for (const key of path) value = (value as Record<PropertyKey, unknown> | undefined | null)?.[key];
  return value;
}

/** The path of a field, as it is where it is made of plain names. */
function nameOf(param: string): string {
  return /^[\w.-]{0,200}$/.test(param) ? param : show(param);
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
