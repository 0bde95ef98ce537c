// Data sets for SFT and pretraining: JSON lines of prompts and completions, of conversations, of texts; plain text.
import { z } from 'zod';
import { readJsonl, readLines } from '../checkpoint/jsonl.js';
import { RetortError, refuse } from '../errors.js';
import { type ChatRenderer, chatRenderer, type Message } from './chat.js';
import { completionToLearn, getTemplate, type PromptTemplate } from './template.js';
import type { Tokenizer } from './tokenizer.js';

/** What the loss sees is the completion; it ends with an end-of-sequence token. */
export interface Example {
  readonly promptIds: readonly number[];
  readonly completionIds: readonly number[];
}

interface ReadOptions {
  readonly template?: PromptTemplate;
  readonly context?: number;
}

/** @throws RetortError bad-input where an example has more tokens than the context takes */
export function checkFits({ promptIds, completionIds }: Example, context: number, what: string): void {
  const tokens = promptIds.length + completionIds.length;
  // The last token is only predicted: it takes no place.
  if (tokens - 1 <= context) return;
  const remedy = `the model's context is ${context}: shorten it or use a longer context`;
  throw refuse('bad-input', what, tokens, remedy);
}

const SFT_REMEDY =
  'each line is {"prompt": "...", "completion": "..."} or {"messages": [{"role": "...", "content": "..."}]}';
const TEXT_REMEDY = 'each line is {"text": "..."}';

const message = z.looseObject({ role: z.string(), content: z.string() });
const turns = z.array(message).min(1);
const pair = z.looseObject({ prompt: z.string(), completion: z.string() });
const turnPair = z.looseObject({ prompt: turns, completion: turns });
const conversation = z.looseObject({ messages: turns });
const textLine = z.looseObject({ text: z.string() });

/**
 * Reads SFT examples from a JSONL file, one line at a time. A line is `{"prompt", "completion"}` (texts, or lists of
 * turns) or `{"messages"}`; each assistant turn of a conversation (of the completion, where there are two lists) is
 * the completion of one example, with all before it as the prompt. Other fields are ignored.
 * @param options.template for prompts that are texts; they are taken as they stand where absent
 * @param options.context what an example must fit into, in tokens
 * @throws RetortError `bad-data` naming file and line.
 * @example for (const { promptIds, completionIds } of readExamples('train.jsonl', tokenizer)) use(promptIds);
 */
export function* readExamples(
  path: string,
  tokenizer: Tokenizer,
  options: ReadOptions = {},
): Generator<Example> {
  const { template = getTemplate('raw'), context = Number.POSITIVE_INFINITY } = options;
  let chat: ChatRenderer | undefined;
  const renderer = () => {
    chat ??= chatRenderer(tokenizer);
    return chat;
  };
  for (const { number, value } of readJsonl(path, { code: 'bad-data', remedy: SFT_REMEDY }))
    yield* at(path, number, () => {
      const examples = examplesOf(value, tokenizer, template, renderer);
      for (const example of examples) checkFits(example, context, 'tokens of an example');
      return examples;
    });
}

/** All of `readExamples`; a file without any is refused. */
export function loadExamples(path: string, tokenizer: Tokenizer, options: ReadOptions = {}): Example[] {
  const examples = [...readExamples(path, tokenizer, options)];
  if (examples.length === 0) throw new RetortError('bad-data', `${path} holds no example; ${SFT_REMEDY}`);
  return examples;
}

function examplesOf(
  value: unknown,
  tokenizer: Tokenizer,
  template: PromptTemplate,
  renderer: () => ChatRenderer,
): Example[] {
  const has = (field: string) => typeof value === 'object' && value !== null && field in value;
  if (has('messages')) {
    const { messages } = fit(value, conversation, SFT_REMEDY);
    return chatExamples(messages, 0, tokenizer, renderer());
  }
  if (!has('prompt') || !has('completion'))
    throw new RetortError(
      'bad-data',
      `a line without "messages" needs "prompt" and "completion"; ${SFT_REMEDY}`,
    );
  if (Array.isArray((value as { prompt: unknown }).prompt)) {
    const { prompt, completion } = fit(value, turnPair, SFT_REMEDY);
    return chatExamples([...prompt, ...completion], prompt.length, tokenizer, renderer());
  }
  const { prompt, completion } = fit(value, pair, SFT_REMEDY);
  if (completion === '') throw new RetortError('bad-data', 'field completion: it is empty; remove the line');
  const rendered = template.render(prompt);
  return [
    encodePair(tokenizer, rendered, completionToLearn(template, completion), template.addSpecialTokens),
  ];
}

function chatExamples(
  messages: readonly Message[],
  from: number,
  tokenizer: Tokenizer,
  render: ChatRenderer,
): Example[] {
  const examples: Example[] = [];
  for (let turn = from; turn < messages.length; turn++) {
    if (messages[turn]!.role !== 'assistant') continue;
    const prompt = render(messages.slice(0, turn), true);
    const whole = render(messages.slice(0, turn + 1), false);
    if (!whole.startsWith(prompt))
      throw new RetortError(
        'bad-data',
        `turn ${turn + 1}: the chat template changes what stands before an answer, so prompt and completion cannot be told apart; give this data as prompt and completion texts`,
      );
    examples.push(encodePair(tokenizer, prompt, whole.slice(prompt.length), false));
  }
  if (examples.length === 0)
    throw new RetortError(
      'bad-data',
      'the conversation has no assistant turn to learn; add one or remove the line',
    );
  return examples;
}

/**
 * Token ids of a prompt and of the completion that goes on from exactly those ids, ended by an end-of-sequence token
 * unless one of its last two tokens is one (chat templates write their own, and a line end after it).
 * @throws RetortError `bad-data` where a token would span the border and the completion alone would read otherwise.
 */
export function encodePair(
  tokenizer: Tokenizer,
  prompt: string,
  completion: string,
  addSpecialTokens = true,
): Example {
  const promptIds = tokenizer.encode(prompt, { addSpecialTokens });
  const whole = tokenizer.encode(prompt + completion, { addSpecialTokens });
  let completionIds = whole.slice(promptIds.length);
  if (!promptIds.every((id, i) => id === whole[i])) {
    completionIds = tokenizer.encode(completion);
    if (tokenizer.decode([...promptIds, ...completionIds]) !== tokenizer.decode(whole))
      throw new RetortError(
        'bad-data',
        `prompt and completion join inside a token, near ${JSON.stringify(prompt.slice(-8) + completion.slice(0, 8))}; begin the completion with a space or a line end`,
      );
  }
  const { eosTokenIds } = tokenizer;
  const ended = completionIds.slice(-2).some((id) => eosTokenIds.includes(id));
  if (!ended && eosTokenIds.length > 0) completionIds.push(eosTokenIds[0]!);
  return { promptIds, completionIds };
}

// A document of plain text longer than this is cut at its next empty line.
const LONG_DOCUMENT = 2 ** 16;

/**
 * Reads documents for pretraining, each with the special tokens of the tokenizer before it and an end-of-sequence
 * token after it. A `.jsonl` file has one document a line in `text`. In any other file documents are separated by the
 * text of the end-of-sequence token (`<|endoftext|>`); one without it is one document. Line ends become `\n`.
 * @throws RetortError `bad-data` naming file and line, also where the file holds no text.
 */
export function* readDocuments(path: string, tokenizer: Tokenizer): Generator<readonly number[]> {
  const texts = path.endsWith('.jsonl') ? jsonTexts(path) : plainTexts(path, tokenizer);
  const eos = tokenizer.eosTokenIds.slice(0, 1);
  let count = 0;
  for (const { line, text, ends } of texts) {
    count++;
    const ids = at(path, line, () => tokenizer.encode(text, { addSpecialTokens: true }));
    yield ends ? [...ids, ...eos] : ids;
  }
  if (count === 0)
    throw new RetortError('bad-data', `${path} holds no text; name a file with text to learn from`);
}

interface DocumentText {
  /** The line where it begins. */
  readonly line: number;
  readonly text: string;
  /** False where a long document was only cut. */
  readonly ends: boolean;
}

function* jsonTexts(path: string): Generator<DocumentText> {
  for (const { number, value } of readJsonl(path, { code: 'bad-data', remedy: TEXT_REMEDY })) {
    const { text } = at(path, number, () => fit(value, textLine, TEXT_REMEDY));
    if (text !== '') yield { line: number, text, ends: true };
  }
}

function* plainTexts(path: string, tokenizer: Tokenizer): Generator<DocumentText> {
  const separator =
    tokenizer.eosTokenIds.length > 0 ? tokenizer.decode(tokenizer.eosTokenIds.slice(0, 1)) : '';
  let parts: string[] = [];
  let length = 0;
  let line = 1;
  const take = (ends: boolean): DocumentText[] => {
    const text = parts.join('');
    parts = [];
    length = 0;
    return text.trim() === '' ? [] : [{ line, text, ends }];
  };
  for (const { number, text, complete } of readLines(path, 'bad-data', 'name a text file')) {
    if (parts.length === 0) line = number;
    const pieces = separator === '' ? [text] : text.split(separator);
    for (const piece of pieces.slice(0, -1)) {
      parts.push(piece);
      yield* take(true);
      line = number;
    }
    const last = pieces.at(-1)!;
    // The line end after a separator belongs to no document.
    if (pieces.length === 1 || last !== '') parts.push(complete ? `${last}\n` : last);
    length += last.length;
    if (length > LONG_DOCUMENT && last === '') yield* take(false);
  }
  yield* take(true);
}

function fit<T>(value: unknown, schema: z.ZodType<T>, remedy: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = issue.path.map(String).join('.');
  throw new RetortError('bad-data', `${field ? `field ${field}: ` : ''}${issue.message}; ${remedy}`);
}

/** Puts file and line before the message of an error. */
function at<T>(path: string, line: number, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof RetortError)) throw error;
    throw new RetortError('bad-data', `${path}:${line}: ${error.message}`, { cause: error });
  }
}
