// From a conversation to the text that the model goes on from.
import { RetortError } from '../errors.js';
import { chatRenderer, type Message } from '../text/chat.js';
import { getTemplate } from '../text/template.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { answerGrammar } from './constrain/answer.js';
import type { Grammar } from './constrain/expression.js';
import { ApiError } from './errors.js';
import type { ChatMessage, ChatRequest, Tool } from './schema.js';
import { type CallForm, callFormOf } from './tool-calls.js';

/** A prompt, and how the answer to it is to be read. */
export interface Prompt {
  readonly ids: readonly number[];
  /** Whether the prompt ends inside an opened `<think>`. */
  readonly thinking: boolean;
  /** How the model writes tool calls; null where none were offered. */
  readonly calls: CallForm | null;
  /** What the answer is held to, where anything is asked for. */
  readonly grammar: Grammar | null;
}

/** Turns conversations into prompts, by a model's chat template or by a task's prompt template. */
export type PromptMaker = (request: ChatRequest) => Prompt;

/**
 * @param template `chat`, or a name that `getTemplate` knows: then a conversation is one question
 * @throws RetortError bad-model where the template is broken
 */
export function promptMaker(tokenizer: Tokenizer, template: string): PromptMaker {
  if (template !== 'chat') return questionPrompt(tokenizer, template);
  if (tokenizer.chatTemplate === null) return refuseChat;
  return chatPrompt(tokenizer, tokenizer.chatTemplate);
}

const refuseChat: PromptMaker = () => {
  throw new ApiError(
    400,
    'this model has no chat template: ask /v1/completions, or start the server with --template (terse, r1, raw, ...)',
    { code: 'no_chat_template' },
  );
};

const OPENED = /<think>\s*$/;

function chatPrompt(tokenizer: Tokenizer, source: string): PromptMaker {
  const render = chatRenderer(tokenizer);
  const knows = (word: string) => new RegExp(`\\b${word}\\b`).test(source);
  const callForm = knows('tools') ? callFormOf(source) : null;
  return (request) => {
    const offered = offeredTools(request);
    if (offered.length > 0 && !callForm)
      throw new ApiError(400, "this model's chat template takes no tools", { param: 'tools' });
    const messages = dropOldReasoning(request.messages).map(templateMessage);
    const variables = templateVariables(request, knows);
    const tools = offered.length > 0 ? { tools: offered } : {};
    const text = render(messages, true, { ...variables, ...tools });
    const calls = offered.length > 0 ? callForm : null;
    return {
      ids: tokenizer.encode(text),
      thinking: OPENED.test(text),
      calls,
      grammar: answerGrammar(request, calls, tokenizer.eosTokenIds.length > 0),
    };
  };
}

function offeredTools({ tools = [], tool_choice: choice }: ChatRequest): readonly Tool[] {
  return choice === 'none' ? [] : tools;
}

/** What the template is told beside messages and tools; asking for what it does not know is refused. */
function templateVariables(r: ChatRequest, knows: (word: string) => boolean): Record<string, unknown> {
  const variables: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(r.chat_template_kwargs ?? {})) {
    if (!knows(name))
      throw new ApiError(400, `this model's chat template has no variable ${name}`, {
        param: `chat_template_kwargs.${name}`,
      });
    variables[name] = value;
  }
  const thinks = r.enable_thinking ?? (r.thinking && r.thinking.type === 'enabled');
  if (thinks !== undefined) {
    if (knows('enable_thinking')) variables.enable_thinking = thinks;
    else if (!thinks)
      throw new ApiError(
        400,
        "this model's chat template cannot turn thinking off; limit it by thinking_budget",
        { param: r.thinking ? 'thinking' : 'enable_thinking' },
      );
  }
  if (r.reasoning_effort !== undefined) {
    if (!knows('reasoning_effort'))
      throw new ApiError(400, "this model's chat template knows no reasoning_effort; use thinking_budget", {
        param: 'reasoning_effort',
      });
    variables.reasoning_effort = r.reasoning_effort;
  }
  return variables;
}

/**
 * Earlier reasoning does not go into the context again. Only that after the last question stays: a model that called
 * a tool goes on from its own thoughts, and its template decides about them.
 */
function dropOldReasoning(messages: readonly ChatMessage[]): readonly ChatMessage[] {
  const last = messages.findLastIndex((m) => m.role === 'user');
  return messages.map((message, i) => {
    if (message.role !== 'assistant' || i > last) return message;
    const text = textOf(message.content);
    return {
      ...message,
      content: text.replace(/^\s*<think>[\s\S]*?<\/think>\s*/, ''),
      reasoning_content: null,
    };
  });
}

function textOf(content: ChatMessage['content']): string {
  if (typeof content === 'string') return content;
  return (content ?? []).map((part) => part.text).join('');
}

/** A message as templates expect it: text as one string, arguments of calls as values. */
function templateMessage(message: ChatMessage): Message {
  const content = textOf(message.content);
  const name = message.name ? { name: message.name } : {};
  if (message.role === 'tool') return { role: 'tool', content, tool_call_id: message.tool_call_id, ...name };
  // Templates know no other word for who gives instructions.
  if (message.role !== 'assistant')
    return { role: message.role === 'user' ? 'user' : 'system', content, ...name };
  const { reasoning_content: reasoning, tool_calls: calls } = message;
  return {
    role: 'assistant',
    content,
    ...name,
    ...(reasoning ? { reasoning_content: reasoning } : {}),
    ...(calls?.length ? { tool_calls: calls.map(templateCall) } : {}),
  };
}

function templateCall(call: NonNullable<Extract<ChatMessage, { role: 'assistant' }>['tool_calls']>[number]) {
  const { name, arguments: text } = call.function;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // What the model wrote broken goes back as it was.
    value = text;
  }
  return { ...call, function: { name, arguments: value } };
}

/** A prompt template for one question, as the tasks use them. */
function questionPrompt(tokenizer: Tokenizer, name: string): PromptMaker {
  const template = getTemplate(name, tokenizer);
  return (request) => {
    const { messages } = request;
    if (offeredTools(request).length > 0)
      throw new ApiError(400, `the prompt template ${name} takes no tools`, { param: 'tools' });
    templateVariables(request, () => false);
    if (messages.length !== 1 || messages[0].role !== 'user')
      throw new ApiError(
        400,
        `the prompt template ${name} takes one question: send one message of role user`,
        { param: 'messages' },
      );
    const text = template.render(textOf(messages[0].content));
    const ids = tokenizer.encode(text, { addSpecialTokens: template.addSpecialTokens });
    const grammar = answerGrammar(request, null, tokenizer.eosTokenIds.length > 0);
    return { ids, thinking: OPENED.test(text), calls: null, grammar };
  };
}

/** What prompts are asked for: of a conversation, or plain ones. */
export type PromptRequest =
  | { readonly chat: ChatRequest }
  | { readonly plain: readonly (string | readonly number[])[] };

/** Makes the prompts of a request for one model. @throws ApiError, RetortError where it does not fit the model */
export function makePrompts(
  { tokenizer, make }: { readonly tokenizer: Tokenizer; readonly make: PromptMaker },
  request: PromptRequest,
): Prompt[] {
  if ('chat' in request) return [make(request.chat)];
  return request.plain.map((one) => ({
    ids: completionPrompt(tokenizer, one),
    ...{ thinking: false, calls: null, grammar: null },
  }));
}

/** Token ids of a plain prompt; an empty one is the beginning of a sequence. */
function completionPrompt(tokenizer: Tokenizer, prompt: string | readonly number[]): readonly number[] {
  const ids = typeof prompt === 'string' ? tokenizer.encode(prompt, { addSpecialTokens: true }) : prompt;
  if (ids.length > 0) return ids;
  if (tokenizer.bosTokenId === null)
    throw new RetortError(
      'bad-input',
      'prompt: it is empty, and the model has no beginning-of-sequence token',
    );
  return [tokenizer.bosTokenId];
}
