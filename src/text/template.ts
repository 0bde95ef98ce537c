// Prompt templates: how a task's question becomes the text that the model goes on from.
import { refuse } from '../errors.js';
import { chatRenderer } from './chat.js';
import type { Tokenizer } from './tokenizer.js';

export interface PromptTemplate {
  readonly name: string;
  /** The prompt of a question. */
  render(question: string): string;
  /**
   * What the prompt has already opened of the answer's format, `<think>` or nothing. Scorers read
   * `scoredText(template, completion)`, else a format reward stays 0 for ever: the model cannot write a tag that is
   * already there.
   */
  readonly opened: string;
  /** Whether the tokenizer's special tokens (beginning of sequence) are added; a chat template writes its own. */
  readonly addSpecialTokens: boolean;
}

/** The text to score: what the template opened, then the completion. */
export function scoredText(template: PromptTemplate, completion: string): string {
  return template.opened + completion;
}

/** The completion to learn from a whole answer: without the beginning that the template has already opened. */
export function completionToLearn(template: PromptTemplate, answer: string): string {
  return answer.startsWith(template.opened) ? answer.slice(template.opened.length) : answer;
}

/** Token ids of a question's prompt. */
export function encodePrompt(template: PromptTemplate, tokenizer: Tokenizer, question: string): number[] {
  return tokenizer.encode(template.render(question), { addSpecialTokens: template.addSpecialTokens });
}

// DeepSeek-R1 (arXiv 2501.12948), table 1.
const R1_BEFORE =
  'A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant ' +
  'first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning ' +
  'process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., ' +
  '<think> reasoning process here </think> <answer> answer here </answer>. User: ';
const R1_AFTER = '. Assistant:';

/**
 * A template of fixed text around the question.
 * @param parts.opened must be the end of `after`
 * @example plainTemplate('terse', { after: '<think>', opened: '<think>' }).render('1+1=?') // '1+1=?<think>'
 */
export function plainTemplate(
  name: string,
  parts: { before?: string; after?: string; opened?: string } = {},
): PromptTemplate {
  const { before = '', after = '', opened = '' } = parts;
  if (!after.trimEnd().endsWith(opened))
    throw refuse(
      'bad-input',
      `what template ${name} opens`,
      opened,
      `its text must end with it: ${JSON.stringify(after)}`,
    );
  return { name, render: (question) => before + question + after, opened, addSpecialTokens: true };
}

const plain: Readonly<Record<string, () => PromptTemplate>> = {
  // For tiny models: no words that they would have to learn first.
  terse: () => plainTemplate('terse', { after: '<think>', opened: '<think>' }),
  // R1-Zero's, word for word: the model has to open its thinking itself.
  r1: () => plainTemplate('r1', { before: R1_BEFORE, after: R1_AFTER }),
  // The same with thinking opened, for models that would not start it.
  'r1-think': () =>
    plainTemplate('r1-think', { before: R1_BEFORE, after: `${R1_AFTER} <think>`, opened: '<think>' }),
  raw: () => plainTemplate('raw'),
};

/** Names that `getTemplate` knows. */
export const templateNames: readonly string[] = [...Object.keys(plain), 'chat'];

/**
 * A prompt template by name: `terse` (question, then `<think>`), `r1`, `r1-think`, `raw` (the question alone), `chat`
 * (the tokenizer's chat template, the question as the user's turn).
 * @throws RetortError `bad-input` for an unknown name, `bad-model` for `chat` with a tokenizer that has no template.
 */
export function getTemplate(name: string, tokenizer?: Tokenizer): PromptTemplate {
  if (name === 'chat' && tokenizer) return chatTemplate(tokenizer);
  if (!Object.hasOwn(plain, name)) {
    const why = name === 'chat' ? 'it needs a tokenizer' : `known are ${templateNames.join(', ')}`;
    throw refuse('bad-input', 'prompt template', name, why);
  }
  return plain[name]!();
}

function chatTemplate(tokenizer: Tokenizer): PromptTemplate {
  const render = chatRenderer(tokenizer);
  const prompt = (question: string) => render([{ role: 'user', content: question }], true);
  // Templates of reasoning models end the prompt with an opened <think>.
  const opened = /<think>\s*$/.exec(prompt('?'))?.[0] ?? '';
  return { name: 'chat', render: prompt, opened, addSpecialTokens: false };
}
