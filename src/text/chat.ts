// Chat templates: the tokenizer's Jinja template, run by @huggingface/jinja over a conversation.
import { Template } from '@huggingface/jinja';
import { RetortError } from '../errors.js';
import type { Tokenizer } from './tokenizer.js';

/** One turn of a conversation; further fields are handed to the template as they are. */
export interface Message {
  readonly role: string;
  readonly content: string;
  readonly [field: string]: unknown;
}

/**
 * Turns conversations into text. `addGenerationPrompt` ends it where the assistant's next turn begins; `variables` are
 * what templates ask for beside the messages: `tools`, `enable_thinking`, ...
 */
export type ChatRenderer = (
  messages: readonly Message[],
  addGenerationPrompt: boolean,
  variables?: Readonly<Record<string, unknown>>,
) => string;

/**
 * The tokenizer's chat template, parsed. The text holds its special tokens itself, so it is encoded without adding any.
 * @throws RetortError `bad-model` where there is no template or it is broken; the renderer throws `bad-data` where the
 * template refuses a conversation, with the template's own words.
 */
export function chatRenderer(tokenizer: Tokenizer): ChatRenderer {
  if (tokenizer.chatTemplate === null)
    throw new RetortError(
      'bad-model',
      'the tokenizer has no chat template (chat_template in tokenizer_config.json); use another prompt template, or a model made for chats',
    );
  let template: Template;
  try {
    template = new Template(tokenizer.chatTemplate);
  } catch (error) {
    throw new RetortError(
      'bad-model',
      `the tokenizer's chat template is broken: ${words(error)}; correct it`,
      {
        cause: error,
      },
    );
  }
  const text = (id: number | null | undefined) => (id == null ? '' : tokenizer.decode([id]));
  const tokens = { bos_token: text(tokenizer.bosTokenId), eos_token: text(tokenizer.eosTokenIds[0]) };
  return (messages, addGenerationPrompt, variables = {}) => {
    try {
      return template.render({
        ...variables,
        messages,
        add_generation_prompt: addGenerationPrompt,
        ...tokens,
      });
    } catch (error) {
      throw new RetortError(
        'bad-data',
        `the chat template refuses the conversation: ${words(error)}; correct its turns`,
        {
          cause: error,
        },
      );
    }
  };
}

function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
